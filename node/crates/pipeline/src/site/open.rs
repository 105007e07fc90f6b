//! Opening and closing of all pipelines of a node.

use crate::error::PushError;
use crate::manage::registry::{Inner, Pipelines};
use crate::module_store::Store;
use crate::site::follow;
use crate::spec::row;
use crate::stages::stage::Stages;
use crate::worker::counts::State;
use crate::worker::desired::{self, SharedDesiredState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_broker::{Broker, StateKind};
use weir_runtime::Runtime;
use weir_types::sync::{Mutex, RwLock};

/// Longer than a step of some milliseconds, and than the second after which a looping module is stopped.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

impl Pipelines {
    /// Opens the modules in `dir` and starts the applied pipelines. A pipeline whose module cannot be used
    /// starts halted. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be used, a row cannot be read, or a thread cannot be started.
    pub fn open(broker: Broker, runtime: Runtime, dir: PathBuf) -> Result<Self, PushError> {
        let store = Store::open(dir, &broker)?;
        let desired = SharedDesiredState::default();
        let woken = desired::watch(&broker, &desired);
        // A witness never leads, so it runs no pipelines.
        let is_idle = broker.group().is_witness();
        let rows = broker.rows(StateKind::Pipeline);
        let rows = rows
            .iter()
            .filter(|_| !is_idle)
            .map(|(key, value)| {
                let name = String::from_utf8_lossy(key);
                row::of_pipeline(value)
                    .inspect_err(|_| tracing::error!(pipeline = %name, "row of the pipeline cannot be read"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let this = Self(Arc::new(Inner {
            broker,
            runtime,
            store: Mutex::new(store),
            active: RwLock::default(),
            by_source: RwLock::default(),
            loaded: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            compiling: Arc::new(tokio::sync::Semaphore::new(1)),
            preparing: tokio::sync::Mutex::default(),
            shadowing: Arc::default(),
            desired,
            replacing: RwLock::default(),
        }));
        let weak = Arc::downgrade(&this.0);
        for row in rows {
            let name = row.spec.name.to_string();
            let paused = row.paused;
            let (stages, state) = match this.load_row(&row) {
                Ok(stages) if paused => (stages, State::Paused),
                Ok(stages) => (stages, State::Running),
                Err(e) => {
                    tracing::error!(pipeline = %name, error = %e, "pipeline starts halted");
                    (Stages::none(), State::Halted(e.to_string()))
                }
            };
            if let Err(e) = this.install(row, stages, state) {
                tracing::error!(pipeline = %name, error = %e, "pipeline cannot start");
            }
        }
        if is_idle {
            return Ok(this);
        }
        let started = std::thread::Builder::new()
            .name("weir-follow".to_owned())
            // The thread may compile modules.
            .stack_size(8 << 20)
            .spawn(move || follow::follow(&weak, &woken));
        started?;
        Ok(this)
    }

    /// Ends log pipelines, which need the async runtime. In-line pipelines are idle once no producer is left.
    /// Blocks for up to two seconds.
    pub fn close(&self) {
        let active = self.active();
        active.values().for_each(|a| a.handle.end());
        let until = Instant::now() + CLOSE_WITHIN;
        for ended in active.values().flat_map(|a| a.handle.ended()) {
            let _ = ended.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
    }
}
