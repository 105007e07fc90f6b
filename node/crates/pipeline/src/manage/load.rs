//! Loading of modules for pipelines.

use crate::error::{ApplyError, PushError};
use crate::manage::registry::Pipelines;
use crate::manage::tasks::run_blocking;
use crate::module_store::Store;
use crate::priority::Priority;
use crate::spec::Spec;
use crate::spec::row::{Row, StateOf};
use crate::spec::stage::Grant;
use crate::stages::stage::{Stage, Stages};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use weir_broker::AdminError;
use weir_runtime::{Digest, InstanceConfig, Instruments, LogLevel, LogSink, Module, Quota};
use weir_types::TopicName;

/// Limit on waiting for a voter to compile the modules of a revision. If such a voter leads later, its
/// records wait. CPython takes twenty seconds to compile on a small machine.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Interval at which the arrival of modules is checked.
const READY_POLL: Duration = Duration::from_millis(20);

/// Limit on waiting for other modules to be compiled.
const COMPILE_WAIT: Duration = Duration::from_secs(60);

/// Writes lines of modules to the node's log.
struct Tracing {
    pipeline: String,
}

impl LogSink for Tracing {
    fn line(&self, level: LogLevel, line: &str) {
        let pipeline = &self.pipeline;
        match level {
            LogLevel::Debug => tracing::debug!(%pipeline, "module: {line}"),
            LogLevel::Info => tracing::info!(%pipeline, "module: {line}"),
            LogLevel::Warn => tracing::warn!(%pipeline, "module: {line}"),
            LogLevel::Error => tracing::error!(%pipeline, "module: {line}"),
        }
    }
}

