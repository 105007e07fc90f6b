//! Modules: taken in, kept, and made ready for a pipeline.

use crate::error::{ApplyError, PushError};
use crate::module_store::{ModuleInfo, ModuleRef, Store};
use crate::pipelines::{Pipelines, apart};
use crate::priority::Priority;
use crate::spec::Spec;
use crate::spec::row::Row;
use crate::spec::stage::Grant;
use crate::stages::stage::{Stage, Stages};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use weir_broker::{AdminError, StateKind};
use weir_runtime::{
    Digest, InstanceConfig, Instruments, LoadError, LogLevel, LogSink, Module, Quota, Wanted,
};
use weir_types::TopicName;

/// A voter that is not ready for a revision by then is not waited for: it has records wait once it leads. CPython takes twenty
/// seconds to compile on a small machine.
const READY_WITHIN: Duration = Duration::from_secs(60);

const READY_POLL: Duration = Duration::from_millis(20);

/// How long a push waits for others to be compiled.
const COMPILE_WAIT: Duration = Duration::from_secs(60);

/// Lines of modules, in the node's own log.
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

/// Ends the compiler's work when whoever waits for it goes.
struct Ending(Wanted);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Pipelines {
    /// Takes a component, or a core module built with the SDK: admits, compiles and keeps it.
    ///
    /// # Errors
    /// When it is not taken.
    pub async fn push(&self, name: &str, version: &str, bytes: Vec<u8>) -> Result<ModuleInfo, PushError> {
        // Held by the thread that compiles, whether somebody still waits for it or not.
        let place = self.place_to_compile().await.ok_or(PushError::Busy)?;
        let ending = Ending(Wanted::default());
        let (runtime, wanted) = (self.0.runtime.clone(), ending.0.clone());
        let component = apart("weir-push", move || {
            // Nobody waits for a record here.
            Priority::Behind.ask();
            let component = runtime.componentize(bytes, &wanted);
            component.map(|component| (component, place))
        })
        .await
        .unwrap_or(Err(LoadError::Compile(
            "the thread that compiles ended".to_owned(),
        )));
        let (component, place) = component?;
        let digest = Digest::of(&component);
        Store::check(&self.store().modules, name, version, digest, component.len())?;
        let (runtime, dir, wanted) = (self.0.runtime.clone(), self.store().dir(), ending.0.clone());
        let (module, descriptor) = apart("weir-push", move || -> Result<_, PushError> {
            Priority::Behind.ask();
            let _place = place;
            let module = runtime.load_while(&component, &wanted)?;
            module.check_texts()?;
            let descriptor = module.descriptor().clone();
            Store::write(&dir, digest, &component)?;
            Ok((module, (descriptor, component)))
        })
        .await
        .unwrap_or(Err(PushError::Admin(AdminError::Closed)))?;
        let _one = self.0.changing.lock().await;
        // Others may have come while it was compiled, also some whose bytes are not here yet.
        let there = Store::read_rows(&self.0.broker.rows(StateKind::Module));
        Store::check(&there, name, version, digest, descriptor.1.len())?;
        let (pushed_ms, known) = (self.0.broker.now_ms(), there.get(&digest).cloned());
        let mut info = ModuleInfo {
            digest,
            name: name.to_owned(),
            version: version.to_owned(),
            bytes: descriptor.1.len() as u64,
            pushed_ms,
            descriptor: descriptor.0.clone(),
            imports: module.imports().to_vec(),
            also: Vec::new(),
        };
        let shown = info.clone();
        if let Some(mut known) = known {
            // Other names for it stay.
            known.label(name, version, pushed_ms);
            (info.name, info.version) = (known.name, known.version);
            (info.pushed_ms, info.also) = (known.pushed_ms, known.also);
        }
        // The bytes first: a node that sees the row has them all.
        for (key, part) in Store::parts(digest, &descriptor.1) {
            let put = self.0.broker.put_row(StateKind::ModulePart, &key, Some(part));
            put.await?;
        }
        let (key, value) = Store::row(&info);
        self.0
            .broker
            .put_row(StateKind::Module, &key, Some(value))
            .await?;
        self.store().modules.insert(digest, info);
        self.loaded().insert(digest, module);
        Ok(shown)
    }

