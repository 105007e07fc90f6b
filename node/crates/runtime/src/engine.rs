//! The engine, its clock of epochs, and loaded modules.

use crate::bindings::exports::weir::module::{timed, transform, upgrade};
use crate::child::Wanted;
use crate::compile::{Cache, CompileBy, Compiler, Native};
use crate::configuration::{TICK, engine};
use crate::confine::can_confine;
use crate::error::LoadError;
use crate::host::Guest;
use crate::host::wasi::link_absent;
use crate::inspect::{Digest, STATE, TIMERS, inspect};
use crate::instance::Descriptor;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Thread;
use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};
use weir_types::pool::Pool;

/// Ticks without a guest after which the ticker rests: an idle node does not wake up two hundred times a second.
const REST_AFTER_TICKS: u32 = 40;
/// Settings of a runtime.
#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// Where native code is kept; `None`: nowhere.
    pub cache_dir: Option<PathBuf>,
    /// Where compiling happens.
    pub compile: CompileBy,
    /// Random bytes for the cache's key, should it need one.
    pub random: fn() -> std::io::Result<[u8; 32]>,
    /// What the memories of all instances take of.
    pub memory: Arc<Pool>,
}

impl RuntimeOptions {
    /// Compiles in this process and keeps nothing.
    pub fn plain() -> Self {
        Self {
            cache_dir: None,
            compile: CompileBy::Here,
            random: || Err(std::io::ErrorKind::Unsupported.into()),
            memory: Arc::new(Pool::new(u64::MAX)),
        }
    }
}

/// Loads modules. Clones are handles to the same one.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

pub(crate) struct Inner {
    engine: Engine,
    linker: Linker<Guest>,
    compiler: Compiler,
    pub(crate) ticker: Ticker,
    pub(crate) memory: Arc<Pool>,
}

impl Runtime {
    /// Starts a runtime.
    ///
    /// # Errors
    /// When the processor is not supported or the cache's directory cannot be used.
    pub fn new(options: RuntimeOptions) -> Result<Self, LoadError> {
        let contract = |e: wasmtime::Error| LoadError::Contract(format!("{e:#}"));
        let engine = engine().map_err(contract)?;
        let mut linker = Linker::new(&engine);
        Guest::link(&mut linker).map_err(contract)?;
        let cache = options
            .cache_dir
            .map(|dir| Cache::open(&dir, options.random))
            .transpose()?;
        let ticker = Ticker::start(engine.clone())?;
        let confined = match options.compile {
            CompileBy::Child(..) => can_confine(),
            CompileBy::Here => Ok(()),
        };
        if let Err(why) = &confined {
            tracing::warn!(%why, "modules are compiled without a sandbox: the compiler may do what this node may");
        }
        let compiler = Compiler {
            confined: confined.is_ok(),
            by: options.compile,
            cache,
            costly: std::sync::Mutex::default(),
        };
        Ok(Self(Arc::new(Inner {
            engine,
            linker,
            compiler,
            ticker,
            memory: options.memory,
        })))
    }

    /// Admits, compiles and links a component, and asks it what it is. Blocks, for seconds if it has to be compiled.
    ///
    /// # Errors
    /// When it is not taken.
    pub fn load(&self, bytes: &[u8]) -> Result<Module, LoadError> {
        self.load_while(bytes, &Wanted::default())
    }

