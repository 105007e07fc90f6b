//! Registry of all pipelines and modules of a node. Knows no features: each feature adds an `impl Pipelines`.

use crate::error::ApplyError;
use crate::module_store::Store;
use crate::partition::partition_set::PartitionSet;
use crate::spec::row::{self, Row, RowFingerprint, Written};
use crate::stages::stage::{Stage, Stages};
use crate::worker::counts::State;
use crate::worker::desired::SharedDesiredState;
use crate::worker::handle::PipelineHandle;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use weir_broker::{AdminError, Broker, StateKind};
use weir_runtime::{Digest, Instruments, Module, Runtime};
use weir_types::sync::{Mutex, RwLock};
use weir_types::{Term, TopicName};

/// A pipeline that is installed on this node.
pub(crate) struct Active {
    pub(crate) row: Row,
    pub(crate) handle: Arc<PipelineHandle>,
    pub(crate) instruments: Vec<Arc<Instruments>>,
    /// Instruments of the canary.
    pub(crate) tried: Vec<Arc<Instruments>>,
    /// The guard was violated, and rolling back failed for good.
    pub(crate) is_guard_disabled: bool,
}

/// All pipelines of a node. A clone is a handle to the same pipelines.
#[derive(Clone)]
pub struct Pipelines(pub(crate) Arc<Inner>);

/// Shared by all handles of [`Pipelines`].
pub(crate) struct Inner {
    pub(crate) broker: Broker,
    pub(crate) runtime: Runtime,
    pub(crate) store: Mutex<Store>,
    pub(crate) active: RwLock<BTreeMap<String, Active>>,
    pub(crate) by_source: RwLock<BTreeMap<TopicName, Arc<PipelineHandle>>>,
    pub(crate) loaded: Mutex<BTreeMap<Digest, Module>>,
    /// Serializes changes: what a change has checked still holds when it writes.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// A single permit: modules are compiled in turn.
    pub(crate) compiling: Arc<tokio::sync::Semaphore>,
    /// Modules that are compiled for a change by another node.
    pub(crate) preparing: tokio::sync::Mutex<Option<PreparedModules>>,
    /// Serializes shadow runs.
    pub(crate) shadowing: Arc<tokio::sync::Mutex<()>>,
    /// Pipelines that should run, according to the applied rows.
    pub(crate) desired: SharedDesiredState,
    /// A change by this node under way: the old row keeps running until the change is done.
    pub(crate) replacing: RwLock<Option<Replacing>>,
}

/// Modules that are compiled for a change by another node.
pub(crate) type PreparedModules = (Vec<Digest>, tokio::task::JoinHandle<Result<(), String>>);

/// A change under way: the pipeline, and the fingerprints of its old and new row.
pub(crate) struct Replacing {
    pub(crate) pipeline: String,
    pub(crate) from: RowFingerprint,
    pub(crate) to: RowFingerprint,
}

/// Keeps the old row running until dropped.
pub(crate) struct ReplacementGuard<'a>(&'a RwLock<Option<Replacing>>);

impl Drop for ReplacementGuard<'_> {
    fn drop(&mut self) {
        *self.0.write() = None;
    }
}

impl Pipelines {
    pub(crate) fn row(&self, name: &str) -> Result<Row, ApplyError> {
        let row = self.active().get(name).map(|a| a.row.clone());
        row.ok_or_else(|| ApplyError::NotFound(name.to_owned()))
    }

