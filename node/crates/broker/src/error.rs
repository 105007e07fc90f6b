//! What can go wrong, by operation.

use crate::access::ledger::UsedUp;
use crate::topic::config::ConfigError;
use serde::{Deserialize, Serialize};
use weir_log::ReadError;
use weir_replica::ProposeError;
use weir_types::{BatchError, ErrorKind, NameError, Offset};

/// Why records were not taken, or what became of them.
#[derive(Clone, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ProduceError {
    #[error("no topic `{0}`; create it with `weir topic create {0}`")]
    NoTopic(String),
    #[error("topic `{topic}` has {partitions} partitions, there is no partition {partition}")]
    NoPartition {
        topic: String,
        partition: u32,
        partitions: u32,
    },
    #[error("not allowed to write to topic `{0}`")]
    Denied(String),
    #[error("batch refused: {0}")]
    Batch(#[from] BatchError),
    #[error("batch of {bytes} bytes is over the topic's max.message.bytes of {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("topic `{topic}` is kept by key (`cleanup.policy`): each record needs one")]
    Keyless { topic: String, record: u32 },
    #[error(
        "a record is dated {timestamp} ms, and the node's time is {now}: topic setting `{setting}` allows for {limit}"
    )]
    Dated {
        record: u32,
        timestamp: i64,
        now: i64,
        limit: u64,
        setting: &'static str,
    },
    #[error(
        "topic `{topic}` asks for {wanted} nodes that have a record before it is acknowledged \
         (`min.insync.replicas`), and of its nodes as they are now {copies} surely have"
    )]
    FewCopies { topic: String, wanted: u32, copies: u32 },
    #[error(
        "the batch has a key of more than 32 KiB, a record with more than 1,000 headers, or inflates more than 64-fold: a node of this \
         site is of the first release, and cannot read that: replace it first"
    )]
    BeyondFirstRelease,
    #[error("producer {id} sent sequence {got}, expected {expected}: a batch before it is missing")]
    OutOfOrder { id: i64, got: i32, expected: i32 },
    #[error("producer {id} is fenced: epoch {got} is older than {current}")]
    ProducerFenced { id: i64, got: i16, current: i16 },
    #[error("producer {0} is not known here (any more): start a new one")]
    UnknownProducer(i64),
    #[error(
        "producer {0} writes from another address, or did within the last minute: ask for a number of your own"
    )]
    OthersProducer(i64),
    #[error(transparent)]
    UsedUp(#[from] UsedUp),
    #[error("pipeline `{pipeline}` on the topic is halted: {why}")]
    Halted { pipeline: String, why: String },
    #[error("pipeline `{pipeline}` is over its share of waiting bytes, or being changed: try again")]
    PipelineBusy { pipeline: String },
    #[error(
        "pipeline `{pipeline}` makes {bytes} bytes of the batch, and one entry has at most {limit}: send fewer records at once"
    )]
    MadeTooLarge {
        pipeline: String,
        bytes: usize,
        limit: usize,
    },
    #[error("what its pipeline computed before it was not stored, so this was not either: try again")]
    Overtaken,
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// In the words of the node that leads the partition.
    #[error("{0}")]
    There(String, ErrorKind),
    #[error("node is shutting down")]
    Closed,
}

impl ProduceError {
    /// The record of the batch that is to blame, where one is.
    pub fn record(&self) -> Option<u32> {
        match self {
            Self::Keyless { record, .. } | Self::Dated { record, .. } => Some(*record),
            Self::Batch(BatchError::Record { index, .. }) => Some(*index),
            _ => None,
        }
    }

    /// What the caller does.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoTopic(_)
            | Self::NoPartition { .. }
            | Self::Denied(_)
            | Self::Batch(_)
            | Self::TooLarge { .. }
            | Self::MadeTooLarge { .. }
            | Self::Keyless { .. }
            | Self::BeyondFirstRelease
            | Self::Dated { .. }
            | Self::OutOfOrder { .. }
            | Self::UnknownProducer(_) => ErrorKind::Invalid,
            // Its owner may be silent by then, as one that has another address now is.
            Self::OthersProducer(_) | Self::UsedUp(_) | Self::FewCopies { .. } => ErrorKind::Retry,
            Self::ProducerFenced { .. } => ErrorKind::Fenced,
            Self::Halted { .. } | Self::PipelineBusy { .. } | Self::Overtaken => ErrorKind::Retry,
            Self::Propose(e) => e.kind(),
            Self::There(_, kind) => *kind,
            Self::Closed => ErrorKind::Closed,
        }
    }
}

/// Why records could not be read.
#[derive(Clone, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum FetchError {
    #[error("no topic `{0}`")]
    NoTopic(String),
    #[error("topic `{topic}` has {partitions} partitions, there is no partition {partition}")]
    NoPartition {
        topic: String,
        partition: u32,
        partitions: u32,
    },
    #[error("not allowed to read topic `{0}`")]
    Denied(String),
    #[error("offset {offset} is beyond the end, {end}")]
    OutOfRange { offset: Offset, end: Offset },
    #[error("{}", ProposeError::NotLeader { leader: *.0 })]
    NotLeader(Option<weir_replica::NodeId>),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    UsedUp(#[from] UsedUp),
    /// What the node said that was asked to.
    #[error("{0}")]
    There(String),
}

impl FetchError {
    /// What the caller does.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoTopic(_) | Self::NoPartition { .. } | Self::Denied(_) | Self::OutOfRange { .. } => {
                ErrorKind::Invalid
            }
            Self::NotLeader(_) => ErrorKind::Retry,
            Self::Read(e) => e.kind(),
            Self::UsedUp(e) => e.kind(),
            Self::There(_) => ErrorKind::Internal,
        }
    }
}

