//! The stored position of a partition.

use crate::format::encoding::encode;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_types::Offset;

/// The row of a partition in `state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// First offset that may still be there.
    pub log_start: Offset,
    /// First offset not yet applied.
    pub committed_end: Offset,
    /// Bytes of all batches.
    pub bytes: u64,
    /// Largest timestamp of all records so far, in milliseconds.
    pub max_timestamp: i64,
    /// Records lost or evicted, ever.
    pub lost: u64,
    /// `committed_end` at the last row of the time index.
    pub indexed_end: Offset,
    /// Bytes since the last row of the time index.
    pub unindexed_bytes: u64,
}

impl Position {
    pub(crate) fn encode(&self) -> Bytes {
        encode(self)
    }

    pub(crate) fn decode(bytes: &Bytes) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}
