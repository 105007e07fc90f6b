//! The storage clock of a replica group.

use crate::state::rows::{Row, parse_group};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_log::{FormatError, StateKind};
use weir_types::GroupId;

/// Difference of the two clocks that is tolerated between readings: slewing by a time daemon, and scheduling.
pub(crate) const AGREE_WITHIN_MS: u64 = 2_000;

/// The row of a group's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AgeRow {
    /// Milliseconds counted.
    pub(crate) age_ms: u64,
    /// Time of day at the last write.
    pub(crate) wall_ms: i64,
    /// Latest time of day until then. A clock that was ahead of the current time was set back, or had been
    /// ahead: such a row tells nothing about the length of an absence.
    pub(crate) latest_ms: i64,
}

impl AgeRow {
    pub(crate) fn new(age_ms: u64, wall_ms: i64, latest_ms: i64) -> Self {
        Self {
            age_ms,
            wall_ms,
            latest_ms: latest_ms.max(wall_ms),
        }
    }

    /// Returns the milliseconds since the row was written, given the time of day `wall_ms`; zero if unknown.
    pub(crate) fn away_ms(&self, wall_ms: i64) -> u64 {
        let was_behind = self.wall_ms.saturating_add_unsigned(AGREE_WITHIN_MS) < self.latest_ms;
        if was_behind {
            0
        } else {
            u64::try_from(wall_ms.saturating_sub(self.wall_ms)).unwrap_or(0)
        }
    }
}

impl Row for AgeRow {
    const KIND: StateKind = StateKind::Age;
    type Key = GroupId;

    fn key_bytes(key: &GroupId) -> Vec<u8> {
        key.0.to_be_bytes().to_vec()
    }

    fn parse_key(bytes: &[u8]) -> Option<GroupId> {
        parse_group(bytes)
    }

    fn encode(&self) -> Bytes {
        weir_log::encode(self)
    }

    fn decode(value: &[u8]) -> Result<Self, FormatError> {
        weir_log::decode("the age of a group", value)
    }
}
