//! What the handle asks of the writer.

use crate::error::AppendError;
use crate::format::entry::{Entry, EntryId};
use crate::format::keys::StateKey;
use crate::read::snapshot::LogSnapshot;
use bytes::Bytes;
use weir_types::{Batch, GroupId, PartitionId};

/// Batches of another's snapshot, to be kept until it is installed.
pub(crate) struct Received {
    pub(crate) partition: PartitionId,
    pub(crate) batches: Vec<Batch>,
}

/// Another's snapshot whose batches have all come.
pub(crate) struct Install {
    pub(crate) group: GroupId,
    pub(crate) applied: EntryId,
    pub(crate) state: Vec<(StateKey, Bytes)>,
}

/// Called once the entry is on the disk, or with why that is not known.
pub(crate) type Flushed = Box<dyn FnOnce(Result<(), AppendError>) + Send>;

pub(crate) enum Command {
    Append {
        entry: Entry,
        flushed: Flushed,
    },
    /// Removes the entries from `from` on, with their batches.
    Truncate {
        group: GroupId,
        from: u64,
        done: Flushed,
    },
    /// Writes a row that does not come from an entry, and syncs it.
    Local {
        key: StateKey,
        value: Vec<u8>,
        done: Flushed,
    },
    /// Forgets the headers up to `upto`.
    Purge {
        group: GroupId,
        upto: u64,
        done: Flushed,
    },
    /// Takes a snapshot of all that is applied.
    Snapshot {
        group: GroupId,
        done: Box<dyn FnOnce(Result<LogSnapshot, AppendError>) + Send>,
    },
    /// Keeps batches of another's snapshot until it is installed.
    Receive {
        received: Received,
        done: Flushed,
    },
    /// Puts batches in the place of those that cannot be read.
    Mend {
        received: Received,
        done: Box<dyn FnOnce(Result<usize, AppendError>) + Send>,
    },
    /// Writes what was applied so far.
    Settle {
        done: Flushed,
    },
    /// Makes another's snapshot this node's state.
    Install {
        install: Box<Install>,
        done: Flushed,
    },
    /// Removes all of a group.
    Forget {
        group: GroupId,
        done: Flushed,
    },
    Close {
        done: Flushed,
    },
}

impl Command {
    pub(crate) fn fail(self, error: AppendError) {
        match self {
            Self::Append { flushed: done, .. }
            | Self::Truncate { done, .. }
            | Self::Local { done, .. }
            | Self::Purge { done, .. }
            | Self::Receive { done, .. }
            | Self::Install { done, .. }
            | Self::Forget { done, .. }
            | Self::Settle { done }
            | Self::Close { done } => done(Err(error)),
            Self::Snapshot { done, .. } => done(Err(error)),
            Self::Mend { done, .. } => done(Err(error)),
        }
    }
}
