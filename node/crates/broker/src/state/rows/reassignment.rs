//! Partitions that are being reassigned.

use serde::{Deserialize, Serialize};
use weir_log::{Op, StateKey, StateKind, encode};
use weir_types::{PartitionId, TopicName};

pub(crate) fn split_partition(rest: &[u8]) -> Option<PartitionId> {
    Some(PartitionId(u32::from_be_bytes(*rest.first_chunk()?)))
}

/// A partition on its way: a row under the number that it will have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Move {
    pub(crate) topic: TopicName,
    pub(crate) index: u32,
    pub(crate) from: PartitionId,
}

pub(crate) fn partition_key(kind: StateKind, partition: PartitionId) -> StateKey {
    StateKey::new(kind, &partition.0.to_be_bytes())
}

pub(crate) fn put_partition<T: Serialize>(kind: StateKind, partition: PartitionId, row: &T) -> Op {
    Op::Put {
        key: partition_key(kind, partition),
        value: encode(row),
    }
}
