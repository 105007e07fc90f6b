//! All pipelines and modules of a node.

use crate::canary::{Canary, CanaryError, Share};
use crate::chain::Stage;
use crate::error::{ApplyError, PushError};
use crate::follow::{self, Wanted};
use crate::input::{self, Place};
use crate::lane::{Lane, State};
use crate::memory;
use crate::priority::Priority;
use crate::spec::{At, Grant, Origin, Sources, Spec};
use crate::store::{ModuleInfo, ModuleRef, Store};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use weir_broker::{AdminError, Broker, Hook, HookDone, HookError, HookJob, Processed, StateKey, StateKind};
use weir_runtime::{
    Digest, InstanceConfig, Instruments, LoadError, LogLevel, LogSink, Module, Reading, Runtime,
};
use weir_types::{Term, TopicName};

/// A row that changes together with a pipeline's.
pub(crate) type Written = (StateKey, Option<Bytes>);

/// A pipeline's row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) spec: Spec,
    pub(crate) revision: u64,
    pub(crate) paused: bool,
    /// The module of each stage when it was applied: a name may mean another one by now.
    pub(crate) digests: Vec<Digest>,
    /// Whose state each stage keeps.
    #[serde(default)]
    pub(crate) states: Vec<Option<StateOf>>,
    /// When it was put in place, in milliseconds since 1970.
    #[serde(default)]
    pub(crate) applied_ms: i64,
    /// It came back: it does not go back further by itself.
    #[serde(default)]
    pub(crate) is_last_resort: bool,
    /// What is tried on some partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) canary: Option<Canary>,
}

/// Tells a row that is in place from others, within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

impl Stamp {
    /// No row's: what has it should not work.
    pub(crate) const NONE: Self = Self(0);
}

impl Row {
    /// Changes with all that decides what runs: its revision, whether it is paused, and under which rows its modules remember.
    pub(crate) fn stamp(&self) -> Stamp {
        let mut hash = DefaultHasher::new();
        (self.revision, self.paused).hash(&mut hash);
        self.digests
            .iter()
            .for_each(|digest| digest.as_bytes().hash(&mut hash));
        let states = self.states.iter().map(Option::as_ref);
        states.for_each(|of| {
            of.map(|of| (&of.module, of.version, of.generation))
                .hash(&mut hash)
        });
        let tried = self.canary.iter().flat_map(|canary| &canary.digests);
        tried.for_each(|digest| digest.as_bytes().hash(&mut hash));
        Stamp(hash.finish() | 1)
    }

    /// All modules that it needs.
    pub(crate) fn modules(&self) -> impl Iterator<Item = &Digest> {
        let tried = self.canary.iter().flat_map(|canary| &canary.digests);
        self.digests.iter().chain(tried)
    }
}

/// Whose state a stage keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateOf {
    pub(crate) module: String,
    pub(crate) version: u32,
    /// Under which rows it is: another with each version that took over what was there.
    #[serde(default)]
    pub(crate) generation: u8,
}

impl fmt::Display for StateOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "module `{}`, version {} of its state",
            self.module, self.version
        )
    }
}

/// A pipeline as it is now.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub struct PipelineInfo {
    pub name: String,
    pub source: Sources,
    pub at: At,
    pub revision: u64,
    #[serde(flatten)]
    pub state: State,
    pub spec: Spec,
    pub digests: Vec<Digest>,
    pub records_in: u64,
    pub kept: u64,
    pub dropped: u64,
    pub emitted: u64,
    pub routed: BTreeMap<String, u64>,
    pub dead_letters: u64,
    pub skipped: u64,
    pub failures: u64,
    pub wasm_ns: u64,
    /// Rows that its modules keep, of the partitions that are at work.
    pub state_rows: u64,
    /// Timers that they have set there.
    pub timers: u64,
    /// Memory that both take.
    pub state_bytes: u64,
    /// Timers that were due.
    pub timers_fired: u64,
    /// Behind the log: how many offsets are stored that it has not come to.
    pub lag: u64,
    /// Offsets whose records were gone before it came to them.
    pub missed: u64,
    /// How far it has come, where it lags most: of at most 64 partitions.
    pub places: Vec<Place>,
    /// Instruments of the stages' modules, `stage.name`.
    pub metrics: BTreeMap<String, f64>,
    /// What is tried on some partitions, by its own numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Box<PipelineInfo>>,
    /// Of what is tried: on which.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub partitions: BTreeSet<u32>,
}

