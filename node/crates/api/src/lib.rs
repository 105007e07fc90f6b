//! Requests and answers of the admin API: each once, for QUIC, HTTP, the Rust client and the command line.
//!
//! A pure crate: types and their JSON. A node answers with these types, a client reads them, and the OpenAPI
//! document is generated from them (feature `openapi`). Names, shapes and meaning of the JSON are stable:
//!
//! - A reader passes over fields of answers that it does not know, since a newer node may send them.
//! - A field that is added to an answer has a serde default, since an older node does not send it.
//! - A request with an unknown field is refused, since a misspelt setting must not pass in silence.

mod cluster;
mod error;
mod group;
mod module;
mod pipeline;
mod plan;
mod record;
mod revision;
mod scrub;
mod shadow;
mod site;
mod spec;
mod state;
mod status;
mod topic;

pub use cluster::{Cluster, Move, OutboxEntry, Rebalance, ReplicaGroup};
pub use error::{Error, ErrorBody, ErrorKind};
pub use group::{Group, GroupMember, GroupOffset, GroupSummary};
pub use module::{Descriptor, Module, ModuleLabel, Parameter};
pub use pipeline::{CanaryQuery, Pipeline, PipelinePlace, PipelineState, RollbackQuery};
pub use plan::{Change, Plan};
pub use record::{Fetched, Header, NewRecord, NewRecords, ProduceQuery, Produced, ReadQuery, Record, Stored};
pub use revision::Revision;
pub use scrub::{LostRange, NamedGap, RepairedPartition, ScrubReport};
pub use shadow::{Shadow, ShadowExample, ShadowQuery, ShadowRecord, ShadowSide};
pub use site::{Member, Role, Site};
pub use spec::{
    At, CallLimits, EventTime, Future, Grant, Guard, OnBadTime, OnError, Origin, Policy, Sources, Spec,
    Stage, TimeUnit,
};
pub use state::{StateEntry, StatePage, StateQuery, StateRow};
pub use status::{PipelineSummary, Removed, Share, Status};
pub use topic::{Gap, GapReason, NewTopic, Partition, Topic, TopicChange};

/// Longest wait of a read or of a shadow run over HTTP, in milliseconds: a connection that is silent for
/// longer is cut by proxies.
pub const HTTP_WAIT_MS_MAX: u64 = 60_000;
