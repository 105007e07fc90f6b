//! Committed offsets of consumer groups.

use crate::state::rows::Row;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_log::{FormatError, StateKind};
use weir_types::{Offset, PartitionId};

/// Committed offset of a group for a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedOffset {
    /// The committed number, as two's complement: clients give negative numbers a meaning.
    pub(crate) offset: u64,
    /// Epoch of the leader that the group read from; -1 if unknown.
    pub leader_epoch: i32,
    /// Metadata of the client.
    pub metadata: String,
    /// Time of the commit in milliseconds since 1970.
    pub committed_ms: i64,
}

impl CommittedOffset {
    /// Returns the committed number. Negative numbers are no offsets: for many clients, -1 is the end and -2
    /// the start.
    pub fn number(&self) -> i64 {
        self.offset as i64
    }

    /// Returns the next offset to read, if the number is an offset.
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
