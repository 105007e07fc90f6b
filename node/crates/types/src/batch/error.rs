//! What can be wrong with a batch.

use crate::ErrorKind;

/// Why bytes are not a record batch that Weir takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum BatchError {
    #[error("batch is cut short: {have} bytes of {need}")]
    Short { have: usize, need: usize },
    #[error("batch has magic {0}, only version 2 is taken")]
    Magic(i8),
    #[error("batch of {have} bytes is over the limit of {limit}")]
    TooLarge { have: usize, limit: usize },
    #[error("batch checksum is {have:08x}, its bytes make {made:08x}")]
    Checksum { have: u32, made: u32 },
    #[error("batch names compression codec {0}, known are 0 (none) to 4 (zstd)")]
    Codec(u8),
    #[error("batch claims {0} records, which its bytes or the limit rule out")]
    Count(i64),
    #[error("batch has a last offset delta of {last} for {count} records")]
    Delta { last: i64, count: u32 },
    #[error("record {index} of the batch is malformed: {what}")]
    Record { index: u32, what: &'static str },
    #[error("batch does not decompress as {codec}: {why}")]
    Inflate { codec: &'static str, why: String },
    #[error("batch of {have} bytes inflates beyond {limit}: send fewer records at once")]
    Bomb { have: usize, limit: usize },
}

impl BatchError {
    /// Always [`ErrorKind::Invalid`] from a client; what reads the disk reports the same bytes as corrupt.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}
