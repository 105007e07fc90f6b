//! Applied state: the effects of committed entries on tables. Changed by entries only.

use crate::state::notify::AppendNotifier;
use crate::state::rows::topic::Topic;
use crate::state::tables::{Tables, describe_key};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, RwLockReadGuard};
use tokio::sync::watch;
use weir_log::{EntryHeader, Log, OpHeader, ReadError, StateKind, Stop};
use weir_replica::StateMachine;
use weir_types::GroupId;
use weir_types::sync::{Mutex, RwLock};

type RowWatcher = Box<dyn Fn(&[u8], Option<&[u8]>) + Send + Sync>;

type Waker = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
pub(crate) struct AppliedState {
    pub(crate) tables: RwLock<Tables>,
    pub(crate) growth: AppendNotifier,
    pub(crate) watchers: Mutex<BTreeMap<u8, RowWatcher>>,
    pub(crate) log: OnceLock<Log>,
    /// Counts beginnings and ends of leadership of the site.
    pub(crate) turns: watch::Sender<u64>,
}

impl AppliedState {
    pub(crate) fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read()
    }

    pub(crate) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.tables().topics.get(name).cloned()
    }

    /// Calls `watcher` with key and value of each row of `kind` that changes from now on.
    pub(crate) fn watch(&self, kind: StateKind, watcher: RowWatcher) {
        self.watchers.lock().insert(kind as u8, watcher);
    }

    /// Changes whenever leadership of the site begins or ends.
    pub(crate) fn turns(&self) -> watch::Receiver<u64> {
        self.turns.subscribe()
    }

    /// Loads all rows of `log`.
    pub(crate) fn load(&self, log: &Log) -> Result<(), ReadError> {
        let _ = self.log.set(log.clone());
        let fresh = Tables::read(log, |_| true)?;
        for topic in fresh.topics.values() {
            topic.partitions.iter().for_each(|p| drop(log.marks_or_new(*p)));
        }
        *self.tables.write() = fresh;
        Ok(())
    }

    /// Reloads the rows of `group`, which a snapshot has replaced.
    fn load_group(&self, group: GroupId) -> Result<(), ReadError> {
        let Some(log) = self.log.get() else { return Ok(()) };
        let mut fresh = Tables::read(log, |of| of == group)?;
        let mut tables = self.tables.write();
        // Other groups' rows on the disk may be older than these.
        let others = std::mem::take(&mut tables.producers).into_iter();
        let others = others.filter(|((partition, _), _)| partition.group() != group);
        let sealed = std::mem::take(&mut tables.sealed).into_iter();
        fresh
            .sealed
            .extend(sealed.filter(|partition| partition.group() != group));
        let configs_seen = std::mem::take(&mut tables.configs_seen).into_iter();
        fresh
            .configs_seen
            .extend(configs_seen.filter(|(id, _)| *id != group));
        let ages = std::mem::take(&mut tables.ages).into_iter();
        fresh.ages.extend(ages.filter(|(id, _)| *id != group));
        let stored_at = std::mem::take(&mut tables.stored_at).into_iter();
        fresh
            .stored_at
            .extend(stored_at.filter(|(partition, _)| partition.group() != group));
        if group == GroupId::SITE {
            fresh.producers.extend(others);
            for topic in fresh.topics.values() {
                topic.partitions.iter().for_each(|p| drop(log.marks_or_new(*p)));
            }
            *tables = fresh;
        } else {
            tables.producers = others.chain(fresh.producers).collect();
            (tables.sealed, tables.configs_seen) = (fresh.sealed, fresh.configs_seen);
            (tables.ages, tables.stored_at) = (fresh.ages, fresh.stored_at);
        }
        Ok(())
    }
}

/// The state machine of a group's entries.
pub(crate) struct GroupStateMachine {
    pub(crate) applied: Arc<AppliedState>,
    pub(crate) group: GroupId,
    /// Called when leadership begins or ends.
    pub(crate) wake: Waker,
}

impl GroupStateMachine {
    pub(crate) fn new(applied: Arc<AppliedState>, group: GroupId, wake: Waker) -> Self {
        Self { applied, group, wake }
    }

    pub(crate) fn turn(&self) {
        (self.wake)();
        if self.group == GroupId::SITE {
            self.applied.turns.send_modify(|n| *n += 1);
        }
        // Waiting consumers may be at the wrong node now, or at the right.
        self.applied.growth.all();
    }
}

impl StateMachine for GroupStateMachine {
    fn apply(&self, header: &EntryHeader) -> Result<(), String> {
        Stop::Applying.here();
        let applied = self.applied.apply(header);
        Stop::Applied.here();
        applied
    }

    fn leading(&self) {
        self.turn();
    }

    fn stepped_down(&self) {
        self.turn();
    }

    fn replaced(&self) {
        self.applied.replaced(self.group);
    }
}

impl AppliedState {
    pub(crate) fn apply(&self, header: &EntryHeader) -> Result<(), String> {
        let mut watched = Vec::new();
        {
            let mut tables = self.tables.write();
            for op in &header.ops {
                let (key, changed) = match op {
                    OpHeader::Put { key, value } => (key, tables.row(key, Some(value))),
                    OpHeader::Remove { key } => (key, tables.row(key, None)),
                    OpHeader::Append(_) | OpHeader::Trim { .. } | OpHeader::Drop { .. } => continue,
                };
                changed.map_err(|why| format!("{}: {why}", describe_key(key)))?;
            }
        }
        for op in &header.ops {
            match op {
                OpHeader::Append(append) => self.growth.grew(append.partition),
                OpHeader::Drop { partition } => self.growth.forget(*partition),
                OpHeader::Put { key, value } => watched.push((key, Some(value.as_slice()))),
                OpHeader::Remove { key } => watched.push((key, None)),
                OpHeader::Trim { .. } => {}
            }
        }
        let watchers = self.watchers.lock();
        for (key, value) in watched {
            if let Some((kind, rest)) = key.split_first()
                && let Some(watcher) = watchers.get(kind)
            {
                watcher(rest, value);
            }
        }
        Ok(())
    }

    fn replaced(&self, group: GroupId) {
        let before: Vec<_> = self.tables().others.keys().cloned().collect();
        if let Err(error) = self.load_group(group) {
            // The rows were written a moment ago.
            tracing::error!(%error, "cannot read the installed snapshot: restart the node");
            return;
        }
        let tables = self.tables();
        let watchers = self.watchers.lock();
        let gone = before.iter().filter(|key| !tables.others.contains_key(key));
        let now = tables.others.iter().map(|(key, value)| (key, Some(&value[..])));
        for ((kind, rest), value) in gone.map(|key| (key, None)).chain(now) {
            if let Some(watcher) = watchers.get(kind) {
                watcher(rest, value);
            }
        }
        self.growth.all();
    }
}
