//! The replica group of all nodes: its leader, its progress and its members.

use serde::{Deserialize, Serialize};

/// The group of all nodes, as the answering node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Site {
    /// Number of the replica group: 0.
    pub group: u16,
    /// Node that answers.
    pub node: u64,
    /// Node that leads, as far as the answering node knows.
    pub leader: Option<u64>,
    /// Raft term.
    pub term: u64,
    /// Index of the last entry in the log.
    pub last: u64,
    /// Index of the last applied entry.
    pub applied: u64,
    /// Index of the last purged entry.
    pub purged: u64,
    /// True while the node takes writes: while it leads, and reaches most voters.
    pub serving: bool,
    /// Members in the order of their numbers.
    pub members: Vec<Member>,
}

/// A node of the site, as the answering node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Member {
    /// Number.
    pub id: u64,
    /// SHA-256 of the node's certificate in hexadecimal.
    pub key: String,
    /// `HOST:PORT` for nodes and Weir clients.
    pub quic: String,
    /// `HOST:PORT` for Kafka clients; empty without a Kafka listener.
    pub kafka: String,
    /// `HOST:PORT` for HTTP.
    pub http: String,
    /// Rack: nodes of the same rack fail together. Empty when not configured.
    pub rack: String,
    /// True for a witness, which votes and has no records.
    pub witness: bool,
    /// Role in the group.
    pub role: Role,
    /// Entries that the node is known not to have. Known to the leader only.
    pub lag: Option<u64>,
    /// Milliseconds since the node was last heard of. Known to the leader only.
    pub heard_ms_ago: Option<u64>,
    /// Reason of a node that refuses entries. Known to the leader only.
    pub refuses: Option<String>,
}

/// Role of a node in a replica group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Orders the entries.
    Leader,
    /// Votes.
    Voter,
    /// Votes, and has no records.
    Witness,
    /// Receives entries, and does not vote.
    Learner,
}

impl Role {
    /// Returns the role's name as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Voter => "voter",
            Self::Witness => "witness",
            Self::Learner => "learner",
        }
    }
}
