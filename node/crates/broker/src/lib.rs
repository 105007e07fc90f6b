//! Topics, producers, consumer groups and quotas: the one API for everything above the log.
//!
//! Owns what a topic is and who may do what with it; every listener translates to the calls of [`Broker`] and nothing
//! else. Every change goes through one proposer per replica group, which computes offsets and sequences ahead of
//! commitment in one speculative state ([`proposer`]), and becomes visible through [`applied`] when its entry is
//! committed. Knows no protocol, no Wasm and no disk.

mod absent;
mod admin;
mod age;
mod applied;
mod auth;
mod broker;
mod chain;
mod coordinator;
mod door;
mod entry;
mod error;
mod fetch;
mod forward;
mod groups;
mod hook;
mod lane;
mod ledger;
mod level;
mod moves;
mod notify;
mod outbox;
mod owners;
mod placement;
mod presence;
mod producer;
mod proposer;
mod quota;
mod refused;
mod retention;
mod site;
mod stored;
#[cfg(test)]
mod tests;
mod topic;
mod unserved;

pub use admin::KnownProducer;
pub use auth::{Operation, Principal, Resource};
pub use broker::{Broker, BrokerMetrics, Options, Produced, Producing};
pub use chain::{Chain, Footing, Step};
pub use coordinator::{
    Caller, Commit, CommittedOffset, GroupError, GroupInfo, Join, Joined, JoinedMember, MemberInfo,
    SESSION_MAX, SESSION_MIN, Synced,
};
pub use error::{AdminError, FetchError, ProduceError, Refusal};
pub use fetch::{At, Fetch, Fetched, SHARE_WITHIN};
pub use groups::{ReplicaGroupStatus, SiteStatus};
pub use hook::{Hook, HookDone, HookError, HookJob, OFFSET_DIGITS, Output, Processed, Stepped};
pub use ledger::{Account, Ledger, Means, Resource as Shared, Standing, Taken, UsedUp};
pub use moves::MoveStatus;
pub use outbox::{Blocked, Waiting};
pub use presence::Absent;
pub use proposer::Framing;
pub use quota::{Direction, QuotaConfig};
pub use retention::Why;
pub use site::Token;
pub use stored::{NamedGap, topics_in};
pub use topic::{
    Cleanup, ConfigError, Durability, RetentionBy, Setting, SettingKind, TimestampType, Topic, TopicConfig,
};
pub use unserved::Unserved;
pub use weir_log::{FormatError, Marks, Piece, ReadError, StateKey, StateKind, Stop, decode, encode};
pub use weir_replica::{
    Channel, Group, GroupConfig, GroupError as ClusterError, GroupStatus, JoinReply, LastStart, Member,
    MemberStatus, NodeId, Peers, ProposeError, Role, Seen, Started, Starts, TELL_EVERY, Timing, Transport,
    Turned, Verdict, make_alone, members_in,
};
pub use weir_types::PartitionId;