/// Partitions that a pipeline says its places on: more than that are no reading for anybody.
pub(crate) const PLACES_TOLD: usize = 64;

impl PipelineInfo {
    /// One that has done nothing yet.
    #[cfg(test)]
    pub(crate) fn idle(spec: &Spec) -> Self {
        let value = serde_json::json!({
            "name": spec.name, "source": spec.source, "at": spec.at, "revision": 1, "state": "running", "spec": spec,
            "digests": [], "records_in": 0, "kept": 0, "dropped": 0, "emitted": 0, "routed": {}, "dead_letters": 0,
            "skipped": 0, "failures": 0, "wasm_ns": 0, "state_rows": 0, "timers": 0, "state_bytes": 0,
            "timers_fired": 0, "lag": 0, "missed": 0, "places": [], "metrics": {},
        });
        serde_json::from_value(value).expect("all fields are there")
    }

    /// Whether records that are produced to `topic` pass it before they are stored.
    pub fn is_inline_of(&self, topic: &str) -> bool {
        self.at == At::Ingest && self.source.contains(topic)
    }

    /// Whether records come from or go to `topic`.
    pub fn uses(&self, topic: &str) -> bool {
        let dead = self.spec.dead_letters().is_ok_and(|name| name.as_str() == topic);
        let tried = self.canary.as_ref().is_some_and(|tried| tried.uses(topic));
        let is_output = self.spec.outputs.values().any(|name| name.as_str() == topic);
        self.source.contains(topic) || dead || is_output || tried
    }
}

pub(crate) struct Active {
    pub(crate) row: Row,
    pub(crate) lane: Arc<Lane>,
    instruments: Vec<Arc<Instruments>>,
    /// Of what is tried.
    tried: Vec<Arc<Instruments>>,
    /// It is out of bounds, and could not go back.
    pub(crate) gave_up_guarding: bool,
}

/// A pipeline's modules, ready.
pub(crate) struct Stages {
    pub(crate) main: Vec<Stage>,
    /// Of what is tried on some partitions; or why that cannot work.
    pub(crate) canary: Result<Vec<Stage>, String>,
}

impl Stages {
    /// Of what does not work.
    pub(crate) fn none() -> Self {
        Self::of(Vec::new())
    }

    pub(crate) fn of(main: Vec<Stage>) -> Self {
        let canary = Ok(Vec::new());
        Self { main, canary }
    }
}

/// All pipelines of a node. Clones are handles to the same ones.
#[derive(Clone)]
pub struct Pipelines(pub(crate) Arc<Inner>);

/// Modules that are being made ready.
type Readying = (Vec<Digest>, tokio::task::JoinHandle<Result<(), String>>);

pub(crate) struct Inner {
    pub(crate) broker: Broker,
    runtime: Runtime,
    store: Mutex<Store>,
    active: RwLock<BTreeMap<String, Active>>,
    by_source: RwLock<BTreeMap<TopicName, Arc<Lane>>>,
    loaded: Mutex<BTreeMap<Digest, Module>>,
    /// One change at a time: what is checked still holds when it is written.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// What another node has asked this one to make ready, and is under way.
    readying: tokio::sync::Mutex<Option<Readying>>,
    /// One pipeline is tried out at a time.
    pub(crate) shadowing: Arc<tokio::sync::Mutex<()>>,
    /// What the applied rows say should run.
    wanted: Wanted,
    /// What this node is changing itself: until it is done, what ran before goes on.
    turning: RwLock<Option<Turning>>,
}

/// A pipeline that is being changed here: from what to what.
struct Turning {
    pipeline: String,
    from: Stamp,
    to: Stamp,
}

/// Held while this node puts something in the place of what was before.
pub(crate) struct Turnover<'a>(&'a RwLock<Option<Turning>>);

