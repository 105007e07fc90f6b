//! Errors of batches.

use crate::kind::ErrorKind;

/// Bytes that are not a valid record batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("batch is cut short: {have} bytes of {need}")]
    Short {
        /// Actual bytes.
        have: usize,
        /// Needed bytes.
        need: usize,
    },
    /// The batch has another version than 2.
    #[error("batch has magic {0}: only version 2 is accepted")]
    Magic(i8),
    /// The batch is over the limit.
    #[error("batch of {have} bytes is over the limit of {limit}")]
    TooLarge {
        /// Actual bytes.
        have: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// The checksum does not match.
    #[error("batch checksum is {have:08x}, its bytes make {made:08x}")]
    Checksum {
        /// Stored checksum.
        have: u32,
        /// Computed checksum.
        made: u32,
    },
    /// The codec is unknown.
    #[error("batch names compression codec {0}, known are 0 (none) to 4 (zstd)")]
    Codec(u8),
    /// The record count is impossible.
    #[error("batch claims {0} records: impossible for its size, or over the limit")]
    Count(i64),
    /// The last offset delta does not fit the record count.
    #[error("batch has a last offset delta of {last} for {count} records")]
    Delta {
        /// Stored last offset delta.
        last: i64,
        /// Stored record count.
        count: u32,
    },
    /// A record is malformed.
    #[error("record {index} of the batch is malformed: {what}")]
    Record {
        /// Index of the record in the batch.
        index: u32,
        /// The malformed part.
        what: &'static str,
    },
    /// The records do not decompress.
    #[error("batch does not decompress as {codec}: {why}")]
    Inflate {
        /// Name of the codec.
        codec: &'static str,
        /// Reason.
        why: String,
    },
    /// The records decompress beyond the limit.
    #[error("batch of {have} bytes inflates beyond {limit}: send fewer records at once")]
    Bomb {
        /// Compressed bytes.
        have: usize,
        /// Limit in bytes.
        limit: usize,
    },
}

impl BatchError {
    /// Returns [`ErrorKind::Invalid`], for bytes from a client. Readers of the disk report the same error as
    /// corrupt.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}
