//! The engine, and the modules that it loads.

use crate::bindings::exports::weir::module::{timed, transform, upgrade};
use crate::compile::child::Wanted;
use crate::compile::configuration::engine;
use crate::compile::confine::can_confine;
use crate::compile::native::{Cache, CompileBy, Compiler, Native};
use crate::error::LoadError;
use crate::host::Guest;
use crate::host::wasi::link_absent;
use crate::inspect::inspect;
use crate::module::Module;
use crate::ticker::{Shared, Ticker};
use std::path::PathBuf;
use std::sync::Arc;
use wasmtime::component::{Component, Linker};
use weir_types::pool::Pool;

/// Settings of a runtime.
#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// Directory of cached native code; `None` for no cache.
    pub cache_dir: Option<PathBuf>,
    /// Place of compilation.
    pub compile: CompileBy,
    /// Random bytes for the cache's key, if needed.
    pub random: fn() -> std::io::Result<[u8; 32]>,
    /// Pool of the memories of all instances.
    pub memory: Arc<Pool>,
}

impl RuntimeOptions {
    /// Returns options that compile in this process, without a cache.
    pub fn plain() -> Self {
        Self {
            cache_dir: None,
            compile: CompileBy::Here,
            random: || Err(std::io::ErrorKind::Unsupported.into()),
            memory: Arc::new(Pool::new(u64::MAX)),
        }
    }
}

/// Loads modules. Clones are handles to the same runtime.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    linker: Linker<Guest>,
    compiler: Compiler,
}

impl Runtime {
    /// Starts a runtime.
    ///
    /// # Errors
    /// Fails when the processor is not supported, or the cache's directory cannot be used.
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
            costly: weir_types::sync::Mutex::default(),
        };
        Ok(Self(Arc::new(Inner {
            shared: Arc::new(Shared {
                engine,
                ticker,
                memory: options.memory,
            }),
            linker,
            compiler,
        })))
    }

    /// Admits, compiles and links a component, and reads its description. Blocks, for seconds if the
    /// component must be compiled.
    ///
    /// # Errors
    /// Fails when the component is refused.
    pub fn load(&self, bytes: &[u8]) -> Result<Module, LoadError> {
        self.load_while(bytes, &Wanted::default())
    }

    /// Loads a component as [`Runtime::load`] does, until `wanted` ends.
    ///
    /// # Errors
    /// Fails when the component is refused, or when `wanted` has ended.
    pub fn load_while(&self, bytes: &[u8], wanted: &Wanted) -> Result<Module, LoadError> {
        let inspection = inspect(bytes)?;
        let (engine, digest) = (&self.0.shared.engine, inspection.digest);
        let native = self.0.compiler.native(engine, digest, bytes, wanted)?;
        #[expect(
            unsafe_code,
            reason = "SAFETY: made by our own compiler just now, or authenticated by the cache"
        )]
        let component = match &native {
            Native::Bytes(native) => unsafe { Component::deserialize(engine, native) },
            Native::File(path, key) => {
                unsafe { Component::deserialize_file(engine, path) }.or_else(|e| {
                    // A file system mounted with `noexec` allows no mapping of code.
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
            shared: Arc::clone(&self.0.shared),
        };
        // Refuse a module without a working description now, not in a pipeline.
        let described = module.describe()?;
        module.descriptor = Arc::new(described.descriptor);
        module.excess = described.excess;
        Ok(module)
    }

    /// Makes a component as [`crate::compile::componentize::componentize`] does, in a process of its own
    /// where this runtime compiles in a child.
    ///
    /// # Errors
    /// Fails when the bytes are neither a core module nor a component.
    pub fn componentize(&self, bytes: Vec<u8>, wanted: &Wanted) -> Result<Vec<u8>, LoadError> {
        self.0.compiler.componentize(bytes, wanted)
    }
}
