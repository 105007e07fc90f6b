//! Why a proposal did not become a committed entry.

use weir_log::AppendError;
use weir_types::ErrorKind;

/// Why a proposal did not become a committed entry.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProposeError {
    /// The term is over: nothing of this proposal happened.
    #[error("another term has begun")]
    Fenced,
    /// The entry was taken back before it was committed: nothing of it is left.
    #[error("entry was discarded before it was committed")]
    Discarded,
    /// The log did not take it, or stopped.
    #[error(transparent)]
    Log(#[from] AppendError),
}

impl ProposeError {
    /// What the caller does.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Fenced | Self::Discarded => ErrorKind::Retry,
            Self::Log(e) => e.kind(),
        }
    }
}
