//! A virtual, empty WASI 0.2 for components whose toolchain links it without use (`wasm32-wasip2`,
//! wasi-libc).
//!
//! There are no arguments, no environment, no files and no network. Input is at its end, and output goes to
//! the module's log. The clock stands at the time of the batch, and randomness follows from the module and
//! the batch. So the same batch gives the same bytes on every node, also in a replay.

mod cli;
mod clocks;
mod io;
mod random;

use crate::bindings::resources::Nothing;
use crate::bindings::wasi_virtual::Virtual;
use crate::digest::Digest;
use crate::host::Guest;
use crate::host::log::LogLevel;
use crate::limits::{LOG_LINE_BYTES_MAX, WASI_HANDLES_MAX};
use std::sync::Arc;
use wasmtime::StoreContextMut;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasSelf, Linker, Resource, ResourceType, Val};

/// Interfaces without any function behind them: calls trap, with the name. libc links them.
const ABSENT: [&str; 2] = ["wasi:filesystem/", "wasi:sockets/"];

/// Returns true when `import` names an interface served here.
pub(crate) fn serves(import: &str) -> bool {
    let served = ["wasi:io/", "wasi:cli/", "wasi:clocks/", "wasi:random/"];
    import.contains("@0.2.") && served.iter().chain(&ABSENT).any(|p| import.starts_with(p))
}

/// State of the virtual WASI for an instance.
pub(crate) struct Wasi {
    seed: Arc<[u8; 32]>,
    /// The batch's time in milliseconds; 0 before the first batch.
    now: i64,
    /// Readings of the monotonic clock and blocks of randomness since the call began.
    readings: u64,
    blocks: u64,
    handles: usize,
    /// Unfinished lines of standard output and error.
    lines: [Vec<u8>; 2],
}

impl Wasi {
    pub(crate) fn new(digest: Digest) -> Self {
        Self {
            seed: Arc::new(*digest.as_bytes()),
            now: 0,
            readings: 0,
            blocks: 0,
            handles: 0,
            lines: [Vec::new(), Vec::new()],
        }
    }
}

impl Guest {
    /// Sets the time of a call.
    pub(super) fn set_time(&mut self, now: i64) {
        self.wasi.now = now.max(0);
        self.wasi.readings = 0;
        self.wasi.blocks = 0;
    }

    /// Ends unfinished lines, at the end of a call.
    pub(crate) fn end_lines(&mut self) {
        for stream in [1, 2] {
            self.print(stream, b"", true);
        }
    }

    fn print(&mut self, stream: u32, mut bytes: &[u8], finish: bool) {
        let Some(line) = self.wasi.lines.get_mut(stream.wrapping_sub(1) as usize) else {
            return;
        };
        let level = if stream == 1 {
            LogLevel::Info
        } else {
            LogLevel::Warn
        };
        while !bytes.is_empty() {
            let end = bytes.iter().position(|b| *b == b'\n');
            let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            // Lines are cut later: bound the kept part here.
            let room = LOG_LINE_BYTES_MAX.saturating_sub(line.len()).min(part.len());
            line.extend_from_slice(part.get(..room).unwrap_or_default());
            bytes = rest.get(1..).unwrap_or_default();
            if end.is_some() {
                self.log.line(level, &String::from_utf8_lossy(line));
                line.clear();
            }
        }
        if finish && !line.is_empty() {
            self.log.line(level, &String::from_utf8_lossy(line));
            line.clear();
        }
    }

    /// Makes a handle. The engine keeps the table of handles, which would grow with a guest that drops none.
    fn handle<T: 'static>(&mut self, number: u32) -> wasmtime::Result<Resource<T>> {
        if self.wasi.handles >= WASI_HANDLES_MAX {
            return Err(wasmtime::Error::msg(format!(
                "more than {WASI_HANDLES_MAX} open WASI handles"
            )));
        }
        self.wasi.handles += 1;
        Ok(Resource::new_own(number))
    }

    fn release(&mut self) {
        self.wasi.handles = self.wasi.handles.saturating_sub(1);
    }
}

pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    Virtual::add_to_linker::<_, HasSelf<Guest>>(linker, |guest| guest)
}

/// Returns a linker that also has the imports of files and network of `component`; `None` without such
/// imports.
pub(crate) fn link_absent(
    linker: &Linker<Guest>,
    component: &Component,
) -> wasmtime::Result<Option<Linker<Guest>>> {
    let engine = component.engine();
    let ty = component.component_type();
    let absent = ty
        .imports(engine)
        .filter(|(name, _)| ABSENT.iter().any(|p| name.starts_with(p)));
    let mut extended: Option<Linker<Guest>> = None;
    for (name, item) in absent {
        let ComponentItem::ComponentInstance(instance) = item.ty else {
            continue;
        };
        let linker = extended.get_or_insert_with(|| linker.clone());
        let mut define = linker.instance(name)?;
        for (item, ty) in instance.exports(engine) {
            match ty.ty {
                ComponentItem::ComponentFunc(_) => define.func_new(item, absent_call(name, item))?,
                ComponentItem::Resource(_) if !of_io(item) => {
                    define.resource(item, ResourceType::host::<Nothing>(), |_, _| Ok(()))?;
                }
                _ => {}
            }
        }
    }
    Ok(extended)
}

/// Returns true for a resource of `wasi:io`, which files and sockets mention.
fn of_io(resource: &str) -> bool {
    ["error", "pollable", "input-stream", "output-stream"].contains(&resource)
}

type Call = dyn Fn(
        StoreContextMut<'_, Guest>,
        wasmtime::component::types::ComponentFunc,
        &[Val],
        &mut [Val],
    ) -> wasmtime::Result<()>
    + Send
    + Sync;

fn absent_call(interface: &str, function: &str) -> Box<Call> {
    if interface.starts_with("wasi:filesystem/preopens") && function == "get-directories" {
        return Box::new(|_, _, _, results| {
            results.iter_mut().for_each(|r| *r = Val::List(Vec::new()));
            Ok(())
        });
    }
    let words = format!("called `{interface}` `{function}`: a module has no files and no network");
    Box::new(move |_, _, _, _| Err(wasmtime::Error::msg(words.clone())))
}
