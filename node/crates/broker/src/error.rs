//! Errors by operation.

use crate::access::ledger::UsedUp;
use crate::topic::config::ConfigError;
use serde::{Deserialize, Serialize};
use weir_log::ReadError;
use weir_replica::ProposeError;
use weir_types::{BatchError, ErrorKind, NameError, Offset};

/// Reason why records were not accepted, or not committed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProduceError {
    /// The topic does not exist.
    #[error("no topic `{0}`; create it with `weir topic create {0}`")]
    NoTopic(String),
    /// The topic has no such partition.
    #[error("topic `{topic}` has {partitions} partitions, there is no partition {partition}")]
    NoPartition {
        /// Name of the topic.
        topic: String,
        /// Index of the partition.
        partition: u32,
        /// Number of partitions.
        partitions: u32,
    },
    /// No permission to write to the topic.
    #[error("not allowed to write to topic `{0}`")]
    Denied(String),
    /// The batch is malformed.
    #[error("batch refused: {0}")]
    Batch(#[from] BatchError),
    /// The batch exceeds the topic's limit.
    #[error("batch of {bytes} bytes is over the topic's max.message.bytes of {limit}")]
    TooLarge {
        /// Size in bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A record of a compacted topic has no key.
    #[error("topic `{topic}` is compacted (`cleanup.policy`): each record needs a key")]
    Keyless {
        /// Name of the topic.
        topic: String,
        /// Index of the record in the batch.
        record: u32,
    },
    /// The timestamp of a record is outside the topic's bounds.
    #[error(
        "timestamp {timestamp} ms is out of bounds: the node's time is {now}, and `{setting}` allows {limit} ms"
    )]
    Dated {
        /// Index of the record in the batch.
        record: u32,
        /// Timestamp of the record in milliseconds since 1970.
        timestamp: i64,
        /// The node's time in milliseconds since 1970.
        now: i64,
        /// The limit.
        limit: u64,
        /// The topic setting with the bound.
        setting: &'static str,
    },
    /// Too few nodes are certain to have an acknowledged record.
    #[error(
        "topic `{topic}` requires {wanted} copies of an acknowledged record (`min.insync.replicas`), \
         but only {copies} are certain"
    )]
    FewCopies {
        /// Name of the topic.
        topic: String,
        /// Number of copies that the topic requires.
        wanted: u32,
        /// Number of copies that are certain.
        copies: u32,
    },
    /// A node of the first release could not read the batch.
    #[error(
        "the batch has a key of more than 32 KiB, a record with more than 1,000 headers, or inflates more than 64-fold; \
         a node of the first release cannot read the batch: replace that node first"
    )]
    BeyondFirstRelease,
    /// An earlier batch of the producer is missing.
    #[error("producer {id} sent sequence {got}, expected {expected}: an earlier batch is missing")]
    OutOfOrder {
        /// Producer id.
        id: i64,
        /// The number that was sent.
        got: i32,
        /// The expected sequence.
        expected: i32,
    },
    /// A newer epoch has fenced the producer.
    #[error("producer {id} is fenced: epoch {got} is older than {current}")]
    ProducerFenced {
        /// Producer id.
        id: i64,
        /// The number that was sent.
        got: i16,
        /// The current epoch.
        current: i16,
    },
    /// The producer id was not allocated, or the producer was forgotten.
    #[error("producer {0} is not known here: start a new producer")]
    UnknownProducer(i64),
    /// The producer belongs to another account.
    #[error("producer {0} belongs to another client address: allocate an id of your own")]
    OthersProducer(i64),
    /// A share of the node is used up.
    #[error(transparent)]
    UsedUp(#[from] UsedUp),
    /// A pipeline on the topic is halted.
    #[error("pipeline `{pipeline}` on the topic is halted: {why}")]
    Halted {
        /// Name of the pipeline.
        pipeline: String,
        /// The reason.
        why: String,
    },
    /// A pipeline on the topic has a full queue, or is being changed.
    #[error("pipeline `{pipeline}` has a full queue or is being changed: retry")]
    PipelineBusy {
        /// Name of the pipeline.
        pipeline: String,
    },
    /// The output of a pipeline exceeds the limit of an entry.
    #[error(
        "pipeline `{pipeline}` makes {bytes} bytes of output, above the limit of {limit}: send fewer records per batch"
    )]
    MadeTooLarge {
        /// Name of the pipeline.
        pipeline: String,
        /// Size in bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// An earlier step of the pipeline was not committed, so this batch was discarded.
    #[error("an earlier step of the pipeline was not committed, so this batch was discarded: retry")]
    Overtaken,
    /// The entry was not committed, or its outcome is unknown.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// In the words of the node that leads the partition.
    #[error("{0}")]
    There(String, ErrorKind),
    /// The node is shutting down.
    #[error("node is shutting down")]
    Closed,
}

impl ProduceError {
    /// Returns the index of the offending record in the batch, if known.
    pub fn record(&self) -> Option<u32> {
        match self {
            Self::Keyless { record, .. } | Self::Dated { record, .. } => Some(*record),
            Self::Batch(BatchError::Record { index, .. }) => Some(*index),
            _ => None,
        }
    }

