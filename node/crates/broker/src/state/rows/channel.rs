//! Channels of the outbox.

use crate::state::rows::{Row, parse_partition};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_log::{FormatError, StateKind};
use weir_types::{GroupId, Offset, PartitionId};

/// A row under the home group and the number with which the partition was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChannelRow {
    /// The partition of the home group that stores the channel.
    pub(crate) at: PartitionId,
    /// Producer epoch of the channel. Incremented when the destination has forgotten the channel.
    pub(crate) epoch: i16,
    /// Offset at which the epoch began; sequences count from here.
    pub(crate) base: Offset,
}

/// Key of a channel: the home group, and the original id of the destination.
pub(crate) type ChannelKey = (GroupId, PartitionId);

impl Row for ChannelRow {
    const KIND: StateKind = StateKind::Channel;
    type Key = ChannelKey;

    fn key_bytes((home, to): &ChannelKey) -> Vec<u8> {
        [&home.0.to_be_bytes()[..], &to.0.to_be_bytes()].concat()
    }

    fn parse_key(bytes: &[u8]) -> Option<ChannelKey> {
        let (home, to) = bytes.split_first_chunk::<2>()?;
        Some((GroupId(u16::from_be_bytes(*home)), parse_partition(to)?))
    }

    fn encode(&self) -> Bytes {
        weir_log::encode(self)
    }

    fn decode(value: &[u8]) -> Result<Self, FormatError> {
        weir_log::decode("a channel of an outbox", value)
    }
}

impl ChannelRow {
    /// Returns the sequence of offset `at`. Sequences wrap at 2^31.
    pub(crate) fn sequence(&self, at: Offset) -> i32 {
        (at.get().saturating_sub(self.base.get()) & SEQUENCE_MASK) as i32
    }

    /// Returns the offset with `sequence` that is nearest to `from`, in either direction.
    pub(crate) fn find(&self, sequence: i32, from: Offset) -> Offset {
        let ahead = (sequence as u64).wrapping_sub(self.sequence(from) as u64) & SEQUENCE_MASK;
        if ahead > SEQUENCE_MASK / 2 {
            Offset::new(from.get().saturating_sub(SEQUENCE_MASK + 1 - ahead))
        } else {
            from.plus(ahead)
        }
    }
}

const SEQUENCE_MASK: u64 = i32::MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_lead_back_to_where_they_came_from() {
        let row = ChannelRow {
            at: PartitionId(7),
            epoch: 0,
            base: Offset::new(5),
        };
        for at in [5_u64, 6, 5 + (1 << 31), 5 + (1 << 31) - 1, 5 + (3 << 31) + 17] {
            let at = Offset::new(at);
            for from in [at, at.plus(10), Offset::new(at.get().saturating_sub(3).max(5))] {
                assert_eq!(row.find(row.sequence(at), from), at, "from {from}");
            }
        }
    }

    #[test]
    fn keys_are_read_as_they_were_written() {
        let channel = (GroupId(3), PartitionId(0x0102_0304));
        assert_eq!(
            ChannelRow::parse_key(ChannelRow::key(&channel).rest()),
            Some(channel)
        );
        assert_eq!(ChannelRow::parse_key(&[0, 1, 2]), None);
    }
}
