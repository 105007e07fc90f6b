//! Tables of the committed rows.

use crate::state::rows::Row;
use crate::state::rows::absent::Absent;
use crate::state::rows::channel::{ChannelKey, ChannelRow};
use crate::state::rows::committed_offset::CommittedOffset;
use crate::state::rows::config_seen::ConfigSeen;
use crate::state::rows::consumer_group::GroupRow;
use crate::state::rows::counter::{Counter, CounterName};
use crate::state::rows::group_age::AgeRow;
use crate::state::rows::leader::LeaderReport;
use crate::state::rows::location::PartitionLocation;
use crate::state::rows::producer::Window;
use crate::state::rows::reassignment::Reassignment;
use crate::state::rows::replica_group::ReplicaGroup;
use crate::state::rows::seal::Seal;
use crate::state::rows::site::Level;
use crate::state::rows::stored_at::StoredAt;
use crate::state::rows::topic::Topic;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use weir_log::{FormatError, Log, Op, ReadError, StateKey, StateKind};
use weir_types::level::FIRST_LEVEL;
use weir_types::{GroupId, PartitionId, TopicName};

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
pub(crate) struct Tables {
    pub(crate) topics: BTreeMap<TopicName, Arc<Topic>>,
    pub(crate) producers: BTreeMap<(PartitionId, i64), Window>,
    pub(crate) group_offsets: BTreeMap<(String, PartitionId), CommittedOffset>,
    /// Bytes of metadata of all committed offsets.
    pub(crate) offsets_metadata_bytes: usize,
    pub(crate) groups: BTreeMap<String, GroupRow>,
    pub(crate) counters: BTreeMap<CounterName, u64>,
    /// Topic of each partition, by current id.
    pub(crate) partition_owner: BTreeMap<PartitionId, TopicName>,
    /// Partitions that have moved: by the number with which they were made, and the other way round.
    pub(crate) located: BTreeMap<PartitionId, PartitionLocation>,
    pub(crate) original_ids: BTreeMap<PartitionId, PartitionId>,
    /// Reassignments in progress, by future id.
    pub(crate) moves: BTreeMap<PartitionId, Reassignment>,
    /// Partitions that accept no more records.
    pub(crate) sealed: BTreeSet<PartitionId>,
    /// Storage clock of each group, and storage times of each partition.
    pub(crate) ages: BTreeMap<GroupId, AgeRow>,
    pub(crate) stored_at: BTreeMap<PartitionId, StoredAt>,
    /// Channels of the outbox.
    pub(crate) channels: BTreeMap<ChannelKey, ChannelRow>,
    /// Newest configuration version seen by the leaders of each group.
    pub(crate) configs_seen: BTreeMap<GroupId, u64>,
    /// Rows of other layers, by kind and key: pipelines, modules, and how far pipelines have read.
    pub(crate) others: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
}

