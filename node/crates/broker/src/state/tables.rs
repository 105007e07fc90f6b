//! Tables of the committed rows.

use crate::state::rows::absent::{ABSENT_ROW, Absent};
use crate::state::rows::channel::{ChannelKey, ChannelRow, split_channel_key};
use crate::state::rows::committed_offset::{CommittedOffset, split_group_key};
use crate::state::rows::consumer_group::GroupRow;
use crate::state::rows::counter::{partition_counter, read_u64};
use crate::state::rows::group_age::AgeRow;
use crate::state::rows::leader::Led;
use crate::state::rows::location::Located;
use crate::state::rows::producer::{Window, producer_key, split_producer_key};
use crate::state::rows::reassignment::{Move, partition_key, split_partition};
use crate::state::rows::replica_group::ReplicaGroup;
use crate::state::rows::site::LEVEL_ROW;
use crate::state::rows::stored_at::StoredAt;
use crate::state::rows::topic::{Topic, topic_key};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use weir_log::{FormatError, Log, Op, ReadError, StateKey, StateKind, decode};
use weir_types::level::FIRST_LEVEL;
use weir_types::{GroupId, PartitionId, TopicName};

/// The number of the next partition of `group`.
pub(crate) fn next_partition(tables: &Tables, group: GroupId) -> u64 {
    tables
        .counters
        .get(&partition_counter(group))
        .copied()
        .unwrap_or(1)
}

/// Kinds whose rows are kept in [`Tables`].
pub(crate) const KEPT: [StateKind; 18] = [
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

impl Tables {
    /// The rows of `log` that belong to the groups of which `of` is true.
    pub(crate) fn read(log: &Log, of: impl Fn(GroupId) -> bool) -> Result<Self, ReadError> {
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
    pub(crate) fn row(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), FormatError> {
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
            let Some(channel) = split_channel_key(rest) else {
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
                    decode::<ReplicaGroup>("a replica group", value)?;
                } else if *kind == StateKind::Leader as u8 {
                    decode::<Led>("the leader of a replica group", value)?;
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

/// A key of a row, for people.
pub(crate) fn told(key: &[u8]) -> String {
    let (kind, rest) = key.split_first().unwrap_or((&0, &[]));
    match StateKind::from_byte(*kind) {
        Some(kind) => format!("row {kind:?} `{}`", rest.escape_ascii()),
        None => format!("row of kind {kind} `{}`", rest.escape_ascii()),
    }
}

impl Tables {
    /// The level of the site, as applied: nothing above it is proposed.
    pub(crate) fn level(&self) -> u32 {
        let row = self.others.get(&(StateKind::Site as u8, LEVEL_ROW.to_vec()));
        let level = row
            .and_then(|row| row.first_chunk())
            .map(|row| u32::from_be_bytes(*row));
        level.unwrap_or(FIRST_LEVEL)
    }
}

impl Tables {
    /// The number that the partition `at` was made with.
    pub(crate) fn identity(&self, at: PartitionId) -> PartitionId {
        self.identities.get(&at).copied().unwrap_or(at)
    }

    pub(crate) fn epoch_base(&self, at: PartitionId) -> i32 {
        let located = self.located.get(&self.identity(at));
        located.filter(|l| l.at == at).map_or(0, |l| l.epoch_base)
    }

    /// Removes a partition of the site's group, the windows of its producers, and its seal: the entry that does this says
    /// why it is gone, too.
    pub(crate) fn drop_partition(&self, partition: PartitionId) -> Vec<Op> {
        let mut ops = vec![Op::Drop { partition }];
        ops.extend(self.forget_producers(partition));
        if self.stored_at.contains_key(&partition) {
            ops.push(Op::Remove {
                key: partition_key(StateKind::StoredAt, partition),
            });
        }
        if self.sealed.contains(&partition) {
            ops.push(Op::Remove {
                key: partition_key(StateKind::Sealed, partition),
            });
        }
        ops
    }

    /// The row of a topic, which has the numbers that its partitions were made with.
    pub(crate) fn topic_row_of(&self, topic: &Topic) -> Op {
        let mut stored = topic.clone();
        for partition in &mut stored.partitions {
            *partition = self.identity(*partition);
        }
        Op::Put {
            key: topic_key(&stored.name),
            value: stored.encode(self.level()),
        }
    }
}

impl Tables {
    /// Whether `partition` is a channel's.
    pub(crate) fn is_channel(&self, partition: PartitionId) -> bool {
        self.channels.values().any(|row| row.at == partition)
    }
}

impl Tables {
    pub(crate) fn absent(&self) -> Absent {
        let row = self.others.get(&(StateKind::Site as u8, ABSENT_ROW.to_vec()));
        // Of a later release's row this one knows nothing, and takes all for present.
        row.and_then(|row| decode("who is absent", row).ok())
            .unwrap_or_default()
    }
}