impl Pipelines {
    /// Waits for a permit to compile, up to [`COMPILE_WAIT`].
    pub(crate) async fn place_to_compile(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.0.compiling).acquire_owned();
        tokio::time::timeout(COMPILE_WAIT, place).await.ok()?.ok()
    }

    /// Compiles missing modules of `spec` before the lock of all changes is taken. Errors show when the
    /// modules are loaded under the lock.
    pub(crate) async fn warm(&self, spec: &Spec) {
        let cold: Vec<Digest> = {
            let (store, loaded) = (self.store(), self.loaded());
            let digests = spec
                .stages
                .iter()
                .filter_map(|stage| store.resolve(&stage.module).ok());
            let digests = digests.map(|info| info.digest);
            digests.filter(|digest| !loaded.contains_key(digest)).collect()
        };
        if cold.is_empty() {
            return;
        }
        let Some(place) = self.place_to_compile().await else {
            return;
        };
        let this = self.clone();
        let warmed = run_blocking("weir-warm", move || {
            let _place = place;
            Priority::Behind.ask();
            cold.into_iter().for_each(|digest| drop(this.load(digest)));
        });
        let _ = warmed.await;
    }

    /// Compiles modules for another node's change, once their bytes have arrived here.
    pub(crate) async fn make_ready(&self, digests: Vec<Digest>) -> Result<(), String> {
        let begun = Instant::now();
        let is_here = |digest: &Digest| self.store().modules.contains_key(digest);
        while !digests.iter().all(is_here) {
            if begun.elapsed() > READY_WITHIN {
                return Err("the module has not arrived in time".to_owned());
            }
            tokio::time::sleep(READY_POLL).await;
        }
        let this = self.clone();
        let count = digests.len();
        let loaded = run_blocking("weir-ready", move || {
            digests
                .into_iter()
                .try_for_each(|digest| this.load(digest).map(drop))
        });
        let loaded = loaded.await.unwrap_or(Err(PushError::Admin(AdminError::Closed)));
        loaded.map_err(|e| e.to_string())?;
        tracing::info!(modules = count, "ready for a revision of another node");
        Ok(())
    }

    /// Asks all other voters to compile modules.
    pub(crate) async fn prepare_elsewhere(&self, digests: &[Digest]) -> Result<(), ApplyError> {
        let modules: Vec<_> = digests.iter().map(|digest| *digest.as_bytes()).collect();
        let ready = self.0.broker.prepare_elsewhere(&modules, READY_WITHIN);
        ready
            .await
            .map_err(|(node, why)| ApplyError::Elsewhere { node, why })
    }

    /// Loads the stages of a row and its canary. A canary that fails to load does not stop the rest.
    pub(crate) fn load_row(&self, row: &Row) -> Result<Stages, ApplyError> {
        let canary = row.canary.as_ref();
        let canary = canary.map(|canary| self.load_stages(&canary.spec, &canary.digests));
        Ok(Stages {
            main: self.load_stages(&row.spec, &row.digests)?,
            canary: canary.unwrap_or(Ok(Vec::new())).map_err(|e| e.to_string()),
        })
    }

    /// Loads and instantiates each stage's module. Blocks while modules compile.
    pub(crate) fn load_stages(&self, spec: &Spec, digests: &[Digest]) -> Result<Vec<Stage>, ApplyError> {
        let mut stages = Vec::with_capacity(spec.stages.len());
        let quota = Quota::new(spec.limits.state_bytes, Arc::clone(&self.0.broker.ledger().state));
        for (n, (stage, digest)) in spec.stages.iter().zip(digests).enumerate() {
            let module = self.load(*digest)?;
            let label: Arc<str> = match self.store().modules.get(digest) {
                Some(info) => format!("{}@{}", info.name, info.version).into(),
                None => stage.module.as_str().into(),
            };
            let config = InstanceConfig {
                partition: 0,
                sources: spec.source.iter().map(TopicName::to_string).collect(),
                settings: stage.config.clone(),
            };
            let sink: Arc<dyn LogSink> = Arc::new(Tracing {
                pipeline: spec.name.to_string(),
            });
            let instruments = Arc::new(Instruments::default());
            let instance = module
                .instantiate(&config, spec.limits, Arc::clone(&sink), Arc::clone(&instruments))
                .map_err(|error| ApplyError::Init {
                    stage: n + 1,
                    module: stage.module.clone(),
                    error,
                })?;
            let wanted = [
                (Grant::State, "state", module.wants_state()),
                (Grant::Timers, "timers", module.wants_timers()),
            ];
            for (grant, what, _) in wanted.iter().filter(|(.., wants)| *wants) {
                if !stage.grants.contains(grant) {
                    let (stage, module) = (n + 1, stage.module.clone());
                    return Err(ApplyError::NotGranted { stage, module, what });
                }
            }
            let limits = spec.limits;
            stages.push(Stage {
                module,
                label,
                config,
                limits,
                sink,
                instruments,
                instance: Some(instance),
                table: None,
                quota: quota.clone(),
                generation: 0,
            });
        }
        Ok(stages)
    }

    pub(crate) fn load(&self, digest: Digest) -> Result<Module, PushError> {
        if let Some(module) = self.loaded().get(&digest) {
            return Ok(module.clone());
        }
        let (dir, info) = {
            let store = self.store();
            (store.dir(), store.modules.get(&digest).cloned())
        };
        if let Some(info) = info {
            Store::fetch(&dir, &self.0.broker, &info)?;
        }
        let module = self.0.runtime.load(&Store::read(&dir, digest)?)?;
        self.loaded().insert(digest, module.clone());
        Ok(module)
    }
}

impl Pipelines {
    /// Returns the future owner of each stage's state.
    pub(crate) fn state_owners(
        &self,
        spec: &Spec,
        digests: &[Digest],
        before: &[Option<StateOf>],
    ) -> Vec<Option<StateOf>> {
        let store = self.store();
        let of = |(n, (stage, digest)): (usize, (&crate::spec::stage::Stage, &Digest))| {
            let info = store.modules.get(digest)?;
            let before = before.get(n).and_then(Option::as_ref);
            stage.remembers().then(|| StateOf {
                module: info.name.clone(),
                version: info.descriptor.state_version,
                generation: before.map_or(0, |before| before.generation),
            })
        };
        let stages = spec.stages.iter().zip(digests);
        stages.enumerate().map(of).collect()
    }
}
