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

/// What is asked. Known by position: add at the end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PeerRequest {
    /// Numbers for producers.
    ProducerIds,
    /// A topic with default settings. Sent by nodes of the first release.
    CreateTopic { name: String, partitions: u32 },
    /// Who leads a replica group.
    Leads { group: u16, led: LeaderReport },
    /// Records for a partition that the node which is asked leads.
    Produce {
        client: String,
        topic: String,
        partition: u32,
        batch: Vec<u8>,
        framing: Framing,
    },
    /// What a partition has from an offset on. Of the leader of its group, as all below.
    Copy { partition: PartitionId, at: u64 },
    /// That it takes nothing more.
    Seal { partition: PartitionId, to: PartitionId },
    /// The windows of its producers.
    Producers { partition: PartitionId },
    /// In which term a group is.
    Term { group: GroupId },
    /// That all of a partition is where it was to go. Of the site's leader.
    Moved { to: PartitionId, term: u64 },
    /// A batch of another group's outbox, for the partition that was made as `to`. Of the leader of its group.
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
    /// What is stored from an offset on. Of the leader of the partition's group, as those below.
    Read {
        client: String,
        topic: String,
        partition: u32,
        from: Offset,
        max_bytes: u32,
    },
    /// Where a place is.
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
    /// That a revision of a pipeline has left its bounds on the node that says so. Of the site's leader.
    TakeBack {
        pipeline: String,
        revision: u64,
        why: String,
    },
    /// What it can read at most. Of any node.
    Level,
    /// A change of a topic. Of the site's leader.
    Change { client: String, change: Change },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PeerResponse {
    ProducerIds(Range<u64>),
    /// It is done.
    Done,
    /// In words; and whether it is worth another try.
    Refused(String, bool),
    Produced {
        base: Offset,
        span: u32,
    },
    NotProduced(String, RetryAdvice),
    Copied(Copied),
    Windows(Vec<(i64, Vec<u8>)>),
    Term(u64),
    /// It is there, now or since an earlier time.
    Forwarded,
    /// Another sequence is the next, or the sender is not known.
    Expected(Option<i32>),
    Read(Reading),
    /// What was asked for lies beyond the end.
    Beyond {
        end: Offset,
    },
    Place(Offset),
    /// In the order in which they were asked for.
    Ends(Vec<Offset>),
    Level(u32),
    /// It is not done, for a reason of this kind, in words.
    NotDone(Refusal, String),
    /// It is done, and shows on a node that has applied so many entries of the site.
    DoneAt {
        applied: u64,
    },
}

/// What was read elsewhere.
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

/// What became of records that were not acknowledged.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum RetryAdvice {
    /// Nothing, and another try may help.
    Retry,
    /// Nothing, and another try would not help.
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
        /// Nobody has asked for the topic, but somebody uses its name.
        is_unasked: bool,
    },
    Alter {
        name: String,
        partitions: Option<u32>,
        settings: Vec<(String, String)>,
    },
    Delete {
        name: String,
        /// The number with which its first partition was made, if it is to be that topic and no other of its name.
        first: Option<PartitionId>,
    },
    /// A topic that was refused to somebody who said how it should be.
    Refuse { name: String },
}

/// What the old partition has from an offset on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Copied {
    pub(crate) log_start: u64,
    pub(crate) next: u64,
    pub(crate) end: u64,
    pub(crate) sealed: bool,
    pub(crate) batches: Vec<Vec<u8>>,
}
