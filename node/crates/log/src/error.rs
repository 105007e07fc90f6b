//! What can go wrong, by what was asked.

use crate::Damage;
use std::{io, path::PathBuf, sync::Arc};
use weir_types::{ErrorKind, PartitionId};

/// Why an entry was not taken, or what became of it.
#[derive(Clone, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum AppendError {
    #[error(
        "disk is nearly full: {free} bytes free, {reserve} are kept in reserve; free some space or lower retention"
    )]
    DiskFull { free: u64, reserve: u64 },
    #[error("log is closed")]
    Closed,
    #[error("outcome unknown, the log stopped: {0}")]
    Poisoned(Arc<str>),
}

impl AppendError {
    /// What the caller does.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::DiskFull { .. } => ErrorKind::Retry,
            Self::Closed => ErrorKind::Closed,
            Self::Poisoned(_) => ErrorKind::UnknownOutcome,
        }
    }
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum OpenError {
    #[error("`{}` is in use by another process", .0.display())]
    Locked(PathBuf),
    #[error("cannot use `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "data in `{}` is damaged and does not open ({why}); at stake: {damage}. `weir scrub --data {} --repair` sets \
         it aside and starts anew behind those offsets",
        path.display(), path.display()
    )]
    Damaged {
        path: PathBuf,
        why: String,
        damage: Damage,
    },
}

impl OpenError {
    /// What the caller does.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Locked(_) => ErrorKind::Retry,
            Self::Io { .. } => ErrorKind::Internal,
            Self::Damaged { .. } => ErrorKind::Corrupt,
        }
    }
}

/// Why stored records could not be read.
#[derive(Clone, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ReadError {
    #[error("no partition {0}")]
    NoPartition(PartitionId),
    #[error("index of partition {partition} is damaged near offset {near}: {why}; `weir scrub` says more")]
    Damaged {
        partition: PartitionId,
        near: u64,
        why: String,
    },
    #[error("entry {index} of the replica group's log cannot be read: {why}")]
    DamagedEntry { index: u64, why: String },
    #[error("cannot read now: {0}; try again")]
    Busy(String),
    #[error("log is closed")]
    Closed,
}

impl ReadError {
    /// What the caller does.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoPartition(_) => ErrorKind::Invalid,
            Self::Damaged { .. } | Self::DamagedEntry { .. } => ErrorKind::Corrupt,
            Self::Busy(_) => ErrorKind::Retry,
            Self::Closed => ErrorKind::Closed,
        }
    }
}
