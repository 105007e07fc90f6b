//! What can go wrong, by what was asked.

use crate::format::encoding::FormatError;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, io};
use weir_types::{ErrorKind, Gap, PartitionId};

/// What is missing, exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Offsets whose records are lost.
    pub lost: Vec<(PartitionId, Gap)>,
    /// What else was found.
    pub notes: Vec<String>,
}

impl Damage {
    /// Whether nothing is missing.
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

/// What to do about an error of the operating system, where that is known.
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

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum OpenError {
    #[error("`{}` is in use by another process", .0.display())]
    Locked(PathBuf),
    #[error("cannot use `{}`{}", path.display(), advice(source))]
    Io { path: PathBuf, source: io::Error },
    #[error("data in `{}` is whole, and not for this release: {why}", path.display())]
    Newer { path: PathBuf, why: FormatError },
    #[error(
        "data in `{}` is damaged and does not open ({why}); at stake: {}. `weir scrub --data {} --repair` \
         makes it again from all that can be read, and says what is lost",
        path.display(), stake(damage), path.display()
    )]
    Damaged {
        path: PathBuf,
        why: String,
        damage: Damage,
    },
}

/// What is at stake where nothing is known to be.
fn stake(damage: &Damage) -> String {
    match damage.is_none() {
        true => "nobody knows, since the marks of how far it went are gone or name nothing".to_owned(),
        false => damage.to_string(),
    }
}

impl OpenError {
    /// What the caller does.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Locked(_) => ErrorKind::Retry,
            Self::Io { .. } => ErrorKind::Internal,
            Self::Newer { .. } => ErrorKind::Invalid,
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
    #[error("{row} is there and cannot be read: {why}")]
    Format { row: String, why: FormatError },
    #[error("cannot read now: {0}; try again")]
    Busy(String),
    #[error("log is closed")]
    Closed,
}

impl ReadError {
    /// What the caller does.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoPartition(_) | Self::Format { .. } => ErrorKind::Invalid,
            Self::Damaged { .. } | Self::DamagedEntry { .. } => ErrorKind::Corrupt,
            Self::Busy(_) => ErrorKind::Retry,
            Self::Closed => ErrorKind::Closed,
        }
    }
}