    /// Returns the kind of the error, which tells the caller how to react.
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
            // The owner's client may be silent by then, as after a change of its address.
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
pub enum FetchError {
    /// The topic does not exist.
    #[error("no topic `{0}`")]
    NoTopic(String),
    /// The topic has no such partition.
    #[error("topic `{topic}` has {partitions} partitions, there is no partition {partition}")]
    NoPartition {
        /// Name of the topic.
        topic: String,
        /// Index of the partition.
        partition: u32,
        /// Number of partitions.
        partitions: u32,
    },
    /// No permission to read the topic.
    #[error("not allowed to read topic `{0}`")]
    Denied(String),
    /// The offset is beyond the end of the partition.
    #[error("offset {offset} is beyond the end, {end}")]
    OutOfRange {
        /// The offset.
        offset: Offset,
        /// End of the partition.
        end: Offset,
    },
    /// Another node leads the partition, if known.
    #[error("{}", ProposeError::NotLeader { leader: *.0 })]
    NotLeader(Option<weir_replica::NodeId>),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A share of the node is used up.
    #[error(transparent)]
    UsedUp(#[from] UsedUp),
    /// The node that leads the partition refused the read; the text is that node's.
    #[error("{0}")]
    There(String),
}

impl FetchError {
    /// Returns the kind of the error, which tells the caller how to react.
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
pub enum AdminError {
    /// The name of the topic is invalid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The topic exists.
    #[error("topic `{0}` exists already")]
    Exists(String),
    /// The topic does not exist.
    #[error("no topic `{0}`")]
    NoTopic(String),
    /// A pipeline uses the topic.
    #[error("topic `{topic}` is used by pipeline `{pipeline}`: remove the pipeline first")]
    InUse {
        /// Name of the topic.
        topic: String,
        /// Name of the pipeline.
        pipeline: String,
    },
    /// The topic has no such partition.
    #[error("topic `{topic}` has {partitions} partitions, there is no partition {partition}")]
    NoPartition {
        /// Name of the topic.
        topic: String,
        /// Index of the partition.
        partition: u32,
        /// Number of partitions.
        partitions: u32,
    },
    /// A pipeline that reads the topic does not support the number of partitions.
    #[error("topic `{topic}` cannot have {partitions} partitions with the pipelines that read it: {why}")]
    NoRoom {
        /// Name of the topic.
        topic: String,
        /// Number of partitions.
        partitions: u32,
        /// The reason.
        why: String,
    },
    /// A limit of the site is reached.
    #[error("{what} is over the limit of {limit}")]
    Limit {
        /// The limited quantity.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The number of partitions is zero, or below the current number.
    #[error("the number of partitions cannot be {asked}: at least 1 and the current {has} are required")]
    Partitions {
        /// Current number of partitions.
        has: u32,
        /// The requested number.
        asked: u32,
    },
    /// The site has too few nodes with records.
    #[error("{asked} replicas need as many nodes that keep records: the site has {nodes}")]
    Replicas {
        /// The requested number.
        asked: usize,
        /// Number of nodes.
        nodes: usize,
    },
    /// The setting requires more copies than are certain.
    #[error(
        "`min.insync.replicas` cannot be {asked}: an acknowledged record of this topic has {copies} certain copies; \
         use 1 to {copies}"
    )]
    Copies {
        /// The requested number.
        asked: u32,
        /// Number of copies that are certain.
        copies: u32,
    },
    /// The topic is compacted: its records are not deleted by offset.
    #[error("topic `{0}` is compacted (`cleanup.policy`): records are not deleted by offset")]
    KeptByKey(String),
    /// A replica group is still being copied away from the node.
    #[error("replica group {group} is still being copied from node {node}: ask again")]
    Moving {
        /// The replica group.
        group: u16,
        /// The node.
        node: u64,
    },
    /// A setting is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The name of the consumer group is invalid.
    #[error("`{0}` cannot name a consumer group: use 1 to 249 bytes without control characters")]
    GroupName(String),
    /// The offset is beyond the end of the partition.
    #[error("offset {offset} is beyond the end of the partition, {end}")]
    OffsetBeyondEnd {
        /// The offset.
        offset: Offset,
        /// End of the partition.
        end: Offset,
    },
    /// No permission.
    #[error("not allowed")]
    Denied,
    /// The state has changed since the caller read it.
    #[error("changed meanwhile: read again")]
    Changed,
    /// In the words of the node that leads.
    #[error("{0}")]
    Refused(String),
    /// The leader refused the change, for a reason of a known kind; the text is the leader's.
    #[error("{why}")]
    There {
        /// Kind of the refusal.
        refusal: Refusal,
        /// The reason.
        why: String,
    },
    /// The change was not committed, or its outcome is unknown.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The node is shutting down.
    #[error("node is shutting down")]
    Closed,
}

impl AdminError {
    /// Returns the kind of the error, which tells the caller how to react.
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
    /// An invalid name.
    Name,
    /// The topic exists already.
    Exists,
    /// An unknown topic.
    NoTopic,
    /// That number of partitions cannot be.
    Partitions,
    /// That number of replicas cannot be.
    Replicas,
    /// An unknown setting, or an invalid value.
    Setting,
    /// Missing permission.
    Denied,
    /// A limit, a user of the topic, a rule of the site.
    Rule,
    /// Not now: another try may help.
    Retry,
    /// The outcome is unknown.
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
    /// Returns the kind of the error, which tells the caller how to react.
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