impl Tables {
    /// Reads the rows of `log` that belong to groups accepted by `of`.
    pub(crate) fn read(log: &Log, of: impl Fn(GroupId) -> bool) -> Result<Self, ReadError> {
        let mut tables = Self::default();
        for kind in KEPT {
            for (key, value) in log.state_rows(kind)? {
                if StateKey::group(key.as_bytes()).is_some_and(&of) {
                    tables
                        .row(key.as_bytes(), Some(&value))
                        .map_err(|why| ReadError::Format {
                            row: describe_key(key.as_bytes()),
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
        of_partition.map(|(key, _)| Window::remove(key))
    }

    /// Applies a changed row. Kinds of other layers are left to their watchers.
    ///
    /// # Errors
    /// When the row cannot be decoded: a later release wrote it.
    pub(crate) fn row(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), FormatError> {
        let Some((kind, rest)) = key.split_first() else {
            return Ok(());
        };
        let Some(kind) = StateKind::from_byte(*kind) else {
            return Err(FormatError::Unknown {
                what: "a row",
                why: format!("there is no kind {kind}"),
            });
        };
        match kind {
            StateKind::Topic => self.topic_row(rest, value)?,
            StateKind::Producer => set(&mut self.producers, rest, value)?,
            StateKind::GroupOffset => self.offset_row(rest, value)?,
            StateKind::Group => set(&mut self.groups, rest, value)?,
            StateKind::Located => self.located_row(rest, value)?,
            StateKind::Move => set(&mut self.moves, rest, value)?,
            StateKind::StoredAt => set(&mut self.stored_at, rest, value)?,
            StateKind::Age => set(&mut self.ages, rest, value)?,
            StateKind::Channel => set(&mut self.channels, rest, value)?,
            StateKind::Sealed => {
                if let Some(partition) = Seal::parse_key(rest) {
                    match value {
                        Some(_) => drop(self.sealed.insert(partition)),
                        None => drop(self.sealed.remove(&partition)),
                    }
                }
            }
            StateKind::Heeded => {
                let seen = value.and_then(|v| ConfigSeen::decode(v).ok());
                self.configs_seen
                    .extend(ConfigSeen::parse_key(rest).zip(seen.map(|s| s.0)));
            }
            StateKind::Counter => {
                let next = value.and_then(|v| Counter::decode(v).ok());
                self.counters
                    .extend(Counter::parse_key(rest).zip(next.map(|n| n.0)));
            }
            kind if KEPT.contains(&kind) => {
                // Rows that are decoded on use must be decodable.
                match (kind, value) {
                    (StateKind::ReplicaGroup, Some(value)) => drop(ReplicaGroup::decode(value)?),
                    (StateKind::Leader, Some(value)) => drop(LeaderReport::decode(value)?),
                    _ => {}
                }
                let key = (kind as u8, rest.to_vec());
                match value {
                    Some(value) => drop(self.others.insert(key, value.to_vec())),
                    None => drop(self.others.remove(&key)),
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the row of kind `R` under `key`, if the row exists and can be decoded.
    pub(crate) fn other<R: Row>(&self, key: &R::Key) -> Option<R> {
        let value = self.others.get(&(R::KIND as u8, R::key(key).rest().to_vec()))?;
        R::decode(value).ok()
    }

    /// Returns all rows of kind `R`, with the undecoded values, in order of their keys.
    pub(crate) fn others_of<R: Row>(&self) -> impl Iterator<Item = (<R::Key as ToOwned>::Owned, &[u8])> {
        let rows = self.others.range((R::KIND as u8, R::PREFIX.to_vec())..);
        rows.map_while(|((kind, key), value)| {
            let is_kind = *kind == R::KIND as u8;
            Some((is_kind.then(|| key.strip_prefix(R::PREFIX))??, value))
        })
        .filter_map(|(key, value)| Some((R::parse_key(key)?, value.as_slice())))
    }

    /// Returns the next partition number of `group`.
    pub(crate) fn next_partition(&self, group: GroupId) -> u64 {
        let next = self.counters.get(&CounterName::NextPartition(group));
        next.copied().unwrap_or(1)
    }

    fn offset_row(&mut self, rest: &[u8], value: Option<&[u8]>) -> Result<(), FormatError> {
        let Some(key) = CommittedOffset::parse_key(rest) else {
            return Ok(());
        };
        let offset = value.map(CommittedOffset::decode).transpose()?;
        self.forget_metadata(&key);
        match offset {
            Some(offset) => {
                self.offsets_metadata_bytes += offset.metadata.len();
                self.group_offsets.insert(key, offset);
            }
            None => drop(self.group_offsets.remove(&key)),
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

    /// Returns the current id of the partition with the original id `identity`.
    pub(crate) fn current(&self, identity: PartitionId) -> PartitionId {
        self.located.get(&identity).map_or(identity, |l| l.at)
    }

    fn located_row(&mut self, rest: &[u8], value: Option<&[u8]>) -> Result<(), FormatError> {
        let Some(identity) = PartitionLocation::parse_key(rest) else {
            return Ok(());
        };
        let row = value.map(PartitionLocation::decode).transpose()?;
        let before = self.current(identity);
        self.original_ids.remove(&before);
        match row {
            Some(row) => {
                self.original_ids.insert(row.at, identity);
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
                    let identity = self.original_id(*partition);
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

    /// Returns the level of the site; nothing above is proposed.
    pub(crate) fn level(&self) -> u32 {
        self.other::<Level>(&()).map_or(FIRST_LEVEL, |level| level.0)
    }

    /// Returns the original id of the partition with the current id `at`.
    pub(crate) fn original_id(&self, at: PartitionId) -> PartitionId {
        self.original_ids.get(&at).copied().unwrap_or(at)
    }

    pub(crate) fn epoch_base(&self, at: PartitionId) -> i32 {
        let located = self.located.get(&self.original_id(at));
        located.filter(|l| l.at == at).map_or(0, |l| l.epoch_base)
    }

    /// Returns effects that drop a partition of the site's group with its windows and seal. The entry must
    /// also remove the reason for the partition.
    pub(crate) fn drop_partition(&self, partition: PartitionId) -> Vec<Op> {
        let mut ops = vec![Op::Drop { partition }];
        ops.extend(self.forget_producers(partition));
        if self.stored_at.contains_key(&partition) {
            ops.push(StoredAt::remove(&partition));
        }
        if self.sealed.contains(&partition) {
            ops.push(Seal::remove(&partition));
        }
        ops
    }

    /// Returns the row of a topic, which has the original ids of its partitions.
    pub(crate) fn topic_row_of(&self, topic: &Topic) -> Op {
        let mut stored = topic.clone();
        for partition in &mut stored.partitions {
            *partition = self.original_id(*partition);
        }
        Op::Put {
            key: Topic::key(&stored.name),
            value: stored.encode(self.level()),
        }
    }

    /// Returns true if `partition` stores a channel.
    pub(crate) fn is_channel(&self, partition: PartitionId) -> bool {
        self.channels.values().any(|row| row.at == partition)
    }

    pub(crate) fn absent(&self) -> Absent {
        // A row of a later release tells nothing: all nodes count as present.
        self.other::<Absent>(&()).unwrap_or_default()
    }
}

/// Sets or removes a row of a table.
fn set<R: Row>(
    rows: &mut BTreeMap<<R::Key as ToOwned>::Owned, R>,
    rest: &[u8],
    value: Option<&[u8]>,
) -> Result<(), FormatError>
where
    <R::Key as ToOwned>::Owned: Ord,
{
    let Some(key) = R::parse_key(rest) else {
        return Ok(());
    };
    match value.map(R::decode).transpose()? {
        Some(row) => drop(rows.insert(key, row)),
        None => drop(rows.remove::<<R::Key as ToOwned>::Owned>(&key)),
    }
    Ok(())
}

/// Formats the key of a row for errors.
pub(crate) fn describe_key(key: &[u8]) -> String {
    let (kind, rest) = key.split_first().unwrap_or((&0, &[]));
    match StateKind::from_byte(*kind) {
        Some(kind) => format!("row {kind:?} `{}`", rest.escape_ascii()),
        None => format!("row of kind {kind} `{}`", rest.escape_ascii()),
    }
}
