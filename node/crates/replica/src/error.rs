//! Why a proposal did not become a committed entry.

use crate::types::NodeId;
use weir_log::AppendError;
use weir_types::ErrorKind;

/// Why a proposal did not become a committed entry.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead: nothing of this proposal happened.
    #[error("{}", not_leader(*leader))]
    NotLeader {
        /// Who does, as far as is known.
        leader: Option<NodeId>,
    },
    /// The leader changed, or could not reach most of the others, before it was known to be committed.
    #[error("outcome unknown: the leader changed, or lost the others, before most had it")]
    Unknown,
    /// It is larger than an entry may be: nothing of it happened, and nothing will.
    #[error("{bytes} bytes would be one entry, which has at most {limit}: ask for less at once")]
    TooLarge {
        /// What its ops take.
        bytes: usize,
        /// What they may.
        limit: usize,
    },
    /// The log did not take it, or stopped.
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
    /// What the caller does.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotLeader { .. } => ErrorKind::Retry,
            Self::Unknown => ErrorKind::UnknownOutcome,
            Self::TooLarge { .. } => ErrorKind::Invalid,
            Self::Log(e) => e.kind(),
        }
    }
}

/// Why a group could not be opened or its members not changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GroupError {
    /// This node does not lead.
    #[error("{}", not_leader(*leader))]
    NotLeader {
        /// Who does, as far as is known.
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
    /// What the caller does.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotLeader { .. } => ErrorKind::Retry,
            Self::Refused(_) => ErrorKind::Invalid,
            Self::Stopped(_) => ErrorKind::Closed,
        }
    }
}
