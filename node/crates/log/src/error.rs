//! Errors of the log, by operation.

use crate::format::encoding::FormatError;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, io};
use weir_types::{ErrorKind, Gap, PartitionId};

/// Missing data, exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Offsets whose records are lost.
    pub lost: Vec<(PartitionId, Gap)>,
    /// Other findings, in words.
    pub notes: Vec<String>,
}

impl Damage {
    /// Returns true when nothing is missing.
    pub fn is_none(&self) -> bool {
        self.lost.is_empty() && self.notes.is_empty()
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = self
            .lost
            .iter()
            .map(|(p, g)| format!("partition {p}: lost [{}, {})", g.start, g.end));
        let all: Vec<String> = lost.chain(self.notes.iter().cloned()).collect();
        f.write_str(&if all.is_empty() {
            "nothing".to_owned()
        } else {
            all.join("; ")
        })
    }
}

/// An append that was refused, or whose outcome is unknown.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk has too little space: nothing was written.
    #[error(
        "disk is nearly full: {free} bytes free, {reserve} are kept in reserve; free some space or lower retention"
    )]
    DiskFull {
        /// Free bytes of the disk.
        free: u64,
        /// Reserved bytes of the disk.
        reserve: u64,
    },
    /// The log is closed: nothing was written.
    #[error("log is closed")]
    Closed,
    /// A write failed and stopped the log: the outcome is unknown.
    #[error("outcome unknown, the log stopped: {0}")]
    Poisoned(Arc<str>),
}

impl AppendError {
    /// Returns the caller's way to react.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::DiskFull { .. } => ErrorKind::Retry,
            Self::Closed => ErrorKind::Closed,
            Self::Poisoned(_) => ErrorKind::UnknownOutcome,
        }
    }
}

/// Returns advice about an error of the operating system, where there is any.
fn advice(error: &io::Error) -> &'static str {
    let is = |errno: rustix::io::Errno| error.raw_os_error() == Some(errno.raw_os_error());
    if error.kind() == io::ErrorKind::PermissionDenied {
        ": it belongs to somebody else, or is closed to the user that the node runs as; nothing in it is damaged. Give it back \
         (`chown`, `chmod`)"
    } else if is(rustix::io::Errno::MFILE) || is(rustix::io::Errno::NFILE) {
        ": too many files are open; nothing in it is damaged. Raise the limit (`ulimit -n`, or LimitNOFILE= of its service)"
    } else if is(rustix::io::Errno::NOSPC) || is(rustix::io::Errno::DQUOT) {
        ": the disk is full; nothing in it is damaged. Free some space"
    } else if is(rustix::io::Errno::IO) {
        ": the disk reports an error; what it still reads is not damaged. Copy the directory to another disk"
    } else {
        ""
    }
}

/// A log that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the log open.
    #[error("`{}` is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The operating system refuses a file, which may be whole.
    #[error("cannot use `{}`{}", path.display(), advice(source))]
    Io {
        /// Directory or file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// A later release has written the data.
    #[error("data in `{}` is intact, but needs another release: {why}", path.display())]
    Newer {
        /// Directory or file.
        path: PathBuf,
        /// The unreadable form.
        why: FormatError,
    },
    /// The data is damaged, and the log does not open without a repair.
    #[error(
        "data in `{}` is damaged and does not open ({why}); at stake: {}. `weir scrub --data {} --repair` \
         rebuilds the log from all readable data and reports the losses",
        path.display(), stake(damage), path.display()
    )]
    Damaged {
        /// Directory or file.
        path: PathBuf,
        /// Reason.
        why: String,
        /// Endangered data.
        damage: Damage,
    },
}

/// Describes the endangered data, also when nothing is known of it.
fn stake(damage: &Damage) -> String {
    if damage.is_none() {
        "unknown, since the watermarks are gone or empty".to_owned()
    } else {
        damage.to_string()
    }
}

impl OpenError {
    /// Returns the caller's way to react.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Locked(_) => ErrorKind::Retry,
            Self::Io { .. } => ErrorKind::Internal,
            Self::Newer { .. } => ErrorKind::Invalid,
            Self::Damaged { .. } => ErrorKind::Corrupt,
        }
    }
}

/// Stored records that cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The partition does not exist.
    #[error("no partition {0}")]
    NoPartition(PartitionId),
    /// The index or a batch of the partition is damaged.
    #[error("index of partition {partition} is damaged near offset {near}: {why}; `weir scrub` says more")]
    Damaged {
        /// The partition.
        partition: PartitionId,
        /// Offset near the damage.
        near: u64,
        /// Reason.
        why: String,
    },
    /// An entry of a replica group is damaged or missing.
    #[error("entry {index} of the replica group's log cannot be read: {why}")]
    DamagedEntry {
        /// Index of the entry.
        index: u64,
        /// Reason.
        why: String,
    },
    /// A row exists but cannot be decoded.
    #[error("{row} exists but cannot be decoded: {why}")]
    Format {
        /// Name of the row.
        row: String,
        /// The unreadable form.
        why: FormatError,
    },
    /// The read failed for a temporary reason.
    #[error("cannot read now: {0}; try again")]
    Busy(String),
    /// The log is closed.
    #[error("log is closed")]
    Closed,
}

impl ReadError {
    /// Returns the caller's way to react.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoPartition(_) | Self::Format { .. } => ErrorKind::Invalid,
            Self::Damaged { .. } | Self::DamagedEntry { .. } => ErrorKind::Corrupt,
            Self::Busy(_) => ErrorKind::Retry,
            Self::Closed => ErrorKind::Closed,
        }
    }
}
