//! Seals of partitions that accept no more records.

use crate::state::rows::{Row, parse_partition};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_log::{FormatError, StateKind};
use weir_types::PartitionId;

/// Seal of a partition, with the partition that continues it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seal(pub(crate) PartitionId);

impl Row for Seal {
    const KIND: StateKind = StateKind::Sealed;
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
        weir_log::decode("the seal of a partition", value)
    }
}
