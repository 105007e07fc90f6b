//! Errors of proposals and of groups.

use crate::types::NodeId;
use weir_log::AppendError;
use weir_types::ErrorKind;

/// A proposal that did not become a committed entry.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead: nothing of the proposal happened.
    #[error("{}", not_leader(*leader))]
    NotLeader {
        /// The leader, as far as known.
        leader: Option<NodeId>,
    },
    /// The leader changed, or could not reach most voters, before the proposal was known to be committed.
    #[error("outcome unknown: the leader changed, or lost its majority, before the entry was committed")]
    Unknown,
    /// The proposal is larger than an entry may be: nothing of it happened, and nothing will.
    #[error("the proposal of {bytes} bytes is over the limit of {limit} for an entry: send less at once")]
    TooLarge {
        /// Bytes of the proposal's ops.
        bytes: usize,
        /// Limit of bytes.
        limit: usize,
    },
    /// The log refused the proposal, or stopped.
    #[error(transparent)]
    Log(#[from] AppendError),
}

fn not_leader(leader: Option<NodeId>) -> String {
    match leader {
        Some(id) => format!("node {id} leads: ask there"),
        None => "nobody leads at the moment, most nodes of the site may be away: try again".to_owned(),
    }
}

impl ProposeError {
    /// Returns the caller's way to react.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotLeader { .. } => ErrorKind::Retry,
            Self::Unknown => ErrorKind::UnknownOutcome,
            Self::TooLarge { .. } => ErrorKind::Invalid,
            Self::Log(e) => e.kind(),
        }
    }
}

/// A group that cannot be opened, or a change of members that failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GroupError {
    /// This node does not lead.
    #[error("{}", not_leader(*leader))]
    NotLeader {
        /// The leader, as far as known.
        leader: Option<NodeId>,
    },
    /// The change is not possible now, or at all.
    #[error("{0}")]
    Refused(String),
    /// The log or consensus stopped.
    #[error("replication stopped: {0}")]
    Stopped(String),
}

impl GroupError {
    /// Returns the caller's way to react.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotLeader { .. } => ErrorKind::Retry,
            Self::Refused(_) => ErrorKind::Invalid,
            Self::Stopped(_) => ErrorKind::Closed,
        }
    }
}