    /// Keeps the pipeline of row `from` running although `to` is stored, until the returned guard is dropped.
    pub(crate) fn begin_replacement(&self, from: &Row, to: &Row) -> ReplacementGuard<'_> {
        let replacing = &self.0.replacing;
        *replacing.write() = Some(Replacing {
            pipeline: from.spec.name.to_string(),
            from: from.fingerprint(),
            to: to.fingerprint(),
        });
        ReplacementGuard(replacing)
    }

    /// Replaces the stored row `before` by `row`, with `others` in the same entry. With a `term`, only if
    /// this node has led the site since that term began.
    ///
    /// # Errors
    /// [`ApplyError::Changed`] when the stored row differs from `before`, which may not have been applied
    /// here yet.
    pub(crate) async fn write(
        &self,
        before: Option<&Row>,
        term: Option<Term>,
        row: &Row,
        others: Vec<Written>,
    ) -> Result<(), ApplyError> {
        let rows = row::rows(row, others)?;
        self.put_rows_if_current(before, term, row.spec.name.as_str(), rows)
            .await
    }

    /// Writes rows if the stored row of pipeline `name` equals `before`.
    pub(crate) async fn put_rows_if_current(
        &self,
        before: Option<&Row>,
        term: Option<Term>,
        name: &str,
        rows: Vec<Written>,
    ) -> Result<(), ApplyError> {
        let before = before.map(Row::fingerprint);
        let is_current = move |now: Option<&[u8]>| {
            // An unreadable row equals no known row.
            match now.map(row::of_pipeline).transpose() {
                Ok(now) => now.map(|row| row.fingerprint()) == before,
                Err(_) => false,
            }
        };
        let key = (StateKind::Pipeline, name.as_bytes());
        match self.0.broker.put_rows_if(key, is_current, term, rows).await {
            Err(AdminError::Changed) => Err(ApplyError::Changed(name.to_owned())),
            put => Ok(put?),
        }
    }

    /// Runs `row`, in place of the pipeline with its name: a single handle, or two with a canary.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(crate) fn install(&self, row: Row, stages: Stages, state: State) -> std::io::Result<()> {
        let fingerprint = row.fingerprint();
        self.install_as(fingerprint, row, stages, state)
    }

    /// Runs `row` under another fingerprint.
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
                tracing::error!(pipeline = %row.spec.name, %why, "canary starts halted");
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
        let mut active = self.0.active.write();
        let handles = active.get(&name).into_iter();
        let handles = handles.flat_map(|a| std::iter::once(&a.handle).chain(&a.handle.canary));
        let finished = |handle: &Arc<PipelineHandle>| handle.finished.lock().take();
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
            // The canary waits for the same predecessors.
            let started = handle.started.get_mut();
            let before = started.take().into_iter().collect();
            let canary =
                PipelineHandle::start(spec, fingerprint, share, canary, with(), canary_state, before)?;
            handle.canary = Some(Arc::new(canary));
        }
        let handle = Arc::new(handle);
        let mut by_source = self.0.by_source.write();
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
                is_guard_disabled: false,
            },
        );
        Ok(())
    }

    /// Stops the guard for a revision that cannot be rolled back.
    pub(crate) fn disable_guard(&self, name: &str, revision: u64) {
        let mut active = self.0.active.write();
        let judged = active.get_mut(name).filter(|a| a.row.revision == revision);
        if let Some(active) = judged {
            active.is_guard_disabled = true;
        }
    }

    /// Removes a pipeline from its source: producers wait.
    pub(crate) fn detach_source(&self, name: &str) {
        let mut by_source = self.0.by_source.write();
        by_source.retain(|_, handle| handle.name != name);
    }

    /// Returns true if `row` is running.
    pub(crate) fn runs(&self, row: &Row) -> bool {
        let active = self.active();
        let now = active.get(row.spec.name.as_str());
        now.is_some_and(|a| a.handle.fingerprint == row.fingerprint())
    }

    /// Ends all pipelines except `names`.
    pub(crate) fn retain_only(&self, names: &BTreeSet<String>) {
        let mut active = self.0.active.write();
        active.retain(|name, _| names.contains(name));
        let mut by_source = self.0.by_source.write();
        by_source.retain(|_, handle| names.contains(&handle.name));
    }

    pub(crate) fn store(&self) -> std::sync::MutexGuard<'_, Store> {
        self.0.store.lock()
    }

    pub(crate) fn loaded(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, Module>> {
        self.0.loaded.lock()
    }

    pub(crate) fn active(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Active>> {
        self.0.active.read()
    }
}
