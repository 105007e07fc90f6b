//! Why a batch is not taken.

use crate::stages::effects::TooMuch;
use crate::stages::output::AssembleError;
use weir_broker::ReadError;
use weir_types::BatchError;

/// Why a batch is not taken.
pub(crate) enum Refusal {
    /// The pipeline stops.
    Halt(String),
    /// Another node leads the partition.
    NotLeader,
    /// What comes before it cannot be stored at present: the disk may be full.
    Busy,
    /// What it comes to is too much for one entry.
    TooMuch(TooMuch),
}

impl From<BatchError> for Refusal {
    /// Walked at the door: what is malformed now would be our own doing.
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
        Self::Halt(format!("what its modules remember cannot be read: {e}"))
    }
}
