//! What committed entries have made: topics, producers' windows, committed offsets. Changed by entries alone.

use crate::age::{AgeRow, StoredAt};
use crate::coordinator::{CommittedOffset, GroupRow};
use crate::moves::{Located, Move};
use crate::notify::Growth;
use crate::outbox::{self, ChannelKey, ChannelRow};
use crate::producer::Window;
use crate::topic::Topic;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::watch;
use weir_log::{EntryHeader, FormatError, Log, Op, OpHeader, ReadError, StateKey, StateKind, Stop, decode};
use weir_replica::StateMachine;
use weir_types::{GroupId, PartitionId, TopicName};

type RowWatcher = Box<dyn Fn(&[u8], Option<&[u8]>) + Send + Sync>;
type Waker = Arc<dyn Fn() + Send + Sync>;

/// Kinds whose rows are kept in [`Tables`].
const KEPT: [StateKind; 18] = [
    StateKind::Topic,
    StateKind::Producer,
    StateKind::GroupOffset,
    StateKind::Group,
    StateKind::Counter,
    StateKind::Pipeline,
    StateKind::Module,
    StateKind::Site,
    StateKind::ReplicaGroup,
    StateKind::Leader,
    StateKind::Located,
    StateKind::Move,
    StateKind::Sealed,
    StateKind::Heeded,
    StateKind::Input,
    StateKind::Channel,
    StateKind::StoredAt,
    StateKind::Age,
];

#[derive(Default)]
pub(crate) struct Applied {
    tables: RwLock<Tables>,
    pub(crate) growth: Growth,
    watchers: Mutex<BTreeMap<u8, RowWatcher>>,
    log: OnceLock<Log>,
    /// Counts beginnings and ends of leadership of the site.
    turns: watch::Sender<u64>,
}

#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) topics: BTreeMap<TopicName, Arc<Topic>>,
    pub(crate) producers: BTreeMap<(PartitionId, i64), Window>,
    pub(crate) group_offsets: BTreeMap<(String, PartitionId), CommittedOffset>,
    /// Bytes of what was committed beside them.
    pub(crate) offsets_metadata_bytes: usize,
    pub(crate) groups: BTreeMap<String, GroupRow>,
    pub(crate) counters: BTreeMap<Vec<u8>, u64>,
    /// The topic of each partition, by the number under which it is kept.
    pub(crate) partition_owner: BTreeMap<PartitionId, TopicName>,
    /// Partitions that have moved: by the number with which they were made, and the other way round.
    pub(crate) located: BTreeMap<PartitionId, Located>,
    pub(crate) identities: BTreeMap<PartitionId, PartitionId>,
    /// Those that are on their way, by where they go.
    pub(crate) moves: BTreeMap<PartitionId, Move>,
    /// Those that take nothing more.
    pub(crate) sealed: BTreeSet<PartitionId>,
    /// How long each group has stored for, and when what each partition has was stored.
    pub(crate) ages: BTreeMap<GroupId, AgeRow>,
    pub(crate) stored_at: BTreeMap<PartitionId, StoredAt>,
    /// Where what waits for partitions of other groups is kept.
    pub(crate) channels: BTreeMap<ChannelKey, ChannelRow>,
    /// What was decided of each replica group, as far as its own log says that its leaders know.
    pub(crate) heeded: BTreeMap<GroupId, u64>,
    /// Rows of other layers, by kind and key: pipelines, modules, and how far pipelines have read.
    pub(crate) others: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
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

    /// Changes whenever leadership of the site begins or ends.
    pub(crate) fn turns(&self) -> watch::Receiver<u64> {
        self.turns.subscribe()
    }

    /// Takes all there is from the rows of `log`.
    pub(crate) fn load(&self, log: &Log) -> Result<(), ReadError> {
        let _ = self.log.set(log.clone());
        let fresh = Tables::read(log, |_| true)?;
        for topic in fresh.topics.values() {
            topic.partitions.iter().for_each(|p| drop(log.marks_or_new(*p)));
        }
        *self.tables.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Takes what `group` has from the rows of the log, which were replaced.
    fn load_group(&self, group: GroupId) -> Result<(), ReadError> {
        let Some(log) = self.log.get() else { return Ok(()) };
        let mut fresh = Tables::read(log, |of| of == group)?;
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        // Other groups' rows on the disk may be older than these.
        let others = std::mem::take(&mut tables.producers).into_iter();
        let others = others.filter(|((partition, _), _)| partition.group() != group);
        let sealed = std::mem::take(&mut tables.sealed).into_iter();
        fresh
            .sealed
            .extend(sealed.filter(|partition| partition.group() != group));
        let heeded = std::mem::take(&mut tables.heeded).into_iter();
        fresh.heeded.extend(heeded.filter(|(id, _)| *id != group));
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
            (tables.sealed, tables.heeded) = (fresh.sealed, fresh.heeded);
            (tables.ages, tables.stored_at) = (fresh.ages, fresh.stored_at);
        }
        Ok(())
    }
}

