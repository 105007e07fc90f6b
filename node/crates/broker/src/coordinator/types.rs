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
#[expect(missing_docs, reason = "the messages say it")]
pub enum GroupError {
    #[error("the group's name is empty or too long")]
    InvalidName,
    #[error("a session is 6 s to 30 min long")]
    InvalidSession,
    #[error("member speaks no protocol that the group speaks")]
    InconsistentProtocol,
    #[error("no such member in the group")]
    UnknownMember,
    #[error("join again as `{0}`")]
    MemberIdRequired(String),
    #[error("another member has taken the place of this static one")]
    FencedInstance,
    #[error("the group is in another generation")]
    IllegalGeneration,
    #[error("the group is rebalancing: join again")]
    RebalanceInProgress,
    #[error("the group, or the number of groups, is at its limit")]
    Full,
    #[error("the group still has members")]
    NotEmpty,
    #[error("no such group")]
    NotFound,
    #[error("the group's members read the topic")]
    Subscribed,
    #[error("not allowed")]
    Denied,
    #[error("could not be stored: try again")]
    Unavailable,
    #[error("another node coordinates groups")]
    NotCoordinator,
}

/// Somebody who wants to be a member.
#[derive(Clone, Debug)]
pub struct Join {
    /// The id that it was given; empty the first time.
    pub member: String,
    /// Its name over restarts, if it is a static member (KIP-345).
    pub instance: Option<String>,
    /// What it calls itself, and where it is.
    pub client: String,
    /// Address.
    pub host: String,
    /// How long it may be silent.
    pub session: Duration,
    /// How long a rebalance waits for it.
    pub rebalance: Duration,
    /// `consumer`, `connect` or another's own.
    pub protocol_type: String,
    /// Ways of assigning that it speaks, the one it likes best first, and what it has to say in each.
    pub protocols: Vec<(String, Vec<u8>)>,
    /// Whether it can be told its id first and join with it then (KIP-394).
    pub id_first: bool,
    /// Whether it can be told to leave the assignment as it is (KIP-814).
    pub can_skip: bool,
}

/// A group after a join.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "Kafka's names")]
pub struct Joined {
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    pub leader: String,
    pub member: String,
    /// All members; for the leader only.
    pub members: Vec<JoinedMember>,
    pub skip_assignment: bool,
}

/// A member as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "Kafka's names")]
pub struct JoinedMember {
    pub id: String,
    pub instance: Option<String>,
    pub metadata: Bytes,
}

/// What a member is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "Kafka's names")]
pub struct Synced {
    pub protocol_type: String,
    pub protocol: String,
    pub assignment: Bytes,
}

/// Who calls, as a member.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "Kafka's names")]
pub struct Caller<'a> {
    pub group: &'a str,
    pub member: &'a str,
    pub instance: Option<&'a str>,
    pub generation: i32,
}

/// A group, for describing it.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "Kafka's names")]
pub struct GroupInfo {
    pub name: String,
    /// `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Stable` or `Dead`.
    pub state: &'static str,
    pub protocol_type: String,
    pub protocol: String,
    pub members: Vec<MemberInfo>,
}

/// A member, for describing it.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "Kafka's names")]
pub struct MemberInfo {
    pub id: String,
    pub instance: Option<String>,
    pub client: String,
    pub host: String,
    pub metadata: Bytes,
    pub assignment: Bytes,
}

pub(crate) fn legal_name(group: &str) -> bool {
    !group.is_empty() && group.len() <= GROUP_NAME_BYTES_MAX && !group.chars().any(char::is_control)
}

/// An offset to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in [`CommittedOffset`]")]
pub struct Commit {
    pub topic: String,
    pub partition: u32,
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
}
