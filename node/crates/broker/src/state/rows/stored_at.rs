//! Storage times of the offsets of a partition.

use crate::state::rows::{Row, parse_partition};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_log::{FormatError, StateKind};
use weir_types::{Offset, PartitionId};

/// Notes per partition: a resolution of 3 % of the retention time, and a low cost for ten thousand
/// partitions.
pub(crate) const NOTES_MAX: usize = 32;

/// Shortest interval of notes.
const NOTE_EVERY_MS: u64 = 30 * 1_000;

/// Interval of notes for partitions without retention, which may be set later.
const NOTE_FOR_EVER_MS: u64 = 24 * 3_600 * 1_000;

/// By which age of the group offsets of a partition were stored, ascending: all before the offset were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredAt(pub(crate) Vec<(Offset, u64)>);

impl StoredAt {
    /// Notes that all records before `end` are stored at `age_ms`, if a note is due for a retention of
    /// `retention_ms`. Returns true if the row has changed.
    pub(crate) fn note(
        &mut self,
        start: Offset,
        end: Offset,
        age_ms: u64,
        retention_ms: Option<u64>,
    ) -> bool {
        let every = retention_ms.map_or(NOTE_FOR_EVER_MS, |ms| (ms / NOTES_MAX as u64).max(NOTE_EVERY_MS));
        let is_due = match self.0.last() {
            None => end > start,
            Some((noted, at)) => end > *noted && age_ms >= at.saturating_add(every),
        };
        if !is_due {
            return false;
        }
        self.0.retain(|(offset, _)| *offset > start);
        self.0.push((end, age_ms));
        if self.0.len() > NOTES_MAX {
            // Thins out the older half.
            let half = NOTES_MAX / 2;
            let mut n = 0;
            self.0.retain(|_| {
                n += 1;
                n > half || n % 2 == 0
            });
        }
        true
    }

    /// Returns the offset before which all records were stored by `age_ms`.
    pub(crate) fn stored_by(&self, age_ms: u64) -> Option<Offset> {
        let older = self.0.iter().take_while(|(_, at)| *at <= age_ms);
        older.last().map(|(offset, _)| *offset)
    }
}

impl Row for StoredAt {
    const KIND: StateKind = StateKind::StoredAt;
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
        weir_log::decode("when a partition was stored", value)
    }
}
