//! Offsets that hold no records, and why: so that "next" is always defined and nothing is missing in silence.

use crate::Offset;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a range of offsets holds no records. The numbers are stored: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum GapReason {
    /// Older than the topic's retention allows.
    Expired = 1,
    /// Removed to stay within the node's disk budget.
    Evicted = 2,
    /// Damaged or gone from the disk.
    Lost = 3,
    /// Somebody deleted them.
    Deleted = 4,
}

impl GapReason {
    /// The reason stored as `tag`, if there is one.
    pub fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Expired),
            2 => Some(Self::Evicted),
            3 => Some(Self::Lost),
            4 => Some(Self::Deleted),
            _ => None,
        }
    }
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Lost => "lost",
            Self::Deleted => "deleted",
        })
    }
}

/// The offsets `[start, end)` hold no records, for `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First offset without a record.
    pub start: Offset,
    /// First offset after the gap.
    pub end: Offset,
    /// Why.
    pub reason: GapReason,
}
