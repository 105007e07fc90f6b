//! Offsets without records, with the reason, so that "next" is always defined and no record goes missing in
//! silence.

use crate::id::Offset;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Reason for a range without records. The numbers are stored: never reuse a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum GapReason {
    /// Older than the topic's retention allows.
    Expired = 1,
    /// Removed to stay within the node's disk budget.
    Evicted = 2,
    /// Damaged or gone from the disk.
    Lost = 3,
    /// Deleted by a user.
    Deleted = 4,
}

impl GapReason {
    /// Returns the reason stored as `tag`, if known.
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

/// The offsets `[start, end)`, which hold no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First offset without a record.
    pub start: Offset,
    /// First offset after the gap.
    pub end: Offset,
    /// Reason.
    pub reason: GapReason,
}
