//! All pipelines and modules of a node.

use crate::error::ApplyError;
use crate::module_store::Store;
use crate::partition::share::Share;
use crate::spec::row::{self, Row, Stamp, Written};
use crate::stages::stage::{Stage, Stages};
use crate::worker::counts::State;
use crate::worker::handle::Lane;
use crate::worker::wanted::Wanted;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use weir_broker::{AdminError, Broker, StateKind};
use weir_runtime::{Digest, Instruments, Module, Runtime};
use weir_types::{Term, TopicName};

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
    pub(crate) store: Mutex<Store>,
    pub(crate) active: RwLock<BTreeMap<String, Active>>,
    pub(crate) by_source: RwLock<BTreeMap<TopicName, Arc<Lane>>>,
    pub(crate) loaded: Mutex<BTreeMap<Digest, Module>>,
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

/// Modules that are being made ready.
pub(crate) type Readying = (Vec<Digest>, tokio::task::JoinHandle<Result<(), String>>);

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
    pub(crate) async fn put_on(
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

    pub(crate) fn active(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Active>> {
        self.0.active.read().unwrap_or_else(PoisonError::into_inner)
    }
}