    /// As [`Runtime::load`], as long as it is `wanted`.
    ///
    /// # Errors
    /// As [`Runtime::load`]; also when it is not wanted any more.
    pub fn load_while(&self, bytes: &[u8], wanted: &Wanted) -> Result<Module, LoadError> {
        let inspection = inspect(bytes)?;
        let (engine, digest) = (&self.0.engine, inspection.digest);
        let native = self.0.compiler.native(engine, digest, bytes, wanted)?;
        #[expect(
            unsafe_code,
            reason = "SAFETY: made by our own compiler just now, or authenticated by the cache"
        )]
        let component = match &native {
            Native::Bytes(native) => unsafe { Component::deserialize(engine, native) },
            Native::File(path, key) => {
                unsafe { Component::deserialize_file(engine, path) }.or_else(|e| {
                    // On a file system that is mounted with `noexec` nothing can be mapped as code.
                    let native = self.0.compiler.bytes(key).ok_or(e)?;
                    unsafe { Component::deserialize(engine, native) }
                })
            }
        };
        let contract = |e: wasmtime::Error| LoadError::Contract(format!("{e:#}"));
        let component = component.map_err(contract)?;
        let extended = link_absent(&self.0.linker, &component).map_err(contract)?;
        let pre = extended
            .as_ref()
            .unwrap_or(&self.0.linker)
            .instantiate_pre(&component)
            .map_err(contract)?;
        let transform = transform::GuestIndices::new(&pre).map_err(contract)?;
        let mut module = Module {
            digest: inspection.digest,
            imports: inspection.imports,
            descriptor: Arc::default(),
            excess: None,
            transform,
            timed: timed::GuestIndices::new(&pre).ok(),
            upgrade: upgrade::GuestIndices::new(&pre).ok(),
            pre,
            runtime: self.clone(),
        };
        // A module that cannot even say what it is is refused now, not when a pipeline wants it.
        let described = module.describe()?;
        module.descriptor = Arc::new(described.descriptor);
        module.excess = described.excess;
        Ok(module)
    }

    /// As [`crate::componentize`], in a process of its own where this runtime compiles in one.
    ///
    /// # Errors
    /// When the bytes are neither.
    pub fn componentize(&self, bytes: Vec<u8>, wanted: &Wanted) -> Result<Vec<u8>, LoadError> {
        self.0.compiler.componentize(bytes, wanted)
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }
}

/// A component that is compiled and linked. Clones share it.
#[derive(Clone)]
pub struct Module {
    pub(crate) digest: Digest,
    pub(crate) imports: Vec<String>,
    pub(crate) descriptor: Arc<Descriptor>,
    pub(crate) excess: Option<crate::instance::Excess>,
    pub(crate) pre: InstancePre<Guest>,
    pub(crate) transform: transform::GuestIndices,
    /// None when it has no timers.
    pub(crate) timed: Option<timed::GuestIndices>,
    /// None when it cannot take over anything.
    pub(crate) upgrade: Option<upgrade::GuestIndices>,
    pub(crate) runtime: Runtime,
}

impl Module {
    /// Its identity.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Interfaces that it imports functions from.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// What it said it is when it was loaded.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Whether it imports `state`: it is to be granted.
    pub fn wants_state(&self) -> bool {
        self.imports.iter().any(|i| i.starts_with(STATE))
    }

    /// Whether it imports `timers`: they are to be granted.
    pub fn wants_timers(&self) -> bool {
        self.imports.iter().any(|i| i.starts_with(TIMERS))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.runtime.0.engine
    }
}

/// Advances the engine's epoch while a guest runs, and rests when none does.
pub(crate) struct Ticker {
    shared: Arc<TickerShared>,
    thread: Thread,
}

#[derive(Default)]
struct TickerShared {
    running: AtomicUsize,
    resting: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    fn start(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(TickerShared::default());
        let ticking = Arc::clone(&shared);
        let handle = std::thread::Builder::new()
            .name("weir-epoch".to_owned())
            .spawn(move || {
                let mut idle = 0;
                while !ticking.stop.load(Ordering::Acquire) {
                    idle = if ticking.running.load(Ordering::SeqCst) > 0 {
                        0
                    } else {
                        idle + 1
                    };
                    if idle < REST_AFTER_TICKS {
                        std::thread::park_timeout(TICK);
                        engine.increment_epoch();
                        continue;
                    }
                    ticking.resting.store(true, Ordering::SeqCst);
                    // Looked at again after the flag is up: a call that began in between has seen it or is seen here.
                    if ticking.running.load(Ordering::SeqCst) == 0 {
                        std::thread::park();
                    }
                    ticking.resting.store(false, Ordering::SeqCst);
                    idle = 0;
                }
            })?;
        Ok(Self {
            shared,
            thread: handle.thread().clone(),
        })
    }

    /// Keeps the epoch going until the guard is dropped.
    pub(crate) fn running(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.resting.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

pub(crate) struct Running<'a>(&'a TickerShared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}
