//! What committed entries have made: topics, producers' windows, committed offsets. Changed by entries alone.

use crate::coordinator::{CommittedOffset, GroupRow};
use crate::notify::Growth;
use crate::producer::Window;
use crate::topic::Topic;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use weir_log::{EntryHeader, OpHeader, StateKey, StateKind};
use weir_replica::StateMachine;
use weir_types::{PartitionId, TopicName};

type RowWatcher = Box<dyn Fn(&[u8], Option<&[u8]>) + Send + Sync>;
type Waker = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
pub(crate) struct Applied {
    tables: RwLock<Tables>,
    pub(crate) growth: Growth,
    watchers: Mutex<BTreeMap<u8, RowWatcher>>,
    stepped_down: AtomicBool,
    wake_proposer: OnceLock<Waker>,
}

#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) topics: BTreeMap<TopicName, Arc<Topic>>,
    pub(crate) producers: BTreeMap<(PartitionId, i64), Window>,
    pub(crate) group_offsets: BTreeMap<(String, PartitionId), CommittedOffset>,
    pub(crate) groups: BTreeMap<String, GroupRow>,
    pub(crate) counters: BTreeMap<Vec<u8>, u64>,
    pub(crate) partition_owner: BTreeMap<PartitionId, TopicName>,
}

impl Applied {
    pub(crate) fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.tables().topics.get(name).cloned()
    }

    /// Calls `watcher` with key and value of each row of `kind` that changes from now on.
    pub(crate) fn watch(&self, kind: StateKind, watcher: RowWatcher) {
        self.watchers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(kind as u8, watcher);
    }

    pub(crate) fn on_step_down(&self, wake: Waker) {
        let _ = self.wake_proposer.set(wake);
    }

    /// Whether the term ended since the last time this was asked.
    pub(crate) fn take_step_down(&self) -> bool {
        self.stepped_down.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn load(&self, key: &StateKey, value: &[u8]) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.row(key.as_bytes(), Some(value));
    }
}

impl Tables {
    /// A row of `state` has changed. Kinds that are not the broker's are left to their watchers.
    fn row(&mut self, key: &[u8], value: Option<&[u8]>) {
        let Some((kind, rest)) = key.split_first() else {
            return;
        };
        if *kind == StateKind::Topic as u8 {
            self.topic_row(rest, value);
        } else if *kind == StateKind::Producer as u8 {
            let Some(key) = split_producer_key(rest) else {
                return;
            };
            match value.and_then(|v| postcard::from_bytes(v).ok()) {
                Some(window) => drop(self.producers.insert(key, window)),
                None => drop(self.producers.remove(&key)),
            }
        } else if *kind == StateKind::GroupOffset as u8 {
            let Some(key) = split_group_key(rest) else { return };
            match value.and_then(|v| postcard::from_bytes(v).ok()) {
                Some(offset) => drop(self.group_offsets.insert(key, offset)),
                None => drop(self.group_offsets.remove(&key)),
            }
        } else if *kind == StateKind::Group as u8 {
            let Ok(name) = std::str::from_utf8(rest) else {
                return;
            };
            match value.and_then(|v| postcard::from_bytes(v).ok()) {
                Some(row) => drop(self.groups.insert(name.to_owned(), row)),
                None => drop(self.groups.remove(name)),
            }
        } else if *kind == StateKind::Counter as u8
            && let Some(next) = value.and_then(read_u64)
        {
            self.counters.insert(rest.to_vec(), next);
        }
    }

    fn topic_row(&mut self, name: &[u8], value: Option<&[u8]>) {
        let Some(name) = std::str::from_utf8(name)
            .ok()
            .and_then(|n| n.parse::<TopicName>().ok())
        else {
            return;
        };
        match value.and_then(|v| postcard::from_bytes::<Topic>(v).ok()) {
            Some(topic) => {
                for partition in &topic.partitions {
                    self.partition_owner.insert(*partition, name.clone());
                }
                self.topics.insert(name, Arc::new(topic));
            }
            None => {
                for partition in self.topics.remove(&name).iter().flat_map(|t| &t.partitions) {
                    self.partition_owner.remove(partition);
                    self.producers.retain(|(p, _), _| p != partition);
                    self.group_offsets.retain(|(_, p), _| p != partition);
                }
            }
        }
    }
}

impl StateMachine for Applied {
    fn apply(&self, header: &EntryHeader) {
        let mut watched = Vec::new();
        {
            let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
            for op in &header.ops {
                match op {
                    OpHeader::Put { key, value } => tables.row(key, Some(value)),
                    OpHeader::Remove { key } => tables.row(key, None),
                    OpHeader::Append(_) | OpHeader::Trim { .. } | OpHeader::Drop { .. } => {}
                }
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
        let watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in watched {
            if let Some((kind, rest)) = key.split_first()
                && let Some(watcher) = watchers.get(kind)
            {
                watcher(rest, value);
            }
        }
    }

    fn stepped_down(&self) {
        self.stepped_down.store(true, Ordering::Release);
        if let Some(wake) = self.wake_proposer.get() {
            wake();
        }
    }
}

pub(crate) fn topic_key(name: &TopicName) -> StateKey {
    StateKey::new(StateKind::Topic, name.as_str().as_bytes())
}

pub(crate) fn producer_key(partition: PartitionId, id: i64) -> StateKey {
    let rest = [&partition.0.to_be_bytes()[..], &id.to_be_bytes()].concat();
    StateKey::new(StateKind::Producer, &rest)
}

fn split_producer_key(rest: &[u8]) -> Option<(PartitionId, i64)> {
    let (partition, id) = rest.split_first_chunk::<4>()?;
    Some((
        PartitionId(u32::from_be_bytes(*partition)),
        i64::from_be_bytes(*id.first_chunk()?),
    ))
}

pub(crate) fn group_key(group: &str, partition: PartitionId) -> StateKey {
    // The partition stands at the end at a fixed length: names need no terminator.
    let rest = [group.as_bytes(), &partition.0.to_be_bytes()].concat();
    StateKey::new(StateKind::GroupOffset, &rest)
}

pub(crate) fn group_row_key(group: &str) -> StateKey {
    StateKey::new(StateKind::Group, group.as_bytes())
}

fn split_group_key(rest: &[u8]) -> Option<(String, PartitionId)> {
    let (name, partition) = rest.split_last_chunk::<4>()?;
    Some((
        String::from_utf8(name.to_vec()).ok()?,
        PartitionId(u32::from_be_bytes(*partition)),
    ))
}

fn read_u64(value: &[u8]) -> Option<u64> {
    value.first_chunk::<8>().map(|b| u64::from_be_bytes(*b))
}