/// What one group's entries make of the tables.
pub(crate) struct Part {
    applied: Arc<Applied>,
    group: GroupId,
    /// Called when leadership begins or ends.
    wake: Waker,
}

impl Part {
    pub(crate) fn new(applied: Arc<Applied>, group: GroupId, wake: Waker) -> Self {
        Self { applied, group, wake }
    }

    fn turn(&self) {
        (self.wake)();
        if self.group == GroupId::SITE {
            self.applied.turns.send_modify(|n| *n += 1);
        }
        // Those who wait for records wait at the wrong node now, or may find that it is the right one.
        self.applied.growth.all();
    }
}

impl Tables {
    /// The rows of `log` that belong to the groups of which `of` is true.
    fn read(log: &Log, of: impl Fn(GroupId) -> bool) -> Result<Self, ReadError> {
        let mut tables = Self::default();
        for kind in KEPT {
            for (key, value) in log.state_rows(kind)? {
                if StateKey::group(key.as_bytes()).is_some_and(&of) {
                    tables
                        .row(key.as_bytes(), Some(&value))
                        .map_err(|why| ReadError::Format {
                            row: told(key.as_bytes()),
                            why,
                        })?;
                }
            }
        }
        Ok(tables)
    }

    /// Removes the rows of producers of `partition`.
    pub(crate) fn forget_producers(&self, partition: PartitionId) -> impl Iterator<Item = Op> + '_ {
        let of_partition = self
            .producers
            .range((partition, i64::MIN)..=(partition, i64::MAX));
        of_partition.map(|((p, id), _)| Op::Remove {
            key: producer_key(*p, *id),
        })
    }

    /// A row of `state` has changed. Kinds that are not the broker's are left to their watchers.
    ///
    /// # Errors
    /// When it cannot be read: it is a later release's, and says something.
    fn row(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), FormatError> {
        let Some((kind, rest)) = key.split_first() else {
            return Ok(());
        };
        if StateKind::from_byte(*kind).is_none() {
            return Err(FormatError::Unknown {
                what: "a row",
                why: format!("there is no kind {kind}"),
            });
        }
        if *kind == StateKind::Topic as u8 {
            self.topic_row(rest, value)?;
        } else if *kind == StateKind::Producer as u8 {
            let Some(key) = split_producer_key(rest) else {
                return Ok(());
            };
            match value.map(|v| decode("the window of a producer", v)).transpose()? {
                Some(window) => drop(self.producers.insert(key, window)),
                None => drop(self.producers.remove(&key)),
            }
        } else if *kind == StateKind::GroupOffset as u8 {
            let Some(key) = split_group_key(rest) else {
                return Ok(());
            };
            match value
                .map(|v| decode::<CommittedOffset>("a committed offset", v))
                .transpose()?
            {
                Some(offset) => {
                    self.offsets_metadata_bytes += offset.metadata.len();
                    self.forget_metadata(&key);
                    self.group_offsets.insert(key, offset);
                }
                None => {
                    self.forget_metadata(&key);
                    self.group_offsets.remove(&key);
                }
            }
        } else if *kind == StateKind::Group as u8 {
            let Ok(name) = std::str::from_utf8(rest) else {
                return Ok(());
            };
            match value.map(|v| decode("a consumer group", v)).transpose()? {
                Some(row) => drop(self.groups.insert(name.to_owned(), row)),
                None => drop(self.groups.remove(name)),
            }
        } else if *kind == StateKind::Located as u8 {
            self.located_row(rest, value)?;
        } else if *kind == StateKind::Move as u8 {
            let Some(to) = split_partition(rest) else {
                return Ok(());
            };
            match value.map(|v| decode("a move of a partition", v)).transpose()? {
                Some(row) => drop(self.moves.insert(to, row)),
                None => drop(self.moves.remove(&to)),
            }
        } else if *kind == StateKind::StoredAt as u8 {
            let Some(partition) = split_partition(rest) else {
                return Ok(());
            };
            match value
                .map(|v| decode("when a partition was stored", v))
                .transpose()?
            {
                Some(row) => drop(self.stored_at.insert(partition, row)),
                None => drop(self.stored_at.remove(&partition)),
            }
        } else if *kind == StateKind::Age as u8 {
            let id = rest.first_chunk().map(|id| GroupId(u16::from_be_bytes(*id)));
            let row = value.map(|v| decode("the age of a group", v)).transpose()?;
            if let (Some(id), Some(row)) = (id, row) {
                self.ages.insert(id, row);
            }
        } else if *kind == StateKind::Sealed as u8 {
            let Some(partition) = split_partition(rest) else {
                return Ok(());
            };
            match value {
                Some(_) => drop(self.sealed.insert(partition)),
                None => drop(self.sealed.remove(&partition)),
            }
        } else if *kind == StateKind::Channel as u8 {
            let Some(channel) = outbox::split_key(rest) else {
                return Ok(());
            };
            match value.map(|v| decode("a channel of an outbox", v)).transpose()? {
                Some(row) => drop(self.channels.insert(channel, row)),
                None => drop(self.channels.remove(&channel)),
            }
        } else if *kind == StateKind::Heeded as u8 {
            let id = rest.first_chunk().map(|id| GroupId(u16::from_be_bytes(*id)));
            if let (Some(id), Some(version)) = (id, value.and_then(read_u64)) {
                self.heeded.insert(id, version);
            }
        } else if *kind == StateKind::Counter as u8 {
            if let Some(next) = value.and_then(read_u64) {
                self.counters.insert(rest.to_vec(), next);
            }
        } else if KEPT.iter().any(|k| *k as u8 == *kind) {
            // Those that are read where they are used must be readable there.
            if let Some(value) = value {
                if *kind == StateKind::ReplicaGroup as u8 {
                    decode::<crate::placement::ReplicaGroup>("a replica group", value)?;
                } else if *kind == StateKind::Leader as u8 {
                    decode::<crate::groups::Led>("the leader of a replica group", value)?;
                }
            }
            let key = (*kind, rest.to_vec());
            match value {
                Some(value) => drop(self.others.insert(key, value.to_vec())),
                None => drop(self.others.remove(&key)),
            }
        }
        Ok(())
    }

    fn forget_metadata(&mut self, key: &(String, PartitionId)) {
        let bytes = self
            .group_offsets
            .get(key)
            .map_or(0, |offset| offset.metadata.len());
        self.offsets_metadata_bytes = self.offsets_metadata_bytes.saturating_sub(bytes);
    }

    /// Where a partition is kept that was made with the number `identity`.
    pub(crate) fn current(&self, identity: PartitionId) -> PartitionId {
        self.located.get(&identity).map_or(identity, |l| l.at)
    }

    fn located_row(&mut self, rest: &[u8], value: Option<&[u8]>) -> Result<(), FormatError> {
        let Some(identity) = split_partition(rest) else {
            return Ok(());
        };
        let row = value
            .map(|v| decode::<Located>("the place of a partition", v))
            .transpose()?;
        let before = self.current(identity);
        self.identities.remove(&before);
        match row {
            Some(row) => {
                self.identities.insert(row.at, identity);
                self.located.insert(identity, row);
            }
            None => drop(self.located.remove(&identity)),
        }
        let now = self.current(identity);
        let Some(name) = self.partition_owner.remove(&before) else {
            return Ok(());
        };
        if let Some(topic) = self.topics.get_mut(&name) {
            let topic = Arc::make_mut(topic);
            topic
                .partitions
                .iter_mut()
                .filter(|p| **p == before)
                .for_each(|p| *p = now);
        }
        self.partition_owner.insert(now, name);
        Ok(())
    }

    fn topic_row(&mut self, name: &[u8], value: Option<&[u8]>) -> Result<(), FormatError> {
        let Some(name) = std::str::from_utf8(name)
            .ok()
            .and_then(|n| n.parse::<TopicName>().ok())
        else {
            return Ok(());
        };
        match value.map(Topic::decode).transpose()? {
            Some(mut topic) => {
                for partition in &mut topic.partitions {
                    *partition = self.current(*partition);
                    self.partition_owner.insert(*partition, name.clone());
                }
                self.topics.insert(name, Arc::new(topic));
            }
            None => {
                for partition in self.topics.remove(&name).iter().flat_map(|t| &t.partitions) {
                    let identity = self.identity(*partition);
                    self.partition_owner.remove(partition);
                    self.producers.retain(|(p, _), _| p != partition);
                    let bytes = &mut self.offsets_metadata_bytes;
                    self.group_offsets.retain(|(_, p), offset| {
                        if *p == identity {
                            *bytes = bytes.saturating_sub(offset.metadata.len());
                        }
                        *p != identity
                    });
                }
            }
        }
        Ok(())
    }
}

