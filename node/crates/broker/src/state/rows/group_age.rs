//! The storage clock of a replica group.

use crate::state::rows::{Row, parse_group};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_log::{FormatError, StateKind};
use weir_types::GroupId;

/// The two may differ by so much from one look to the next: what a time daemon slews, and the scheduler.
pub(crate) const AGREE_WITHIN_MS: u64 = 2_000;

/// The row of a group's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AgeRow {
    /// Milliseconds that it has counted.
    pub(crate) age_ms: u64,
    /// What time of day it was then,
    pub(crate) wall_ms: i64,
    /// and the latest that was seen until then. A clock that is behind that was set back, or had been ahead: nothing is told by it
    /// of how long a node was away.
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

    /// How long ago it was written, if it is `wall_ms` now; nothing where that is not known.
    pub(crate) fn away_ms(&self, wall_ms: i64) -> u64 {
        let was_behind = self.wall_ms.saturating_add_unsigned(AGREE_WITHIN_MS) < self.latest_ms;
        match was_behind {
            true => 0,
            false => u64::try_from(wall_ms.saturating_sub(self.wall_ms)).unwrap_or(0),
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
