//! The process that compiles: what it may use, and how the node works with it.
//!
//! Compiling is outside wasmtime's promise against denial of service: time and memory can explode and the compiler can
//! panic, or be led astray by what it compiles. So a child does it, with limits on its memory and time, and reaches nothing but
//! its pipes; what it makes is trusted.

use crate::componentize::componentize;
use crate::configuration::engine;
use crate::confine::confine;
use crate::error::LoadError;
use crate::words::tidy;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use wasmtime::Engine;

/// Bytes of address space for the child: Python takes 400 MiB to compile, and reserves more than it uses.
const CHILD_MEMORY_BYTES: u64 = 2 << 30;
/// What the child adds to its nice value: a twentieth of the weight of a thread that is in the path of records.
const CHILD_NICE: i32 = 15;
/// Seconds of processor time for the child: Python takes 14.
const CHILD_CPU_S: u64 = 120;
/// And by the clock: it may wait for a processor that others use.
pub(crate) const CHILD_WITHIN: Duration = Duration::from_secs(240);
/// What it says of why it failed.
const MESSAGE_BYTES_MAX: u64 = 4 << 10;
/// Largest native code taken: SpiderMonkey's is 34 MB.
const NATIVE_BYTES_MAX: u64 = 256 << 20;
/// Cranelift recurses deeply (ClickHouse overflowed the usual 2 MiB).
const COMPILE_STACK_BYTES: usize = 32 << 20;

/// What a child is to make of its input.
pub(crate) const MAKE_COMPONENT: &str = "--make";
/// That it is confined, on a machine that can do that.
pub(crate) const CONFINED: &str = "--confined";

/// As [`compile_in_child`], for [`componentize`]: reads what was uploaded and writes a component.
///
/// # Errors
/// When none can be made of it within the limits.
pub fn componentize_in_child(confined: bool) -> Result<(), LoadError> {
    let bytes = read_limited(confined)?;
    let component = componentize(&bytes)?;
    let mut out = io::stdout().lock();
    out.write_all(&component)?;
    Ok(out.flush()?)
}

/// Reads a component from standard input and writes native code to standard output, under limits: the body of the
/// child process of [`CompileBy::Child`](crate::CompileBy::Child).
///
/// # Errors
/// When the component does not compile within them.
pub fn compile_in_child(confined: bool) -> Result<(), LoadError> {
    // Before it is confined: it looks at the processor.
    let engine = engine().map_err(|e| LoadError::Compile(e.to_string()))?;
    let component = read_limited(confined)?;
    let native = precompile(engine, component)?;
    let mut out = io::stdout().lock();
    out.write_all(&native)?;
    Ok(out.flush()?)
}

/// Takes on a child's limits, the filter among them where it is to be `confined`, and then what it is to work on.
fn read_limited(confined: bool) -> Result<Vec<u8>, LoadError> {
    let limit = |n| rustix::process::Rlimit {
        current: Some(n),
        maximum: Some(n),
    };
    rustix::process::setrlimit(rustix::process::Resource::As, limit(CHILD_MEMORY_BYTES))
        .map_err(io::Error::from)?;
    rustix::process::setrlimit(rustix::process::Resource::Cpu, limit(CHILD_CPU_S))
        .map_err(io::Error::from)?;
    rustix::process::setrlimit(rustix::process::Resource::Core, limit(0)).map_err(io::Error::from)?;
    // Whoever waits for a module waits for a second or two; whoever waits for a record should not notice. Best effort.
    let _ = rustix::process::nice(CHILD_NICE);
    if confined {
        confine()?;
    }
    let mut component = Vec::new();
    let most = weir_types::limits::MODULE_BYTES_MAX as u64;
    io::stdin().lock().take(most).read_to_end(&mut component)?;
    Ok(component)
}

pub(crate) fn precompile(engine: Engine, component: Vec<u8>) -> Result<Vec<u8>, LoadError> {
    let run = move || {
        engine
            .precompile_component(&component)
            .map_err(|e| LoadError::Compile(format!("{e:#}")))
    };
    let thread = std::thread::Builder::new()
        .name("weir-compile".to_owned())
        .stack_size(COMPILE_STACK_BYTES)
        .spawn(run)?;
    thread
        .join()
        .unwrap_or_else(|_| Err(LoadError::Compile("the compiler panicked".to_owned())))
}

