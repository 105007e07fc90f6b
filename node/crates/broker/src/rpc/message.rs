//! Messages between nodes.

#[cfg(test)]
mod tests;

use crate::error::{FetchError, Refusal};
use crate::propose::request::Framing;
use crate::records::fetch::Fetched;
use crate::records::lookup::At;
use crate::state::rows::leader::LeaderReport;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::time::Duration;
use weir_log::Piece;
use weir_types::{Batch, BatchError, ErrorKind, Gap, GroupId, Offset, PartitionId};

/// A request between nodes. Encoded by position: append new variants.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PeerRequest {
    /// Numbers for producers.
    ProducerIds,
    /// A topic with default settings. Sent by nodes of the first release.
    CreateTopic { name: String, partitions: u32 },
    /// Reports the leader of a replica group.
    Leads { group: u16, led: LeaderReport },
    /// Records for a partition that the node which is asked leads.
    Produce {
        client: String,
        topic: String,
        partition: u32,
        batch: Vec<u8>,
        framing: Framing,
    },
    /// A chunk of a partition from an offset on. To the leader of the partition's group.
    Copy { partition: PartitionId, at: u64 },
    /// Seals a partition. To the leader of the partition's group.
    Seal { partition: PartitionId, to: PartitionId },
    /// The windows of a partition's producers. To the leader of the partition's group.
    Producers { partition: PartitionId },
    /// In which term a group is.
    Term { group: GroupId },
    /// Reports that a reassignment is complete. To the site's leader.
    Moved { to: PartitionId, term: u64 },
    /// Delivers a batch of another group's outbox to the partition with the original id `to`. To the leader
    /// of its group.
    Forward { to: PartitionId, batch: Vec<u8> },
    /// A way from a group to a partition of another. Of the site's leader.
    OpenChannel { home: GroupId, to: PartitionId },
    /// That a channel sends under another epoch than this from `base` on. Of the site's leader.
    RenewChannel {
        home: GroupId,
        to: PartitionId,
        epoch: i16,
        base: Offset,
    },
    /// Reads from a partition. To the leader of the partition's group.
    Read {
        client: String,
        topic: String,
        partition: u32,
        from: Offset,
        max_bytes: u32,
    },
    /// Looks up an offset. To the leader of the partition's group.
    Place {
        client: String,
        topic: String,
        partition: u32,
        at: At,
    },
    /// Up to where partitions are committed.
    Ends { partitions: Vec<PartitionId> },
    /// That modules are ready. Of any voter.
    Prepare { modules: Vec<[u8; 32]> },
    /// Rolls back a revision of a pipeline that violated its guards on the sender. To the site's leader.
    TakeBack {
        pipeline: String,
        revision: u64,
        why: String,
    },
    /// The highest level that the node supports. To any node.
    Level,
    /// A change of a topic. Of the site's leader.
    Change { client: String, change: Change },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PeerResponse {
    ProducerIds(Range<u64>),
    /// The request was carried out.
    Done,
    /// A refusal with its reason, and true if a retry may help.
    Refused(String, bool),
    Produced {
        base: Offset,
        span: u32,
    },
    NotProduced(String, RetryAdvice),
    Copied(Copied),
    Windows(Vec<(i64, Vec<u8>)>),
    Term(u64),
    /// The batch is stored, by this request or an earlier.
    Forwarded,
    /// Another sequence is the next, or the sender is not known.
    Expected(Option<i32>),
    Read(Reading),
    /// The offset is beyond the end.
    Beyond {
        end: Offset,
    },
    Place(Offset),
    /// In the order in which they were asked for.
    Ends(Vec<Offset>),
    Level(u32),
    /// A refusal with its kind and reason.
    NotDone(Refusal, String),
    /// The change is committed, and visible on nodes that have applied this number of entries of the site.
    DoneAt {
        applied: u64,
    },
}

/// Records read on another node.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reading {
    pub(crate) pieces: Vec<Read>,
    pub(crate) next: Offset,
    pub(crate) log_start: Offset,
    pub(crate) committed_end: Offset,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Read {
    Batch(Vec<u8>),
    Gap(Gap),
}

impl From<Fetched> for Reading {
    fn from(fetched: Fetched) -> Self {
        let read = |piece: Piece| match piece {
            Piece::Batch(batch) => Read::Batch(batch.bytes().to_vec()),
            Piece::Gap(gap) => Read::Gap(gap),
        };
        Self {
            pieces: fetched.pieces.into_iter().map(read).collect(),
            next: fetched.next,
            log_start: fetched.log_start,
            committed_end: fetched.committed_end,
        }
    }
}

impl TryFrom<Reading> for Fetched {
    type Error = BatchError;

    fn try_from(reading: Reading) -> Result<Self, BatchError> {
        let piece = |read: Read| match read {
            Read::Batch(bytes) => Batch::parse(Bytes::from(bytes)).map(Piece::Batch),
            Read::Gap(gap) => Ok(Piece::Gap(gap)),
        };
        Ok(Self {
            pieces: reading.pieces.into_iter().map(piece).collect::<Result<_, _>>()?,
            next: reading.next,
            log_start: reading.log_start,
            committed_end: reading.committed_end,
            throttle: Duration::ZERO,
            share: None,
        })
    }
}

/// Outcome of unacknowledged records, and advice on a retry.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum RetryAdvice {
    /// Not stored; a retry may help.
    Retry,
    /// Not stored; a retry would not help.
    Invalid,
    Unknown,
}

impl From<ErrorKind> for RetryAdvice {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Retry | ErrorKind::Closed => Self::Retry,
            ErrorKind::Invalid | ErrorKind::Fenced => Self::Invalid,
            ErrorKind::UnknownOutcome | ErrorKind::Corrupt | ErrorKind::Internal => Self::Unknown,
        }
    }
}

impl From<FetchError> for PeerResponse {
    fn from(e: FetchError) -> Self {
        match e {
            FetchError::OutOfRange { end, .. } => Self::Beyond { end },
            e => Self::Refused(e.to_string(), e.kind() == ErrorKind::Retry),
        }
    }
}

impl From<RetryAdvice> for ErrorKind {
    fn from(fate: RetryAdvice) -> Self {
        match fate {
            RetryAdvice::Retry => Self::Retry,
            RetryAdvice::Invalid => Self::Invalid,
            RetryAdvice::Unknown => Self::UnknownOutcome,
        }
    }
}

/// A change of a topic. Known by position: add at the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Change {
    Create {
        name: String,
        partitions: u32,
        replicas: Option<u32>,
        settings: Vec<(String, String)>,
        /// The topic is created on first use of its name, without an explicit request.
        is_unasked: bool,
    },
    Alter {
        name: String,
        partitions: Option<u32>,
        settings: Vec<(String, String)>,
    },
    Delete {
        name: String,
        /// The original id of the first partition, to delete that topic and no other of the name.
        first: Option<PartitionId>,
    },
    /// A topic was refused to an explicit request.
    Refuse { name: String },
}

/// A chunk of a partition that is being reassigned.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Copied {
    pub(crate) log_start: u64,
    pub(crate) next: u64,
    pub(crate) end: u64,
    pub(crate) sealed: bool,
    pub(crate) batches: Vec<Vec<u8>>,
}
