//! Committed offsets of consumer groups.

use serde::{Deserialize, Serialize};
use weir_log::{StateKey, StateKind};
use weir_types::{Offset, PartitionId};

pub(crate) fn group_key(group: &str, partition: PartitionId) -> StateKey {
    // The partition stands at the end at a fixed length: names need no terminator.
    let rest = [group.as_bytes(), &partition.0.to_be_bytes()].concat();
    StateKey::new(StateKind::GroupOffset, &rest)
}

pub(crate) fn split_group_key(rest: &[u8]) -> Option<(String, PartitionId)> {
    let (name, partition) = rest.split_last_chunk::<4>()?;
    Some((
        String::from_utf8(name.to_vec()).ok()?,
        PartitionId(u32::from_be_bytes(*partition)),
    ))
}

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
