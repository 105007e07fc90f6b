//! The whole on-disk schema on a single screen.
//!
//! Keyspaces of the database, keys big-endian:
//!
//! | keyspace | key | value |
//! | --- | --- | --- |
//! | `rlog` | group u16, index u64 | entry header: own CRC, CRC of the header before, ops ([`crate::format::entry`]) |
//! | `data` | partition u32, base offset u64 | a RecordBatch v2, KV-separated from 1 KiB, or a pointer into the value log |
//! | `state` | kind u8, … by kind | see [`StateKind`] |
//!
//! Beside the database: `watermark.a` and `.b` ([`crate::store::watermark`]), `values/*.val`
//! ([`crate::store::value_log`]), and `rows.copy`, a second copy of some rows of `state`
//! ([`crate::store::rows_copy`]).

use weir_types::{GroupId, Offset, PartitionId};

/// Kind of a row of `state`. Numbers are stored: never renumber, never reuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum StateKind {
    /// group u16 -> index u64, term u64 of the last entry whose effects are in `state`. Kept by the log.
    Applied = 1,
    /// partition u32 -> [`crate::format::position::Position`]. Kept by the log.
    Position = 2,
    /// partition u32, start u64 -> end u64, reason u8. Kept by the log.
    Gap = 3,
    /// partition u32, end u64 -> largest timestamp i64 of all before it; a row per MiB. Kept by the log.
    TimeIndex = 4,
    /// group u16 -> index u64, crc u32, term u64 of the last purged header. Kept by the log.
    Purged = 5,
    /// segment u32 -> bytes u64 of its frames that rows of `data` point to. Kept by the log.
    Segment = 6,
    /// group u16 -> the vote of this node, as consensus encodes it. The replica's, and this node's alone.
    Vote = 7,
    /// group u16 -> the group's members as of an entry, as consensus encodes them. Kept by the replica.
    Members = 8,
    /// partition u32, base offset u64 -> as in `data`: a batch of another's snapshot that is not yet
    /// installed. Kept by the log.
    Incoming = 9,
    /// topic name -> its settings and partitions. Kept by the broker.
    Topic = 16,
    /// partition u32, producer id u64 -> its last batches. Kept by the broker.
    Producer = 17,
    /// group name, partition u32 -> committed offset. Kept by the broker.
    GroupOffset = 18,
    /// counter's name -> next number. Kept by the broker.
    Counter = 19,
    /// pipeline name -> its definition and state. Kept by the pipelines.
    Pipeline = 20,
    /// sha-256 -> name, version, size. Kept by the pipelines.
    Module = 21,
    /// group name -> its members and their assignments. Kept by the broker.
    Group = 22,
    /// sha-256, part u32 -> a part of the module's bytes. Kept by the pipelines.
    ModulePart = 23,
    /// `id` -> the site's name among sites; `node` -> the last assigned node number; `token` and its hash ->
    /// expiry of the invitation; `leaving` and a node u64 -> nothing: the node gets no replicas. Kept by the
    /// node.
    Site = 24,
    /// group u16 -> the nodes that have it, as decided. Kept by the broker.
    ReplicaGroup = 25,
    /// group u16 -> who leads it, as last heard. Kept by the broker.
    Leader = 26,
    /// original partition u32 -> the place where the partition is kept now. Kept by the broker.
    Located = 27,
    /// partition u32 -> the partition that replaces the moving source. Kept by the broker.
    Move = 28,
    /// partition u32 -> the partition that continues a sealed partition. Kept by the broker.
    Sealed = 29,
    /// group u16 -> index u64, term u64 of the last entry that this node had before it forgot the group. Kept
    /// by the log.
    Forgotten = 30,
    /// group u16 -> version u64 of the row of [`StateKind::ReplicaGroup`] that the group's leaders have heard
    /// of. Kept by the broker in that group.
    Heeded = 31,
    /// pipeline name, 0, stage u8, partition u32, key -> a value that a module keeps. Kept by the pipelines.
    Table = 32,
    /// pipeline name, 0, stage u8, partition u32, clock u8, tag u32, key -> when a timer is due i64. The
    /// pipelines'.
    Timer = 33,
    /// pipeline name, 0, partition u32 -> event time of the pipeline on the partition. Kept by the pipelines.
    Progress = 34,
    /// pipeline name, 0, partition u32, topic name -> partition and offset read so far. Kept by the
    /// pipelines.
    Input = 35,
    /// pipeline name, 0, revision u64 -> spec of the revision, with its time and author. Kept by the
    /// pipelines.
    Revision = 36,
    /// home group u16, original partition u32 -> partition of the waiting output. Kept by the broker.
    Channel = 37,
    /// partition u32 -> when stretches of it were stored, by the clock of [`StateKind::Age`]. The broker's,
    /// since level 2.
    StoredAt = 38,
    /// group u16 -> how long the group has stored for, by clocks that could be trusted. The broker's, since
    /// level 2.
    Age = 39,
    /// nothing -> number u64 of the last frame of the second copy of rows that was written before this row.
    /// Kept by the log.
    Copied = 40,
}

