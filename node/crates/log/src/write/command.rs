//! Commands from the handle to the writer.

use crate::error::AppendError;
use crate::format::entry::{Entry, EntryId};
use crate::format::keys::StateKey;
use crate::read::snapshot::LogSnapshot;
use bytes::Bytes;
use weir_types::{Batch, GroupId, PartitionId};

/// Batches of another node's snapshot, kept until the installation.
pub(crate) struct Received {
    pub(crate) partition: PartitionId,
    pub(crate) batches: Vec<Batch>,
}

/// A snapshot of another node whose batches have all arrived.
pub(crate) struct Install {
    pub(crate) group: GroupId,
    pub(crate) applied: EntryId,
    pub(crate) state: Vec<(StateKey, Bytes)>,
}

/// Called once the entry is on the disk, or with the reason why the outcome is unknown.
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
    /// Writes and syncs a row outside of any entry.
    Local {
        key: StateKey,
        value: Vec<u8>,
        done: Flushed,
    },
    /// Removes the headers up to `upto`.
    Purge {
        group: GroupId,
        upto: u64,
        done: Flushed,
    },
    /// Takes a snapshot of the applied state.
    Snapshot {
        group: GroupId,
        done: Box<dyn FnOnce(Result<LogSnapshot, AppendError>) + Send>,
    },
    /// Keeps batches of another node's snapshot.
    Receive {
        received: Received,
        done: Flushed,
    },
    /// Replaces unreadable batches.
    Mend {
        received: Received,
        done: Box<dyn FnOnce(Result<usize, AppendError>) + Send>,
    },
    /// Writes the effects applied so far.
    Settle {
        done: Flushed,
    },
    /// Replaces this node's state by another node's snapshot.
    Install {
        install: Box<Install>,
        done: Flushed,
    },
    /// Removes a group.
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