impl Drop for Turnover<'_> {
    fn drop(&mut self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

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

impl Pipelines {
    /// Opens the modules in `dir` and starts the pipelines that were applied. One whose module cannot be used comes
    /// up halted. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn open(broker: Broker, runtime: Runtime, dir: PathBuf) -> Result<Self, PushError> {
        let store = Store::open(dir, &broker)?;
        let wanted = Wanted::default();
        let woken = follow::watch(&broker, &wanted);
        // It never leads, so it runs none, and need not compile any.
        let is_idle = broker.group().is_witness();
        let rows = broker.rows(StateKind::Pipeline);
        let rows = rows
            .iter()
            .filter(|_| !is_idle)
            .filter_map(|(_, value)| serde_json::from_slice::<Row>(value).ok())
            .collect::<Vec<_>>();
        let this = Self(Arc::new(Inner {
            broker,
            runtime,
            store: Mutex::new(store),
            active: RwLock::default(),
            by_source: RwLock::default(),
            loaded: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            readying: tokio::sync::Mutex::default(),
            shadowing: Arc::default(),
            wanted,
            turning: RwLock::default(),
        }));
        let weak = Arc::downgrade(&this.0);
        for row in rows {
            let name = row.spec.name.to_string();
            let paused = row.paused;
            let (stages, state) = match this.all_stages(&row) {
                Ok(stages) if paused => (stages, State::Paused),
                Ok(stages) => (stages, State::Running),
                Err(e) => {
                    tracing::error!(pipeline = %name, error = %e, "pipeline comes up halted");
                    (Stages::none(), State::Halted(e.to_string()))
                }
            };
            if let Err(e) = this.install(row, stages, state) {
                tracing::error!(pipeline = %name, error = %e, "pipeline does not start");
            }
        }
        if is_idle {
            return Ok(this);
        }
        let started = std::thread::Builder::new()
            .name("weir-follow".to_owned())
            // It may compile a module.
            .stack_size(8 << 20)
            .spawn(move || follow::follow(&weak, &woken));
        started?;
        Ok(this)
    }

    /// Takes a component, or a core module built with the SDK: admits, compiles and keeps it.
    ///
    /// # Errors
    /// When it is not taken.
    pub async fn push(&self, name: &str, version: &str, bytes: Vec<u8>) -> Result<ModuleInfo, PushError> {
        let _one = self.0.changing.lock().await;
        let runtime = self.0.runtime.clone();
        let component = apart("weir-push", move || {
            // Nobody waits for a record here.
            Priority::Behind.ask();
            runtime.componentize(&bytes).map(|c| c.into_owned())
        })
        .await
        .unwrap_or(Err(LoadError::Compile(
            "the thread that compiles ended".to_owned(),
        )))?;
        let digest = Digest::of(&component);
        self.store().check(name, version, digest, component.len())?;
        let (runtime, dir) = (self.0.runtime.clone(), self.store().dir());
        let (module, descriptor) = apart("weir-push", move || -> Result<_, PushError> {
            Priority::Behind.ask();
            let module = runtime.load(&component)?;
            let descriptor = module.descriptor().clone();
            Store::write(&dir, digest, &component)?;
            Ok((module, (descriptor, component)))
        })
        .await
        .unwrap_or(Err(PushError::Admin(AdminError::Closed)))?;
        let info = ModuleInfo {
            digest,
            name: name.to_owned(),
            version: version.to_owned(),
            bytes: descriptor.1.len() as u64,
            pushed_ms: self.0.broker.now_ms(),
            descriptor: descriptor.0.clone(),
            imports: module.imports().to_vec(),
        };
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
        self.store().modules.insert(digest, info.clone());
        self.loaded().insert(digest, module);
        Ok(info)
    }

    /// All modules, by name and time.
    pub fn modules(&self) -> Vec<ModuleInfo> {
        let mut all: Vec<ModuleInfo> = self.store().modules.values().cloned().collect();
        all.sort_by(|a, b| (&a.name, a.pushed_ms).cmp(&(&b.name, b.pushed_ms)));
        all
    }

    /// Removes a module that no pipeline uses.
    ///
    /// # Errors
    /// When there is none, or one uses it.
    pub async fn remove_module(&self, reference: &ModuleRef) -> Result<ModuleInfo, PushError> {
        let _one = self.0.changing.lock().await;
        let info = self.store().resolve(reference)?.clone();
        let used = self
            .active()
            .values()
            .find(|a| a.row.modules().any(|digest| *digest == info.digest))
            .map(|a| a.lane.name.clone());
        if let Some(pipeline) = used {
            return Err(PushError::InUse(pipeline));
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

    /// Pauses a pipeline (its source then refuses records), or lets one that is paused or halted go on.
    ///
    /// # Errors
    /// When there is none.
    pub async fn set_paused(&self, name: &str, paused: bool) -> Result<PipelineInfo, ApplyError> {
        let _one = self.0.changing.lock().await;
        let before = self.row(name)?;
        let row = before.clone();
        let states = match paused {
            true => row.states.clone(),
            false => self.states(&row.spec, &row.digests, &row.states),
        };
        let row = Row {
            paused,
            states,
            ..row
        };
        self.put_in_place(&before, row, Vec::new()).await?;
        self.pipeline(name)
            .ok_or_else(|| ApplyError::NotFound(name.to_owned()))
    }

    /// Makes a pipeline forget all that its modules remember, and leaves it paused: another module may then take the
    /// place of the one that kept it.
    ///
    /// # Errors
    /// When there is none.
    pub async fn reset(&self, name: &str) -> Result<PipelineInfo, ApplyError> {
        let _one = self.0.changing.lock().await;
        let row = self.row(name)?;
        if row.canary.is_some() {
            return Err(CanaryError::AtWork(name.to_owned()).into());
        }
        self.forget(&row).await?;
        let now = self.row(name)?;
        let row = Row {
            states: Vec::new(),
            paused: true,
            ..row
        };
        self.put_in_place(&now, row, Vec::new()).await?;
        self.pipeline(name)
            .ok_or_else(|| ApplyError::NotFound(name.to_owned()))
    }

    /// Pauses the pipeline, and removes what its modules remember once all that passed it is stored.
    async fn forget(&self, row: &Row) -> Result<(), ApplyError> {
        let remembers = row.spec.has_time() || row.spec.is_stateful();
        if !remembers && row.states.iter().all(Option::is_none) {
            return Ok(());
        }
        let paused = Row {
            paused: true,
            canary: None,
            ..row.clone()
        };
        let _turnover = self.turn(row, &paused);
        self.write(Some(row), None, &paused, Vec::new()).await?;
        self.install(paused, Stages::none(), State::Paused)
            .map_err(PushError::from)?;
        let begun = self
            .active()
            .get(row.spec.name.as_str())
            .and_then(|a| a.lane.begun.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(begun) = begun {
            let _ = begun.await;
        }
        for rows in memory::of_pipeline(row.spec.name.as_str()) {
            self.0.broker.remove_rows(rows).await?;
        }
        Ok(())
    }

    /// Has a pipeline behind the log begin anew at `origin`, without anything that its modules remember. Paused stays paused.
    ///
    /// # Errors
    /// When there is none, it is in-line, or there is no such place. It may be paused then: what it did before is what it did.
    pub async fn rewind(&self, name: &str, origin: Origin) -> Result<PipelineInfo, ApplyError> {
        let _one = self.0.changing.lock().await;
        let row = self.row(name)?;
        if !row.spec.is_behind_the_log() {
            return Err(ApplyError::NoPlaces(name.to_owned()));
        }
        if row.canary.is_some() {
            return Err(CanaryError::AtWork(name.to_owned()).into());
        }
        let begin = || input::begin(&self.0.broker, name, &row.spec.source, origin, true);
        // Before anything is changed.
        begin().await?;
        self.forget(&row).await?;
        let states = match row.paused {
            true => Vec::new(),
            false => self.states(&row.spec, &row.digests, &[]),
        };
        let places = begin().await?;
        let now = self.row(name)?;
        self.put_in_place(&now, Row { states, ..row }, places).await?;
        self.pipeline(name)
            .ok_or_else(|| ApplyError::NotFound(name.to_owned()))
    }

    pub(crate) fn row(&self, name: &str) -> Result<Row, ApplyError> {
        let row = self.active().get(name).map(|a| a.row.clone());
        row.ok_or_else(|| ApplyError::NotFound(name.to_owned()))
    }

    /// Until what it returns is dropped, what ran as `from` goes on although `to` is written.
    pub(crate) fn turn(&self, from: &Row, to: &Row) -> Turnover<'_> {
        let turning = &self.0.turning;
        *turning.write().unwrap_or_else(PoisonError::into_inner) = Some(Turning {
            pipeline: from.spec.name.to_string(),
            from: from.stamp(),
            to: to.stamp(),
        });
        Turnover(turning)
    }

    /// Writes a row in the place of `before`, with others, and puts what it says in place.
    pub(crate) async fn put_in_place(
        &self,
        before: &Row,
        row: Row,
        others: Vec<Written>,
    ) -> Result<(), ApplyError> {
        let _turnover = self.turn(before, &row);
        self.write(Some(before), None, &row, others).await?;
        // Halted at start for want of a module: it may be there by now.
        let (this, of) = (self.clone(), row.clone());
        let stages = apart("weir-apply", move || this.all_stages(&of));
        let stages = stages
            .await
            .unwrap_or(Err(ApplyError::Admin(AdminError::Closed)))?;
        let state = if row.paused { State::Paused } else { State::Running };
        Ok(self.install(row, stages, state).map_err(PushError::from)?)
    }

    /// Removes a pipeline, and what its modules remember. What it has already been given still passes it.
    ///
    /// # Errors
    /// When there is none.
    pub async fn remove(&self, name: &str) -> Result<(), ApplyError> {
        let _one = self.0.changing.lock().await;
        let row = self.row(name)?;
        self.forget(&row).await?;
        for kind in [StateKind::Input, StateKind::Revision] {
            self.0.broker.remove_rows(memory::of_kind(kind, name)).await?;
        }
        let now = self.row(name)?;
        let row = (StateKey::new(StateKind::Pipeline, name.as_bytes()), None);
        self.put_on(Some(&now), None, name, vec![row]).await?;
        self.0
            .by_source
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|_, lane| lane.name != name);
        self.0
            .active
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
        Ok(())
    }

    /// All pipelines, by name.
    pub fn pipelines(&self) -> Vec<PipelineInfo> {
        self.active().values().map(|a| info(&self.0.broker, a)).collect()
    }

    /// The pipeline `name`.
    pub fn pipeline(&self, name: &str) -> Option<PipelineInfo> {
        self.active().get(name).map(|a| info(&self.0.broker, a))
    }

    /// Compiles modules that another node is about to put in place, once they have come here.
    async fn make_ready(&self, digests: Vec<Digest>) -> Result<(), String> {
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
                generation: 0,
            });
        }
        Ok(stages)
    }

    fn load(&self, digest: Digest) -> Result<Module, PushError> {
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

    /// Writes a pipeline's row in the place of `before`, and others in the same entry; with a `term`, if this node has led the site
    /// since that began.
    ///
    /// # Errors
    /// [`ApplyError::Changed`] when another node has changed it, which this one need not have seen yet.
    pub(crate) async fn write(
        &self,
        before: Option<&Row>,
        term: Option<Term>,
        row: &Row,
        others: Vec<Written>,
    ) -> Result<(), ApplyError> {
        let rows = rows(row, others)?;
        self.put_on(before, term, row.spec.name.as_str(), rows).await
    }

    /// Writes rows if the one of pipeline `name` is `before`.
    async fn put_on(
        &self,
        before: Option<&Row>,
        term: Option<Term>,
        name: &str,
        rows: Vec<Written>,
    ) -> Result<(), ApplyError> {
        let before = before.map(Row::stamp);
        let is_it = move |now: Option<&[u8]>| {
            let now = now.and_then(|row| serde_json::from_slice::<Row>(row).ok());
            now.map(|row| row.stamp()) == before
        };
        let key = (StateKind::Pipeline, name.as_bytes());
        match self.0.broker.put_rows_if(key, is_it, term, rows).await {
            Err(AdminError::Changed) => Err(ApplyError::Changed(name.to_owned())),
            put => Ok(put?),
        }
    }

    /// Puts a lane in the place of the one before it, or two.
    pub(crate) fn install(&self, row: Row, stages: Stages, state: State) -> std::io::Result<()> {
        let stamp = row.stamp();
        self.install_as(stamp, row, stages, state)
    }

    /// As [`Pipelines::install`], under `stamp`.
    pub(crate) fn install_as(
        &self,
        stamp: Stamp,
        row: Row,
        stages: Stages,
        state: State,
    ) -> std::io::Result<()> {
        let Stages { mut main, canary } = stages;
        let (mut canary, canary_state) = match canary {
            Ok(canary) => (canary, state.clone()),
            Err(why) => {
                tracing::error!(pipeline = %row.spec.name, %why, "what is tried of it comes up halted");
                (Vec::new(), State::Halted(why))
            }
        };
        for of in [&mut main, &mut canary] {
            for (stage, kept) in of.iter_mut().zip(&row.states) {
                stage.generation = kept.as_ref().map_or(0, |kept| kept.generation);
            }
        }
        let name = row.spec.name.to_string();
        let instruments = |of: &[Stage]| of.iter().map(|s| Arc::clone(&s.instruments)).collect();
        let (instruments, tried) = (instruments(&main), instruments(&canary));
        let mut active = self.0.active.write().unwrap_or_else(PoisonError::into_inner);
        let lanes = active.get(&name).into_iter();
        let lanes = lanes.flat_map(|a| std::iter::once(&a.lane).chain(&a.lane.canary));
        let finished = |lane: &Arc<Lane>| {
            lane.finished
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take()
        };
        let before: Vec<_> = lanes.filter_map(finished).collect();
        let with = || (self.0.broker.clone(), Arc::clone(&self.0.wanted));
        let share = match &row.canary {
            None => Share::All,
            Some(canary) => Share::But(Arc::new(canary.partitions.clone())),
        };
        let spec = Arc::new(row.spec.clone());
        let mut lane = Lane::start(spec, stamp, share, main, with(), state, before)?;
        if let Some(tried) = &row.canary {
            let share = Share::Only(Arc::new(tried.partitions.clone()));
            let spec = Arc::new(tried.spec.clone());
            // Not before those have finished for which the other waits.
            let started = lane.started.get_mut().unwrap_or_else(PoisonError::into_inner);
            let before = started.take().into_iter().collect();
            let canary = Lane::start(spec, stamp, share, canary, with(), canary_state, before)?;
            lane.canary = Some(Arc::new(canary));
        }
        let lane = Arc::new(lane);
        let mut by_source = self.0.by_source.write().unwrap_or_else(PoisonError::into_inner);
        by_source.retain(|_, l| l.name != name);
        if let Some(source) = row.spec.inline_source() {
            by_source.insert(source.clone(), Arc::clone(&lane));
        }
        active.insert(
            name,
            Active {
                row,
                lane,
                instruments,
                tried,
                gave_up_guarding: false,
            },
        );
        Ok(())
    }

    /// What cannot go back by itself is not asked to every second.
    pub(crate) fn give_up_guarding(&self, name: &str, revision: u64) {
        let mut active = self.0.active.write().unwrap_or_else(PoisonError::into_inner);
        let judged = active.get_mut(name).filter(|a| a.row.revision == revision);
        if let Some(active) = judged {
            active.gave_up_guarding = true;
        }
    }

    /// Sends nothing more to a pipeline: whoever has something for it waits.
    pub(crate) fn hide(&self, name: &str) {
        let mut by_source = self.0.by_source.write().unwrap_or_else(PoisonError::into_inner);
        by_source.retain(|_, lane| lane.name != name);
    }

    /// Whether this row is what runs.
    pub(crate) fn runs(&self, row: &Row) -> bool {
        let active = self.active();
        let now = active.get(row.spec.name.as_str());
        now.is_some_and(|a| a.lane.stamp == row.stamp())
    }

    /// Ends the pipelines that are not among `names`.
    pub(crate) fn forget_but(&self, names: &BTreeSet<String>) {
        let mut active = self.0.active.write().unwrap_or_else(PoisonError::into_inner);
        active.retain(|name, _| names.contains(name));
        let mut by_source = self.0.by_source.write().unwrap_or_else(PoisonError::into_inner);
        by_source.retain(|_, lane| names.contains(&lane.name));
    }

    pub(crate) fn store(&self) -> std::sync::MutexGuard<'_, Store> {
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn loaded(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, Module>> {
        self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn active(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Active>> {
        self.0.active.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hook for Pipelines {
    fn intercepts(&self, topic: &TopicName) -> bool {
        let wanted = self.0.wanted.read().unwrap_or_else(PoisonError::into_inner);
        wanted.inline.contains_key(topic)
    }

    fn user_of(&self, topic: &str) -> Option<String> {
        self.pipelines()
            .into_iter()
            .find(|p| p.uses(topic))
            .map(|p| p.name)
    }

    fn holder_of(&self, topic: &str) -> Option<String> {
        let active = self.active();
        let is_held = |spec: &Spec| {
            let source = spec.inline_source().filter(|_| spec.is_stateful());
            source.is_some_and(|source| source.as_str() == topic)
        };
        let tries = |row: &Row| row.canary.as_ref().is_some_and(|canary| is_held(&canary.spec));
        let holder = active.values().find(|a| is_held(&a.row.spec) || tries(&a.row));
        holder.map(|a| a.lane.name.clone())
    }

    fn prepare(&self, modules: Vec<[u8; 32]>) -> BoxFuture<'static, Result<bool, String>> {
        let this = self.clone();
        Box::pin(async move {
            let digests: Vec<_> = modules.into_iter().map(Digest::from).collect();
            let mut readying = this.0.readying.lock().await;
            let under_way = match readying.take() {
                Some((of, task)) if of == digests => task,
                // What was asked for before that goes on by itself.
                _ => {
                    let (this, digests) = (this.clone(), digests.clone());
                    tokio::spawn(async move { this.make_ready(digests).await })
                }
            };
            let mut under_way = under_way;
            match tokio::time::timeout(READY_TELL, &mut under_way).await {
                Ok(done) => done.unwrap_or_else(|e| Err(e.to_string())).map(|()| true),
                Err(_) => {
                    *readying = Some((digests, under_way));
                    Ok(false)
                }
            }
        })
    }

    fn take_back(
        &self,
        pipeline: String,
        revision: u64,
        why: String,
    ) -> BoxFuture<'static, Result<bool, String>> {
        let this = self.clone();
        Box::pin(async move { Pipelines::take_back(&this, pipeline, revision, why).await })
    }

    fn submit(&self, job: HookJob, done: HookDone) {
        let lane = self
            .0
            .by_source
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&job.topic.name)
            .cloned();
        let wanted = {
            let wanted = self.0.wanted.read().unwrap_or_else(PoisonError::into_inner);
            wanted.inline.get(&job.topic.name).cloned()
        };
        let fits = |lane: &Lane, (name, stamp): &(String, Stamp)| lane.name == *name && lane.stamp == *stamp;
        let turns = |lane: &Lane, (name, stamp): &(String, Stamp)| {
            let turning = self.0.turning.read().unwrap_or_else(PoisonError::into_inner);
            let turning = turning.as_ref().filter(|t| t.pipeline == *name);
            turning.is_some_and(|t| lane.name == *name && lane.stamp == t.from && *stamp == t.to)
        };
        match (lane, wanted) {
            (Some(lane), Some(wanted)) if fits(&lane, &wanted) || turns(&lane, &wanted) => {
                lane.submit(job, done)
            }
            // Another node's change, or its lead, has reached this one, and its modules are still being made ready.
            (_, Some((pipeline, _))) => done(job, Err(HookError::Busy { pipeline })),
            // Removed since it was asked for.
            (_, None) => {
                let kept = job.batch.clone();
                done(job, Ok(Processed::unchanged(kept)));
            }
        }
    }
}

/// `row` as it is stored, and `others`.
fn rows(row: &Row, others: Vec<Written>) -> Result<Vec<Written>, AdminError> {
    let value = serde_json::to_vec(row).unwrap_or_default();
    // All nodes, and this one when it starts again, know of the pipeline by nothing else.
    if serde_json::from_slice::<Row>(&value).is_err() {
        let name = &row.spec.name;
        return Err(AdminError::Refused(format!(
            "pipeline `{name}` could not be read again once it is stored"
        )));
    }
    let key = StateKey::new(StateKind::Pipeline, row.spec.name.as_str().as_bytes());
    Ok(others.into_iter().chain([(key, Some(value.into()))]).collect())
}

fn info(broker: &Broker, active: &Active) -> PipelineInfo {
    let Active { row, lane, .. } = active;
    let mut info = info_of(broker, row, &row.spec, &row.digests, lane, &active.instruments);
    info.canary = row
        .canary
        .as_ref()
        .zip(lane.canary.as_ref())
        .map(|(canary, lane)| {
            let mut tried = info_of(broker, row, &canary.spec, &canary.digests, lane, &active.tried);
            tried.partitions.clone_from(&canary.partitions);
            Box::new(tried)
        });
    info
}

fn info_of(
    broker: &Broker,
    row: &Row,
    spec: &Spec,
    digests: &[Digest],
    lane: &Lane,
    instruments: &[Arc<Instruments>],
) -> PipelineInfo {
    let mut places = match spec.at {
        At::Ingest => Vec::new(),
        At::Log => input::places(broker, spec, &lane.ends()),
    };
    places.retain(|place| lane.has(place.partition));
    let behind = |place: &Place| place.end.get() - place.next.get();
    let lag = places.iter().map(behind).sum();
    places.sort_by_key(|place| std::cmp::Reverse(behind(place)));
    places.truncate(PLACES_TOLD);
    let counts = lane.counts();
    let load = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed);
    let mut metrics = BTreeMap::new();
    for (n, instruments) in instruments.iter().enumerate() {
        for (name, reading) in instruments.read() {
            let value = match reading {
                Reading::Counter(v) | Reading::Gauge(v) | Reading::Histogram(_, v) => v,
            };
            metrics.insert(format!("{}.{name}", n + 1), value);
        }
    }
    let mut spec = spec.clone();
    // As it is, not as it was left out.
    spec.on_error.policy = Some(spec.policy());
    PipelineInfo {
        name: lane.name.clone(),
        source: spec.source.clone(),
        at: spec.at,
        revision: row.revision,
        state: lane.state(),
        spec,
        digests: digests.to_vec(),
        records_in: load(&counts.records_in),
        kept: load(&counts.kept),
        dropped: load(&counts.dropped),
        emitted: load(&counts.emitted),
        routed: counts
            .routed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone(),
        dead_letters: load(&counts.dead_letters),
        skipped: load(&counts.skipped),
        failures: load(&counts.failures),
        wasm_ns: load(&counts.wasm_ns),
        state_rows: load(&counts.state_rows),
        timers: load(&counts.timers),
        state_bytes: load(&counts.state_bytes),
        timers_fired: load(&counts.timers_fired),
        lag,
        missed: load(&counts.missed),
        places,
        metrics,
        canary: None,
        partitions: BTreeSet::new(),
    }
}

/// A voter that is not ready for a revision by then is not waited for: it has records wait once it leads. CPython takes twenty
/// seconds to compile on a small machine.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// It says whether it is ready within this time: an answer that takes longer breaks the connection.
const READY_TELL: Duration = Duration::from_secs(2);
const READY_POLL: Duration = Duration::from_millis(20);

/// Runs what blocks on a thread of its own. `None` when it panicked or could not be started.
pub(crate) async fn apart<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = oneshot::channel();
    let started = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(8 << 20)
        .spawn(move || {
            let _ = done.send(run());
        });
    started.ok()?;
    result.await.ok()
}