pub(crate) fn run_child(
    program: &Path,
    args: &[String],
    component: &[u8],
    within: Duration,
) -> Result<Vec<u8>, LoadError> {
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (over, is_over) = sync_channel::<()>(1);
    let ends = Ends(Mutex::new(Some(child)));
    // Side by side: what is written to one pipe must not wait for what is read from another. Whatever the child does, its time
    // ends, and with it the pipes.
    let (written, read, message, in_time) = std::thread::scope(|scope| {
        let written = scope.spawn(|| stdin.map_or(Ok(()), |mut pipe| pipe.write_all(component)));
        let message = scope.spawn(|| stderr.map_or_else(String::new, message_of));
        let ends = &ends;
        let watch = scope.spawn(move || {
            let in_time = !matches!(is_over.recv_timeout(within), Err(RecvTimeoutError::Timeout));
            ends.kill_unless(in_time);
            in_time
        });
        let mut native = Vec::new();
        let read = stdout.map_or(Ok(0), |pipe| {
            pipe.take(NATIVE_BYTES_MAX + 1).read_to_end(&mut native)
        });
        let is_too_much = native.len() as u64 > NATIVE_BYTES_MAX;
        ends.kill_unless(!is_too_much);
        let message = message.join().unwrap_or_default();
        let written = written.join().unwrap_or(Ok(()));
        drop(over);
        let in_time = watch.join().unwrap_or(false);
        (
            written,
            read.map(|_| native).map(|n| (n, is_too_much)),
            message,
            in_time,
        )
    });
    let Some(status) = ends.wait()? else {
        return Err(LoadError::Compile("the compiler is gone".to_owned()));
    };
    if !in_time {
        let why = format!("the compiler took longer than {} s", within.as_secs());
        return Err(LoadError::Compile(why));
    }
    // Before the child's end: it may have ended because nobody read on.
    if matches!(read, Ok((_, true))) {
        let why = format!("more than {NATIVE_BYTES_MAX} bytes come of it");
        return Err(LoadError::Compile(why));
    }
    if !status.success() {
        let why = message.trim();
        // An error of its own says all there is; otherwise its end does.
        return Err(LoadError::Compile(match why.strip_prefix("error: ") {
            Some(why) if status.code() == Some(1) => why
                .strip_prefix("component does not compile: ")
                .unwrap_or(why)
                .to_owned(),
            _ => format!("the compiler ended with {status}: {why}"),
        }));
    }
    written?;
    read.map(|(native, _)| native).map_err(LoadError::from)
}

/// The first of what the child says; the rest is read, so that it is not stopped by saying too much.
fn message_of(mut pipe: impl Read) -> String {
    let mut said = Vec::new();
    let _ = pipe.by_ref().take(MESSAGE_BYTES_MAX).read_to_end(&mut said);
    let _ = io::copy(&mut pipe, &mut io::sink());
    tidy(String::from_utf8_lossy(&said).into_owned())
}

/// A child that may be ended from another thread than the one that waits for it.
struct Ends(Mutex<Option<Child>>);

impl Ends {
    fn kill_unless(&self, is_well: bool) {
        if is_well {
            return;
        }
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = child.as_mut() {
            let _ = child.kill();
        }
    }

    fn wait(&self) -> io::Result<Option<ExitStatus>> {
        let child = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        child.map(|mut child| child.wait()).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn shell(script: &str, input: &[u8], within: Duration) -> Result<Vec<u8>, LoadError> {
        let args = ["-c".to_owned(), script.to_owned()];
        run_child(Path::new("/bin/sh"), &args, input, within)
    }

    const PATIENT: Duration = Duration::from_secs(60);

    #[test]
    fn a_child_may_say_as_much_as_it_likes_whenever_it_likes() {
        // More than a pipe holds, before it reads what it is given and before it answers.
        let chatty = "head -c 300000 /dev/zero | tr '\\0' x >&2; cat; head -c 300000 /dev/zero >&2";
        let input = vec![7; 300_000];
        assert_eq!(shell(chatty, &input, PATIENT).unwrap(), input);
        let failed = shell(&format!("{chatty}; exit 1"), &input, PATIENT)
            .unwrap_err()
            .to_string();
        assert!(failed.len() < 5_000, "{}", failed.len());
        // One that reads nothing.
        let deaf = shell("exit 3", &input, PATIENT).unwrap_err().to_string();
        assert!(deaf.contains("exit status: 3"), "{deaf}");
    }

    #[test]
    fn a_child_that_does_not_end_is_ended() {
        let begun = Instant::now();
        for script in [
            "exec sleep 1000",
            "exec cat /dev/zero",
            "cat >/dev/null; exec sleep 1000",
        ] {
            let stuck = shell(script, b"x", Duration::from_millis(300))
                .unwrap_err()
                .to_string();
            assert!(
                stuck.contains("longer than") || stuck.contains("come of it"),
                "{stuck}"
            );
        }
        assert!(begun.elapsed() < PATIENT);
    }
}
