//! Topics, producers, consumer groups and quotas: the API of everything above the log.
//!
//! Every listener translates its protocol to calls of [`Broker`]. Every change passes the proposer of a
//! replica group. A proposer computes offsets and sequences ahead of commitment, in speculative state. A
//! change becomes visible in the tables when its entry is committed. The crate knows no protocol, no Wasm and
//! no disk.
//!
//! Rooms from top to bottom, each of which imports only from rooms below: `run`; `forward`, `cluster`; `rpc`;
//! `records`, `topics`, `consumers`, `pipeline`; `core`; `hook`; `propose`; `coordinator`, `placement`, `local`;
//! `error`; `state`; `access`, `topic`; `sync`.

mod access;
mod cluster;
mod consumers;
mod coordinator;
mod core;
mod error;
mod forward;
mod hook;
mod local;
mod pipeline;
mod placement;
mod propose;
mod records;
mod rpc;
mod run;
mod state;
#[cfg(test)]
mod tests;
mod topic;
mod topics;

pub use crate::access::auth::{Operation, Principal, Resource};
pub use crate::access::ledger::{Account, Ledger, Means, Resource as Shared, Standing, Taken, UsedUp};
pub use crate::access::quota::{Direction, QuotaConfig};
pub use crate::cluster::channels::Blocked;
pub use crate::cluster::status::{MoveStatus, ReplicaGroupStatus, SiteStatus, Waiting};
pub use crate::cluster::token::Token;
pub use crate::coordinator::types::{
    Caller, Commit, GroupError, GroupInfo, Join, Joined, JoinedMember, MemberInfo, SESSION_MAX, SESSION_MIN,
    Synced,
};
pub use crate::core::{Broker, Options};
pub use crate::error::{AdminError, FetchError, ProduceError, Refusal};
pub use crate::hook::{Hook, HookDone, HookError, HookJob, Processed, Stepped};
pub use crate::local::metrics::BrokerMetrics;
pub use crate::local::retention::Why;
pub use crate::local::unserved::Unserved;
pub use crate::pipeline::session::Chain;
pub use crate::propose::request::{Framing, Produced};
pub use crate::propose::step::{Footing, OFFSET_DIGITS, Output, Step};
pub use crate::records::fetch::{Fetch, Fetched, SHARE_WITHIN};
pub use crate::records::lookup::At;
pub use crate::records::produce::Producing;
pub use crate::records::producers::KnownProducer;
pub use crate::state::offline::{NamedGap, topics_in};
pub use crate::state::rows::absent::Absent;
pub use crate::state::rows::committed_offset::CommittedOffset;
pub use crate::state::rows::topic::Topic;
pub use crate::topic::config::{Cleanup, ConfigError, Durability, RetentionBy, TimestampType, TopicConfig};
pub use crate::topic::setting::{Setting, SettingKind};
pub use weir_log::{FormatError, Marks, Piece, ReadError, StateKey, StateKind, Stop, decode, encode};
pub use weir_replica::{
    Channel, Group, GroupConfig, GroupError as ClusterError, GroupStatus, JoinReply, LastStart, Member,
    MemberStatus, NodeId, Peers, ProposeError, Role, Seen, Started, Starts, TELL_EVERY, Timing, Transport,
    Turned, Verdict, make_alone, members_in,
};
pub use weir_types::PartitionId;
