//! All pipelines and modules of a node.

use crate::error::ApplyError;
use crate::module_store::Store;
use crate::partition::partition_set::PartitionSet;
use crate::spec::row::{self, Row, RowFingerprint, Written};
use crate::stages::stage::{Stage, Stages};
use crate::worker::counts::State;
use crate::worker::desired::SharedDesiredState;
use crate::worker::handle::PipelineHandle;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use weir_broker::{AdminError, Broker, StateKind};
use weir_runtime::{Digest, Instruments, Module, Runtime};
use weir_types::{Term, TopicName};

pub(crate) struct Active {
    pub(crate) row: Row,
    pub(crate) handle: Arc<PipelineHandle>,
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
    pub(crate) by_source: RwLock<BTreeMap<TopicName, Arc<PipelineHandle>>>,
    pub(crate) loaded: Mutex<BTreeMap<Digest, Module>>,
    /// One change at a time: what is checked still holds when it is written.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// One module is compiled at a time, and nothing else waits for that.
    pub(crate) compiling: Arc<tokio::sync::Semaphore>,
    /// What another node has asked this one to make ready, and is under way.
    pub(crate) preparing: tokio::sync::Mutex<Option<PreparedModules>>,
    /// One pipeline is tried out at a time.
    pub(crate) shadowing: Arc<tokio::sync::Mutex<()>>,
    /// What the applied rows say should run.
    pub(crate) desired: SharedDesiredState,
    /// What this node is changing itself: until it is done, what ran before goes on.
    pub(crate) replacing: RwLock<Option<Replacing>>,
}

/// Modules that are being made ready.
pub(crate) type PreparedModules = (Vec<Digest>, tokio::task::JoinHandle<Result<(), String>>);

/// A pipeline that is being changed here: from what to what.
pub(crate) struct Replacing {
    pub(crate) pipeline: String,
    pub(crate) from: RowFingerprint,
    pub(crate) to: RowFingerprint,
}

/// Held while this node puts something in the place of what was before.
pub(crate) struct ReplacementGuard<'a>(&'a RwLock<Option<Replacing>>);

impl Drop for ReplacementGuard<'_> {
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
    pub(crate) fn begin_replacement(&self, from: &Row, to: &Row) -> ReplacementGuard<'_> {
        let replacing = &self.0.replacing;
        *replacing.write().unwrap_or_else(PoisonError::into_inner) = Some(Replacing {
            pipeline: from.spec.name.to_string(),
            from: from.fingerprint(),
            to: to.fingerprint(),
        });
        ReplacementGuard(replacing)
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
        let before = before.map(Row::fingerprint);
        let is_it = move |now: Option<&[u8]>| {
            // One that cannot be read is none that is known here.
            match now.map(row::of_pipeline).transpose() {
                Ok(now) => now.map(|row| row.fingerprint()) == before,
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
        let fingerprint = row.fingerprint();
        self.install_as(fingerprint, row, stages, state)
    }

    /// As [`Pipelines::install`], under `stamp`.
    pub(crate) fn install_as(
        &self,
        fingerprint: RowFingerprint,
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
        let handles = active.get(&name).into_iter();
        let handles = handles.flat_map(|a| std::iter::once(&a.handle).chain(&a.handle.canary));
        let finished = |handle: &Arc<PipelineHandle>| {
            handle
                .finished
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take()
        };
        let before: Vec<_> = handles.filter_map(finished).collect();
        let with = || (self.0.broker.clone(), Arc::clone(&self.0.desired));
        let share = match &row.canary {
            None => PartitionSet::All,
            Some(canary) => PartitionSet::But(Arc::new(canary.partitions.clone())),
        };
        let spec = Arc::new(row.spec.clone());
        let mut handle = PipelineHandle::start(spec, fingerprint, share, main, with(), state, before)?;
        if let Some(tried) = &row.canary {
            let share = PartitionSet::Only(Arc::new(tried.partitions.clone()));
            let spec = Arc::new(tried.spec.clone());
            // Not before those have finished for which the other waits.
            let started = handle.started.get_mut().unwrap_or_else(PoisonError::into_inner);
            let before = started.take().into_iter().collect();
            let canary =
                PipelineHandle::start(spec, fingerprint, share, canary, with(), canary_state, before)?;
            handle.canary = Some(Arc::new(canary));
        }
        let handle = Arc::new(handle);
        let mut by_source = self.0.by_source.write().unwrap_or_else(PoisonError::into_inner);
        by_source.retain(|_, l| l.name != name);
        if let Some(source) = row.spec.inline_source() {
            by_source.insert(source.clone(), Arc::clone(&handle));
        }
        active.insert(
            name,
            Active {
                row,
                handle,
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
        by_source.retain(|_, handle| handle.name != name);
    }

    /// Whether this row is what runs.
    pub(crate) fn runs(&self, row: &Row) -> bool {
        let active = self.active();
        let now = active.get(row.spec.name.as_str());
        now.is_some_and(|a| a.handle.fingerprint == row.fingerprint())
    }

    /// Ends the pipelines that are not among `names`.
    pub(crate) fn retain_only(&self, names: &BTreeSet<String>) {
        let mut active = self.0.active.write().unwrap_or_else(PoisonError::into_inner);
        active.retain(|name, _| names.contains(name));
        let mut by_source = self.0.by_source.write().unwrap_or_else(PoisonError::into_inner);
        by_source.retain(|_, handle| names.contains(&handle.name));
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
