//! Committed offsets of consumer groups.

use crate::state::rows::Row;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_log::{FormatError, StateKind};
use weir_types::{Offset, PartitionId};

/// How far a group has read a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedOffset {
    /// The next offset that it wants; numbers below zero, which clients have a meaning for, as two's complement.
    pub(crate) offset: u64,
    /// Epoch of the leader that it read from; -1 if it did not say.
    pub leader_epoch: i32,
    /// Whatever it wanted to remember with it.
    pub metadata: String,
    /// When it was committed, in milliseconds.
    pub committed_ms: i64,
}

impl CommittedOffset {
    /// The number that was committed. Below zero it is no position, and its meaning is the client's: -1 is the end for many, -2 the start.
    pub fn number(&self) -> i64 {
        self.offset as i64
    }

    /// The next offset that the group wants, if the number is one.
    pub fn position(&self) -> Option<Offset> {
        (self.number() >= 0).then(|| Offset::new(self.offset))
    }
}

impl Row for CommittedOffset {
    const KIND: StateKind = StateKind::GroupOffset;
    type Key = (String, PartitionId);

    // The partition stands at the end with a fixed length: names need no terminator.
    fn key_bytes((group, partition): &(String, PartitionId)) -> Vec<u8> {
        [group.as_bytes(), &partition.0.to_be_bytes()].concat()
    }

    fn parse_key(bytes: &[u8]) -> Option<(String, PartitionId)> {
        let (name, partition) = bytes.split_last_chunk::<4>()?;
        let name = String::from_utf8(name.to_vec()).ok()?;
        Some((name, PartitionId(u32::from_be_bytes(*partition))))
    }

    fn encode(&self) -> Bytes {
        weir_log::encode(self)
    }

    fn decode(value: &[u8]) -> Result<Self, FormatError> {
        weir_log::decode("a committed offset", value)
    }
}