    /// A place to compile in, if one is free soon.
    async fn place_to_compile(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.0.compiling).acquire_owned();
        tokio::time::timeout(COMPILE_WAIT, place).await.ok()?.ok()
    }

    /// Compiles what `spec` needs, if it is not yet, before it is looked at under the lock of all changes. What is wrong with it
    /// shows then.
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
        let warmed = apart("weir-warm", move || {
            let _place = place;
            Priority::Behind.ask();
            cold.into_iter().for_each(|digest| drop(this.load(digest)));
        });
        let _ = warmed.await;
    }

    /// All modules, under each of their labels, by name and time.
    pub fn modules(&self) -> Vec<ModuleInfo> {
        let mut all: Vec<ModuleInfo> = self.store().modules.values().flat_map(ModuleInfo::each).collect();
        all.sort_by(|a, b| (&a.name, a.pushed_ms).cmp(&(&b.name, b.pushed_ms)));
        all
    }

    /// Removes a label; by digest, or with its last label, a module that no pipeline uses.
    ///
    /// # Errors
    /// When there is none, or one uses it.
    pub async fn remove_module(&self, reference: &ModuleRef) -> Result<ModuleInfo, PushError> {
        let _one = self.0.changing.lock().await;
        let (info, label) = {
            let store = self.store();
            (store.resolve(reference)?.clone(), store.label_of(reference))
        };
        let left = label
            .as_ref()
            .and_then(|(name, version)| info.without(name, version).map(|left| (left, name, version)));
        let is_said = |module: &ModuleRef| {
            // With the bytes, all that says them; else, what says this label.
            left.as_ref().is_none_or(|(_, name, version)| {
                module == *name || module.split_once('@') == Some((name.as_str(), version.as_str()))
            })
        };
        let uses = |row: &Row| {
            let specs = std::iter::once(&row.spec).chain(row.canary.as_ref().map(|canary| &canary.spec));
            let mut stages = specs.flat_map(|spec| &spec.stages);
            row.modules().any(|digest| *digest == info.digest) && stages.any(|stage| is_said(&stage.module))
        };
        let used = self
            .active()
            .values()
            .find(|a| uses(&a.row))
            .map(|a| a.lane.name.clone());
        if let Some(pipeline) = used {
            return Err(PushError::InUse(pipeline));
        }
        if let Some((left, name, version)) = left {
            let gone = info.each().find(|i| (&i.name, &i.version) == (name, version));
            let (key, value) = Store::row(&left);
            self.0
                .broker
                .put_row(StateKind::Module, &key, Some(value))
                .await?;
            self.store().modules.insert(left.digest, left);
            return Ok(gone.unwrap_or(info));
        }
        self.0
            .broker
            .put_row(StateKind::Module, info.digest.as_bytes(), None)
            .await?;
        self.0.broker.remove_rows(Store::parts_of(info.digest)).await?;
        self.store().modules.remove(&info.digest);
        self.loaded().remove(&info.digest);
        self.store().remove_file(info.digest);
        Ok(info)
    }

    /// Compiles modules that another node is about to put in place, once they have come here.
    pub(crate) async fn make_ready(&self, digests: Vec<Digest>) -> Result<(), String> {
        let begun = Instant::now();
        let is_here = |digest: &Digest| self.store().modules.contains_key(digest);
        while !digests.iter().all(is_here) {
            if begun.elapsed() > READY_WITHIN {
                return Err("the module has not come here in time".to_owned());
            }
            tokio::time::sleep(READY_POLL).await;
        }
        let this = self.clone();
        let count = digests.len();
        let loaded = apart("weir-ready", move || {
            digests
                .into_iter()
                .try_for_each(|digest| this.load(digest).map(drop))
        });
        let loaded = loaded.await.unwrap_or(Err(PushError::Admin(AdminError::Closed)));
        loaded.map_err(|e| e.to_string())?;
        tracing::info!(
            modules = count,
            "ready for a revision that is about to be put in place"
        );
        Ok(())
    }

    /// Has the other voters make modules ready.
    pub(crate) async fn prepare_elsewhere(&self, digests: &[Digest]) -> Result<(), ApplyError> {
        let modules: Vec<_> = digests.iter().map(|digest| *digest.as_bytes()).collect();
        let ready = self.0.broker.prepare_elsewhere(&modules, READY_WITHIN);
        ready
            .await
            .map_err(|(node, why)| ApplyError::Elsewhere { node, why })
    }

    /// As [`Pipelines::stages`], of all that `row` says. What is tried does not hold up the rest.
    pub(crate) fn all_stages(&self, row: &Row) -> Result<Stages, ApplyError> {
        let canary = row.canary.as_ref();
        let canary = canary.map(|canary| self.stages(&canary.spec, &canary.digests));
        Ok(Stages {
            main: self.stages(&row.spec, &row.digests)?,
            canary: canary.unwrap_or(Ok(Vec::new())).map_err(|e| e.to_string()),
        })
    }

    /// Loads and tries out each stage's module. Blocks while one is compiled.
    pub(crate) fn stages(&self, spec: &Spec, digests: &[Digest]) -> Result<Vec<Stage>, ApplyError> {
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
