//! All pipelines and modules of a node.

use crate::error::{ApplyError, CanaryError, PushError};
use crate::follow;
use crate::hooked::Readying;
use crate::info::{self, PipelineInfo};
use crate::module_store::Store;
use crate::partition::share::Share;
use crate::partition::{place, rows};
use crate::spec::row::{self, Row, Stamp, Written};
use crate::spec::source::Origin;
use crate::stages::stage::{Stage, Stages};
use crate::worker::counts::State;
use crate::worker::handle::Lane;
use crate::worker::wanted::{self, Wanted};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use weir_broker::{AdminError, Broker, StateKey, StateKind};
use weir_runtime::{Digest, Instruments, Module, Runtime};
use weir_types::{Term, TopicName};

/// A step takes some milliseconds, and a module that loops a second.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

pub(crate) struct Active {
    pub(crate) row: Row,
    pub(crate) lane: Arc<Lane>,
    pub(crate) instruments: Vec<Arc<Instruments>>,
    /// Of what is tried.
    pub(crate) tried: Vec<Arc<Instruments>>,
    /// It is out of bounds, and could not go back.
    pub(crate) gave_up_guarding: bool,
}

/// All pipelines of a node. Clones are handles to the same ones.
#[derive(Clone)]
pub struct Pipelines(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) broker: Broker,
    pub(crate) runtime: Runtime,
    store: Mutex<Store>,
    active: RwLock<BTreeMap<String, Active>>,
    pub(crate) by_source: RwLock<BTreeMap<TopicName, Arc<Lane>>>,
    loaded: Mutex<BTreeMap<Digest, Module>>,
    /// One change at a time: what is checked still holds when it is written.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// One module is compiled at a time, and nothing else waits for that.
    pub(crate) compiling: Arc<tokio::sync::Semaphore>,
    /// What another node has asked this one to make ready, and is under way.
    pub(crate) readying: tokio::sync::Mutex<Option<Readying>>,
    /// One pipeline is tried out at a time.
    pub(crate) shadowing: Arc<tokio::sync::Mutex<()>>,
    /// What the applied rows say should run.
    pub(crate) wanted: Wanted,
    /// What this node is changing itself: until it is done, what ran before goes on.
    pub(crate) turning: RwLock<Option<Turning>>,
}

/// A pipeline that is being changed here: from what to what.
pub(crate) struct Turning {
    pub(crate) pipeline: String,
    pub(crate) from: Stamp,
    pub(crate) to: Stamp,
}

/// Held while this node puts something in the place of what was before.
pub(crate) struct Turnover<'a>(&'a RwLock<Option<Turning>>);

impl Drop for Turnover<'_> {
    fn drop(&mut self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
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
        let woken = wanted::watch(&broker, &wanted);
        // It never leads, so it runs none, and need not compile any.
        let is_idle = broker.group().is_witness();
        let rows = broker.rows(StateKind::Pipeline);
        let rows = rows
            .iter()
            .filter(|_| !is_idle)
            .map(|(key, value)| {
                let name = String::from_utf8_lossy(key);
                row::of_pipeline(value)
                    .inspect_err(|_| tracing::error!(pipeline = %name, "its row cannot be read"))
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
        for rows in rows::of_pipeline(row.spec.name.as_str()) {
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
        let begin = || place::begin(&self.0.broker, name, &row.spec.source, origin, true);
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
            self.0.broker.remove_rows(rows::of_kind(kind, name)).await?;
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
        self.active()
            .values()
            .map(|a| info::info(&self.0.broker, a))
            .collect()
    }

    /// The pipeline `name`.
    pub fn pipeline(&self, name: &str) -> Option<PipelineInfo> {
        self.active().get(name).map(|a| info::info(&self.0.broker, a))
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
        let rows = row::rows(row, others)?;
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
            // One that cannot be read is none that is known here.
            match now.map(row::of_pipeline).transpose() {
                Ok(now) => now.map(|row| row.stamp()) == before,
                Err(_) => false,
            }
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

    /// Ends what works behind the log, which would otherwise wait for a runtime that is gone. In-line pipelines have nothing to do
    /// once nobody produces. Blocks, for a moment at most.
    pub fn close(&self) {
        let active = self.active();
        active.values().for_each(|a| a.lane.end());
        let until = Instant::now() + CLOSE_WITHIN;
        for ended in active.values().flat_map(|a| a.lane.ended()) {
            let _ = ended.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
    }

    pub(crate) fn active(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Active>> {
        self.0.active.read().unwrap_or_else(PoisonError::into_inner)
    }
}

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
