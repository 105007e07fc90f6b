//! Partitions that are being reassigned.

use crate::state::rows::{Row, parse_partition};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_log::{FormatError, StateKind};
use weir_types::{PartitionId, TopicName};

/// A reassignment in progress, stored under the future id of the partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reassignment {
    pub(crate) topic: TopicName,
    pub(crate) index: u32,
    pub(crate) from: PartitionId,
}

impl Row for Reassignment {
    const KIND: StateKind = StateKind::Move;
    type Key = PartitionId;

    fn key_bytes(key: &PartitionId) -> Vec<u8> {
        key.0.to_be_bytes().to_vec()
    }

    fn parse_key(bytes: &[u8]) -> Option<PartitionId> {
        parse_partition(bytes)
    }

    fn encode(&self) -> Bytes {
        weir_log::encode(self)
    }

    fn decode(value: &[u8]) -> Result<Self, FormatError> {
        weir_log::decode("a move of a partition", value)
    }
}