/// Why a change of topics, offsets or rows was not made.
#[derive(Clone, Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum AdminError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("topic `{0}` exists already")]
    Exists(String),
    #[error("no topic `{0}`")]
    NoTopic(String),
    #[error("topic `{topic}` is used by pipeline `{pipeline}`: remove that first")]
    InUse { topic: String, pipeline: String },
    #[error("topic `{topic}` has {partitions} partitions, there is no partition {partition}")]
    NoPartition {
        topic: String,
        partition: u32,
        partitions: u32,
    },
    #[error("topic `{topic}` cannot have {partitions} partitions with the pipelines that read it: {why}")]
    NoRoom {
        topic: String,
        partitions: u32,
        why: String,
    },
    #[error("{what} is over the limit of {limit}")]
    Limit { what: &'static str, limit: u64 },
    #[error(
        "a topic has at least one partition, and partitions are only added: it has {has}, asked for {asked}"
    )]
    Partitions { has: u32, asked: u32 },
    #[error("{asked} replicas need as many nodes that keep records: the site has {nodes}")]
    Replicas { asked: usize, nodes: usize },
    #[error(
        "`min.insync.replicas` cannot be {asked}: a record of this topic is acknowledged when {copies} of its nodes have it; \
         use 1 to {copies}"
    )]
    Copies { asked: u32, copies: u32 },
    #[error("topic `{0}` is kept by key (`cleanup.policy`): its records are not deleted by their offset")]
    KeptByKey(String),
    #[error("replica group {group} is still on node {node}: what it has is being copied; ask again")]
    Moving { group: u16, node: u64 },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("`{0}` cannot name a consumer group: use 1 to 249 bytes without control characters")]
    GroupName(String),
    #[error("offset {offset} is beyond the end of the partition, {end}")]
    OffsetBeyondEnd { offset: Offset, end: Offset },
    #[error("not allowed")]
    Denied,
    /// What it was to be done on top of is not what there is.
    #[error("it was changed meanwhile: look again")]
    Changed,
    /// In the words of the node that leads.
    #[error("{0}")]
    Refused(String),
    /// As [`AdminError::Refused`], with its kind.
    #[error("{why}")]
    There { refusal: Refusal, why: String },
    #[error(transparent)]
    Propose(#[from] ProposeError),
    #[error("node is shutting down")]
    Closed,
}

impl AdminError {
    /// What the caller does.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Propose(e) => e.kind(),
            Self::Closed => ErrorKind::Closed,
            Self::Moving { .. } => ErrorKind::Retry,
            Self::There { refusal, .. } => refusal.kind(),
            Self::Name(_)
            | Self::Exists(_)
            | Self::InUse { .. }
            | Self::NoRoom { .. }
            | Self::NoTopic(_)
            | Self::NoPartition { .. }
            | Self::Limit { .. }
            | Self::Partitions { .. }
            | Self::Replicas { .. }
            | Self::Copies { .. }
            | Self::KeptByKey(_)
            | Self::Config(_)
            | Self::GroupName(_)
            | Self::OffsetBeyondEnd { .. }
            | Self::Changed
            | Self::Refused(_)
            | Self::Denied => ErrorKind::Invalid,
        }
    }
}

/// Of which kind a refusal is, for a protocol whose clients go by that. Known by position: add at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// A name that cannot be one.
    Name,
    /// The topic exists already.
    Exists,
    /// There is no such topic.
    NoTopic,
    /// That number of partitions cannot be.
    Partitions,
    /// That number of replicas cannot be.
    Replicas,
    /// A setting, or its value.
    Setting,
    /// Whoever asks may not.
    Denied,
    /// A limit, a user of the topic, a rule of the site.
    Rule,
    /// Not now: another try may help.
    Retry,
    /// Nobody knows whether it was done.
    Unknown,
}

impl From<&AdminError> for Refusal {
    fn from(e: &AdminError) -> Self {
        match e {
            AdminError::Name(_) => Self::Name,
            AdminError::Exists(_) => Self::Exists,
            AdminError::NoTopic(_) | AdminError::NoPartition { .. } => Self::NoTopic,
            AdminError::Partitions { .. } => Self::Partitions,
            AdminError::Replicas { .. } => Self::Replicas,
            AdminError::Config(_) | AdminError::Copies { .. } => Self::Setting,
            AdminError::Denied => Self::Denied,
            AdminError::There { refusal, .. } => *refusal,
            AdminError::InUse { .. }
            | AdminError::NoRoom { .. }
            | AdminError::Limit { .. }
            | AdminError::Moving { .. }
            | AdminError::KeptByKey(_)
            | AdminError::GroupName(_)
            | AdminError::OffsetBeyondEnd { .. }
            | AdminError::Changed
            | AdminError::Refused(_)
            | AdminError::Propose(_)
            | AdminError::Closed => match e.kind() {
                ErrorKind::Retry | ErrorKind::Closed => Self::Retry,
                ErrorKind::UnknownOutcome => Self::Unknown,
                ErrorKind::Invalid | ErrorKind::Fenced | ErrorKind::Corrupt | ErrorKind::Internal => {
                    Self::Rule
                }
            },
        }
    }
}

impl Refusal {
    /// What the caller does.
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::Retry => ErrorKind::Retry,
            Self::Unknown => ErrorKind::UnknownOutcome,
            Self::Name
            | Self::Exists
            | Self::NoTopic
            | Self::Partitions
            | Self::Replicas
            | Self::Setting
            | Self::Denied
            | Self::Rule => ErrorKind::Invalid,
        }
    }
}