impl StateKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 34] = [
        Self::Applied,
        Self::Position,
        Self::Gap,
        Self::TimeIndex,
        Self::Purged,
        Self::Segment,
        Self::Vote,
        Self::Members,
        Self::Incoming,
        Self::Topic,
        Self::Producer,
        Self::GroupOffset,
        Self::Counter,
        Self::Pipeline,
        Self::Module,
        Self::Group,
        Self::ModulePart,
        Self::Site,
        Self::ReplicaGroup,
        Self::Leader,
        Self::Located,
        Self::Move,
        Self::Sealed,
        Self::Forgotten,
        Self::Heeded,
        Self::Table,
        Self::Timer,
        Self::Progress,
        Self::Input,
        Self::Revision,
        Self::Channel,
        Self::StoredAt,
        Self::Age,
        Self::Copied,
    ];

    /// Returns the kind with the number `byte`, or `None` for a kind of a later release.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// Returns the scope of rows of this kind.
    fn scope(self) -> Scope {
        match self {
            Self::Applied
            | Self::Purged
            | Self::Segment
            | Self::Vote
            | Self::Incoming
            | Self::Forgotten
            | Self::Copied => Scope::Node,
            Self::Members | Self::Heeded | Self::Age => Scope::Group,
            Self::Position | Self::Gap | Self::TimeIndex | Self::Producer | Self::Sealed | Self::StoredAt => {
                Scope::Partition
            }
            Self::Topic
            | Self::GroupOffset
            | Self::Counter
            | Self::Pipeline
            | Self::Module
            | Self::Group
            | Self::ModulePart
            | Self::Site
            | Self::ReplicaGroup
            | Self::Leader
            | Self::Located
            | Self::Move
            | Self::Table
            | Self::Timer
            | Self::Progress
            | Self::Input
            | Self::Revision
            | Self::Channel => Scope::Site,
        }
    }
}

/// The nodes that share a row.
enum Scope {
    /// This node alone.
    Node,
    /// The replicas of the group that its key begins with.
    Group,
    /// The replicas of the group of the partition that the key begins with.
    Partition,
    /// All nodes of the site.
    Site,
}

/// Key of a row of `state`: its kind and what follows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateKey(Vec<u8>);

impl StateKey {
    /// Makes the key of `kind` that ends in `rest`.
    pub fn new(kind: StateKind, rest: &[u8]) -> Self {
        let mut key = Vec::with_capacity(1 + rest.len());
        key.push(kind as u8);
        key.extend_from_slice(rest);
        Self(key)
    }

    /// Returns the group whose replicas share the row, or `None` for a row of this node alone or of an
    /// unknown kind.
    pub fn group(bytes: &[u8]) -> Option<GroupId> {
        let (kind, rest) = bytes.split_first()?;
        match StateKind::from_byte(*kind)?.scope() {
            Scope::Node => None,
            Scope::Group => Some(GroupId(u16::from_be_bytes(*rest.first_chunk()?))),
            Scope::Partition => Some(PartitionId(u32::from_be_bytes(*rest.first_chunk()?)).group()),
            Scope::Site => Some(GroupId::SITE),
        }
    }

    /// Makes a key from its stored bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Returns the whole key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the key after its kind.
    pub fn rest(&self) -> &[u8] {
        self.0.get(1..).unwrap_or_default()
    }

    pub(crate) fn partition(kind: StateKind, partition: PartitionId) -> Self {
        Self::new(kind, &partition.0.to_be_bytes())
    }

    pub(crate) fn partition_offset(kind: StateKind, partition: PartitionId, at: Offset) -> Self {
        Self::new(kind, &data_key(partition, at))
    }
}

pub(crate) fn rlog_key(group: GroupId, index: u64) -> [u8; 10] {
    let mut key = [0; 10];
    key[..2].copy_from_slice(&group.0.to_be_bytes());
    key[2..].copy_from_slice(&index.to_be_bytes());
    key
}

pub(crate) fn rlog_index(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.get(2..)?.first_chunk()?))
}

pub(crate) fn data_key(partition: PartitionId, base: Offset) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&partition.0.to_be_bytes());
    key[4..].copy_from_slice(&base.get().to_be_bytes());
    key
}

/// Splits a key that ends in a partition and an offset.
pub(crate) fn split_data_key(key: &[u8]) -> Option<(PartitionId, Offset)> {
    let (partition, rest) = key.split_first_chunk::<4>()?;
    let offset = u64::from_be_bytes(*rest.first_chunk::<8>()?);
    Some((PartitionId(u32::from_be_bytes(*partition)), Offset::new(offset)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_kind_that_a_snapshot_has_is_in_its_budget() {
        let budget = weir_types::limits::SNAPSHOT_BUDGET;
        for kind in StateKind::ALL {
            let is_there = budget.iter().any(|(name, _)| *name == format!("{kind:?}"));
            assert_eq!(is_there, !matches!(kind.scope(), Scope::Node), "{kind:?}");
        }
    }

    proptest! {
        #[test]
        fn data_keys_round_trip_and_sort_like_offsets(p in any::<u32>(), a in 0..i64::MAX as u64, b in 0..i64::MAX as u64) {
            let (a, b) = (Offset::new(a), Offset::new(b));
            let (ka, kb) = (data_key(PartitionId(p), a), data_key(PartitionId(p), b));
            prop_assert_eq!(split_data_key(&ka), Some((PartitionId(p), a)));
            prop_assert_eq!(ka.cmp(&kb), a.cmp(&b));
        }

        #[test]
        fn rlog_keys_round_trip(g in any::<u16>(), i in any::<u64>()) {
            prop_assert_eq!(rlog_index(&rlog_key(GroupId(g), i)), Some(i));
        }

        #[test]
        fn arbitrary_keys_never_panic(key in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = (rlog_index(&key), split_data_key(&key));
        }
    }
}
