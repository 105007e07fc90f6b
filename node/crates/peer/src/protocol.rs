//! Messages of the client protocol. Variants are known by their position: add at the end, and raise [`VERSION`] when
//! the meaning of one changes.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use weir_types::{ErrorKind, Gap, Offset};

/// What this crate speaks.
pub const VERSION: u16 = 1;
/// First bytes of a hello.
pub const MAGIC: [u8; 4] = *b"WEIR";

/// A client's first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub struct Hello {
    pub magic: [u8; 4],
    pub version: u16,
    /// What the client calls itself: for quotas and logs.
    pub client: String,
}

/// A node's answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub struct Welcome {
    pub version: u16,
    pub node_version: String,
    /// Set when the node does not go on.
    pub error: Option<WireError>,
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub enum Request {
    /// The payload is one record batch.
    Produce {
        topic: String,
        partition: u32,
    },
    Fetch {
        topic: String,
        partition: u32,
        from: Offset,
        max_bytes: u32,
        wait_ms: u32,
    },
    OffsetAt {
        topic: String,
        partition: u32,
        at: Place,
    },
    Topics,
    CreateTopic {
        name: String,
        partitions: u32,
        settings: Vec<(String, String)>,
        /// Nodes that each partition is on; all of the site's when not said.
        replicas: Option<u32>,
    },
    AlterTopic {
        name: String,
        partitions: Option<u32>,
        settings: Vec<(String, String)>,
        /// Nodes that each partition is to be on from now on; 0: all.
        replicas: Option<u32>,
    },
    DeleteTopic {
        name: String,
    },
    CommitOffsets {
        group: String,
        offsets: Vec<(String, u32, Offset)>,
    },
    CommittedOffset {
        group: String,
        topic: String,
        partition: u32,
    },
    InitProducer,
    /// The payload is the next part of the module that is being pushed on this stream.
    PushPart,
    /// The parts are complete.
    PushModule {
        name: String,
        version: String,
    },
    Modules,
    RemoveModule {
        module: String,
    },
    ApplyPipeline {
        toml: String,
    },
    Pipelines,
    SetPaused {
        name: String,
        paused: bool,
    },
    RemovePipeline {
        name: String,
    },
    Status,
    Scrub,
    /// Lets one node join, within so many seconds. `token` is random bytes that the client made.
    Invite {
        token: [u8; 16],
        valid_s: u64,
    },
    /// How the nodes of the site are doing.
    Cluster,
    /// Takes a node out of the site.
    RemoveNode {
        node: u64,
    },
    /// Has another node lead.
    Transfer {
        to: u64,
    },
    /// Whether the node leads a replica group: done, or who does.
    Leader {
        group: u16,
    },
    /// Has replicas and leaders of groups go where they should be.
    Rebalance,
    /// Makes a pipeline forget what its modules remember.
    ResetPipeline {
        name: String,
    },
    /// What applying a pipeline would change.
    PlanPipeline {
        toml: String,
    },
    /// What a pipeline was, as JSON.
    PipelineHistory {
        name: String,
    },
    /// Makes a pipeline what it was as an earlier revision.
    RollBackPipeline {
        name: String,
        to: Option<u64>,
    },
    /// Runs a pipeline over what its sources have from a place on, and over what comes within a time, beside the one that works.
    /// Answered bit by bit: records looked at, and at the end JSON.
    ShadowPipeline {
        toml: String,
        from: String,
        wait_ms: u64,
    },
    /// A page of what the modules of a pipeline remember.
    PipelineState {
        name: String,
        first: Option<String>,
    },
    /// Has a pipeline behind the log begin anew at a place: `start`, `end`, an offset, or a time in RFC 3339.
    RewindPipeline {
        name: String,
        to: String,
    },
    /// Has a pipeline work on some partitions, and the one of its name that is there on the others.
    TryPipeline {
        toml: String,
        partitions: Vec<u32>,
    },
    /// Has what is tried on some partitions work on all.
    PromotePipeline {
        name: String,
    },
    /// All consumer groups, as JSON.
    Groups,
    /// A consumer group with its members and how far it is, as JSON.
    Group {
        name: String,
    },
    /// Forgets a consumer group without members.
    DeleteGroup {
        name: String,
    },
}

/// A place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub enum Place {
    Start,
    End,
    /// Milliseconds since 1970.
    Time(i64),
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub enum Reply {
    Done,
    Produced {
        base: Offset,
        span: u32,
        throttle_ms: u32,
    },
    /// The payload holds the batches, one after the other.
    Fetched {
        pieces: Vec<PieceHead>,
        next: Offset,
        log_start: Offset,
        committed_end: Offset,
        throttle_ms: u32,
    },
    Offset(Option<Offset>),
    Topics(Vec<TopicInfo>),
    Topic(TopicInfo),
    Producer(i64),
    /// The payload is JSON: what is shown to people and has many optional parts.
    Json,
    /// More replies follow: bytes done, and in all.
    Progress(u64, u64),
    Error(WireError),
    /// Nothing happened: the node at this address leads, or nobody does at the moment.
    Elsewhere(Option<String>),
}

/// A stretch of what was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PieceHead {
    /// So many bytes of the payload.
    Batch(u32),
    /// No records.
    Gap(Gap),
}

/// A topic as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub struct TopicInfo {
    pub name: String,
    pub partitions: Vec<PartitionInfo>,
    pub config: BTreeMap<String, String>,
    /// The in-line pipeline that its records pass, if any.
    pub pipeline: Option<String>,
}

/// A partition as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub struct PartitionInfo {
    /// The replica group that carries it.
    pub group: u16,
    /// Who leads that, as far as the node that was asked knows.
    pub leader: Option<u64>,
    /// Who has it.
    pub replicas: Vec<u64>,
    /// Whether the node that was asked has it. What follows is not known otherwise.
    pub is_here: bool,
    pub log_start: Offset,
    pub committed_end: Offset,
    pub bytes: u64,
    /// Records lost or evicted, ever.
    pub lost: u64,
    pub gaps: Vec<Gap>,
}

/// An error as it crosses the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct WireError {
    /// What to do.
    pub kind: WireKind,
    /// What happened.
    pub message: String,
}

/// [`ErrorKind`] as it crosses the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as there")]
pub enum WireKind {
    Retry,
    Fenced,
    Invalid,
    Corrupt,
    Closed,
    UnknownOutcome,
    Internal,
}

impl From<ErrorKind> for WireKind {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Retry => Self::Retry,
            ErrorKind::Fenced => Self::Fenced,
            ErrorKind::Invalid => Self::Invalid,
            ErrorKind::Corrupt => Self::Corrupt,
            ErrorKind::Closed => Self::Closed,
            ErrorKind::UnknownOutcome => Self::UnknownOutcome,
            ErrorKind::Internal => Self::Internal,
        }
    }
}

impl From<WireKind> for ErrorKind {
    fn from(kind: WireKind) -> Self {
        match kind {
            WireKind::Retry => Self::Retry,
            WireKind::Fenced => Self::Fenced,
            WireKind::Invalid => Self::Invalid,
            WireKind::Corrupt => Self::Corrupt,
            WireKind::Closed => Self::Closed,
            WireKind::UnknownOutcome => Self::UnknownOutcome,
            WireKind::Internal => Self::Internal,
        }
    }
}
