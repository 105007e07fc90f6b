//! Locations of reassigned partitions.

use crate::state::rows::{Row, parse_partition};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_log::{FormatError, StateKind};
use weir_types::PartitionId;

/// Current location of a reassigned partition, stored under its original id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartitionLocation {
    pub(crate) at: PartitionId,
    /// Number to add to terms of the group, so that leader epochs ascend.
    pub(crate) epoch_base: i32,
}

impl Row for PartitionLocation {
    const KIND: StateKind = StateKind::Located;
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
        weir_log::decode("the place of a partition", value)
    }
}
