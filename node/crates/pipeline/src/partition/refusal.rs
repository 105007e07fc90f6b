//! Reason for not processing a batch.

use crate::stages::effects::TooMuch;
use crate::stages::output::AssembleError;
use weir_broker::ReadError;
use weir_types::BatchError;

/// Reason for not processing a batch.
pub(crate) enum Refusal {
    /// The pipeline halts.
    Halt(String),
    /// Another node leads the partition.
    NotLeader,
    /// A step before cannot be stored at present, for instance on a full disk.
    Busy,
    /// The result exceeds an entry.
    TooMuch(TooMuch),
}

impl From<BatchError> for Refusal {
    /// A malformed batch. Batches are validated on arrival, so this would be a bug.
    fn from(e: BatchError) -> Self {
        Self::Halt(format!("batch cannot be read: {e}"))
    }
}

impl From<AssembleError> for Refusal {
    fn from(e: AssembleError) -> Self {
        match e {
            AssembleError::Batch(e) => e.into(),
            AssembleError::Gone(what) => Self::Halt(what),
            AssembleError::Blocked => Self::Busy,
        }
    }
}

impl From<ReadError> for Refusal {
    fn from(e: ReadError) -> Self {
        Self::Halt(format!("state cannot be read: {e}"))
    }
}
