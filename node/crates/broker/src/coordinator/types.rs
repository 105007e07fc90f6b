//! Requests, answers and errors of the group protocol.

use bytes::Bytes;
use std::time::Duration;
use weir_types::limits::GROUP_NAME_BYTES_MAX;

/// Shortest session that a member may ask for (Kafka's default).
pub const SESSION_MIN: Duration = Duration::from_secs(6);

/// Longest session that a member may ask for (Kafka's default).
pub const SESSION_MAX: Duration = Duration::from_secs(1_800);

/// Why a call of a group member is refused. Each stands for an error of Kafka's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The name of the group is invalid.
    #[error("the group's name is empty or too long")]
    InvalidName,
    /// The session timeout is out of bounds.
    #[error("a session is 6 s to 30 min long")]
    InvalidSession,
    /// The member supports no protocol of the group.
    #[error("the member supports no protocol of the group")]
    InconsistentProtocol,
    /// The group has no such member.
    #[error("no such member in the group")]
    UnknownMember,
    /// The member must join again with the given id (KIP-394).
    #[error("join again as `{0}`")]
    MemberIdRequired(String),
    /// Another instance has replaced the static member.
    #[error("another instance has replaced this static member")]
    FencedInstance,
    /// The group is in another generation.
    #[error("the group is in another generation")]
    IllegalGeneration,
    /// The group is rebalancing, and the member must rejoin.
    #[error("the group is rebalancing: join again")]
    RebalanceInProgress,
    /// The group, or the number of groups, is at its limit.
    #[error("the group, or the number of groups, is at its limit")]
    Full,
    /// The group still has members.
    #[error("the group still has members")]
    NotEmpty,
    /// The group does not exist.
    #[error("no such group")]
    NotFound,
    /// Members of the group read the topic.
    #[error("members of the group read the topic")]
    Subscribed,
    /// No permission.
    #[error("not allowed")]
    Denied,
    /// The group could not be stored; a retry may help.
    #[error("the group could not be stored: retry")]
    Unavailable,
    /// Another node coordinates the group.
    #[error("another node coordinates groups")]
    NotCoordinator,
}

/// A request to join a group.
#[derive(Clone, Debug)]
pub struct Join {
    /// The assigned id; empty at first.
    pub member: String,
    /// Name of a static member, which survives restarts (KIP-345).
    pub instance: Option<String>,
    /// Client id.
    pub client: String,
    /// Address.
    pub host: String,
    /// Session timeout.
    pub session: Duration,
    /// Rebalance timeout.
    pub rebalance: Duration,
    /// `consumer`, `connect` or another's own.
    pub protocol_type: String,
    /// Supported assignment protocols in order of preference, with the member's metadata for each.
    pub protocols: Vec<(String, Vec<u8>)>,
    /// The client supports the two-step join (KIP-394).
    pub id_first: bool,
    /// The client supports skipping the assignment (KIP-814).
    pub can_skip: bool,
}

/// A group after a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The new generation.
    pub generation: i32,
    /// Type of the protocol, such as `consumer`.
    pub protocol_type: String,
    /// The chosen assignment protocol.
    pub protocol: String,
    /// Member id of the leader.
    pub leader: String,
    /// Id of the member that joined.
    pub member: String,
    /// All members; for the leader only.
    pub members: Vec<JoinedMember>,
    /// True if the leader keeps the current assignment (KIP-814).
    pub skip_assignment: bool,
}

/// A member, as sent to the leader of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// Member id.
    pub id: String,
    /// Name of a static member.
    pub instance: Option<String>,
    /// Metadata for the chosen protocol.
    pub metadata: Bytes,
}

/// The assignment of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// Type of the protocol.
    pub protocol_type: String,
    /// The chosen assignment protocol.
    pub protocol: String,
    /// The member's assignment.
    pub assignment: Bytes,
}

/// Identity of a calling member.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Name of the group.
    pub group: &'a str,
    /// Member id.
    pub member: &'a str,
    /// Name of a static member.
    pub instance: Option<&'a str>,
    /// Generation that the member is in; -1 for manual assignment.
    pub generation: i32,
}

/// Description of a group.
#[derive(Clone, Debug)]
pub struct GroupInfo {
    /// Name of the group.
    pub name: String,
    /// `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Stable` or `Dead`.
    pub state: &'static str,
    /// Type of the protocol.
    pub protocol_type: String,
    /// The chosen assignment protocol.
    pub protocol: String,
    /// Members of the group.
    pub members: Vec<MemberInfo>,
}

/// Description of a member.
#[derive(Clone, Debug)]
pub struct MemberInfo {
    /// Member id.
    pub id: String,
    /// Name of a static member.
    pub instance: Option<String>,
    /// Client id.
    pub client: String,
    /// Address of the client.
    pub host: String,
    /// Metadata for the chosen protocol.
    pub metadata: Bytes,
    /// The member's assignment.
    pub assignment: Bytes,
}

pub(crate) fn legal_name(group: &str) -> bool {
    !group.is_empty() && group.len() <= GROUP_NAME_BYTES_MAX && !group.chars().any(char::is_control)
}

/// An offset to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Name of the topic.
    pub topic: String,
    /// Index of the partition.
    pub partition: u32,
    /// Number to commit; negative numbers are the client's.
    pub offset: i64,
    /// Epoch of the leader that the group read from; -1 if unknown.
    pub leader_epoch: i32,
    /// Metadata of the client.
    pub metadata: String,
}