impl StateMachine for Part {
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

impl Applied {
    fn apply(&self, header: &EntryHeader) -> Result<(), String> {
        let mut watched = Vec::new();
        {
            let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
            for op in &header.ops {
                let (key, changed) = match op {
                    OpHeader::Put { key, value } => (key, tables.row(key, Some(value))),
                    OpHeader::Remove { key } => (key, tables.row(key, None)),
                    OpHeader::Append(_) | OpHeader::Trim { .. } | OpHeader::Drop { .. } => continue,
                };
                changed.map_err(|why| format!("{}: {why}", told(key)))?;
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
        Ok(())
    }

    fn replaced(&self, group: GroupId) {
        let before: Vec<_> = self.tables().others.keys().cloned().collect();
        if let Err(error) = self.load_group(group) {
            // The rows were written a moment ago.
            tracing::error!(%error, "what was installed cannot be read: restart the node");
            return;
        }
        let tables = self.tables();
        let watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
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

/// A key of a row, for people.
fn told(key: &[u8]) -> String {
    let (kind, rest) = key.split_first().unwrap_or((&0, &[]));
    match StateKind::from_byte(*kind) {
        Some(kind) => format!("row {kind:?} `{}`", rest.escape_ascii()),
        None => format!("row of kind {kind} `{}`", rest.escape_ascii()),
    }
}

pub(crate) fn topic_key(name: &TopicName) -> StateKey {
    StateKey::new(StateKind::Topic, name.as_str().as_bytes())
}

pub(crate) fn producer_key(partition: PartitionId, id: i64) -> StateKey {
    let rest = [&partition.0.to_be_bytes()[..], &id.to_be_bytes()].concat();
    StateKey::new(StateKind::Producer, &rest)
}

fn split_partition(rest: &[u8]) -> Option<PartitionId> {
    Some(PartitionId(u32::from_be_bytes(*rest.first_chunk()?)))
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
