//! Reads of partitions that this node leads, with repair of unreadable ranges.

use crate::access::auth::{Operation, Principal, Resource, authorize};
use crate::core::Broker;
use crate::error::FetchError;
use crate::state::tables::Tables;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::oneshot;
use weir_log::{Chunk, Marks, Piece, ReadError};
use weir_replica::{Mended, ProposeError};
use weir_types::planted::{Bug, planted};
use weir_types::{Batch, BatchError, Gap, GapReason, Offset, PartitionId};

impl Broker {
    pub(crate) async fn read(
        &self,
        id: PartitionId,
        from: Offset,
        end: Offset,
        max_bytes: usize,
    ) -> Result<Chunk, ReadError> {
        let (done, answer) = oneshot::channel();
        let reply = move |r| drop(done.send(r));
        self.0.log.read(id, from, end, max_bytes, reply)?;
        let chunk = answer.await.map_err(|_| ReadError::Closed)??;
        let Some(marks) = self.0.log.marks(id) else {
            return Ok(chunk);
        };
        // Checked last: records that were trimmed during the read are not returned.
        from_start(id, chunk, marks.log_start())
    }

    /// Reads from a partition, and repairs ranges that are newly unreadable. Returns the range that no node
    /// could read, too, if any.
    ///
    /// # Errors
    /// When the read fails, or members that may have a range do not answer: nothing is reported as lost
    /// before that is known.
    pub(crate) async fn read_repaired(
        &self,
        id: PartitionId,
        range: Range<Offset>,
        max_bytes: usize,
        marks: &Marks,
    ) -> Result<(Chunk, Option<Gap>), ReadError> {
        let mut chunk = self.read(id, range.start, range.end, max_bytes).await?;
        // Each round leaves fewer gaps.
        while let Some(gap) = new_gap(&chunk, marks) {
            match self.mend(id, gap).await {
                Mended::Whole => {}
                Mended::Lost => return Ok((chunk, Some(gap))),
                Mended::Unknown => return Err(unknown(gap)),
            }
            chunk = self.read(id, range.start, range.end, max_bytes).await?;
            if new_gap(&chunk, marks) == Some(gap) {
                return Ok((chunk, Some(gap)));
            }
        }
        Ok((chunk, None))
    }

    /// Repairs an unreadable range with records of other members.
    pub(crate) async fn mend(&self, id: PartitionId, gap: Gap) -> Mended {
        match self.group_of(id.group()) {
            Some(group) => group.mend(id, gap.start, gap.end).await,
            None => Mended::Unknown,
        }
    }

    pub(crate) fn readable(
        &self,
        who: &Principal,
        topic: &str,
        partition: u32,
    ) -> Result<(PartitionId, Arc<Marks>), FetchError> {
        if !authorize(who, Operation::Read, Resource::Topic(topic)) {
            return Err(FetchError::Denied(topic.to_owned()));
        }
        let found = partition_id(&self.0.applied.tables(), topic, partition);
        let id = match found {
            // The leader may know the topic.
            Err(_) if !self.is_serving() => return Err(elsewhere(&self.not_leader())),
            found => found?,
        };
        self.check_readable(id)?;
        Ok((id, self.0.log.marks_or_new(id)))
    }

    pub(crate) fn check_readable(&self, id: PartitionId) -> Result<(), FetchError> {
        match self.serving_replica(id) {
            // New records are written elsewhere.
            Ok(_) if !self.serves(id) => Err(FetchError::NotLeader(None)),
            found => found.map(drop).map_err(|e| elsewhere(&e)),
        }
    }

    /// Checks that the partition is still the same: it may have moved during the read.
    pub(crate) fn is_still(
        &self,
        topic: &str,
        partition: u32,
        id: PartitionId,
        marks: &Arc<Marks>,
    ) -> Result<(), FetchError> {
        let now = self.topic(topic).and_then(|t| t.partition(partition));
        let same = self.0.log.marks(id).is_some_and(|m| Arc::ptr_eq(&m, marks));
        if same && now == Some(id) {
            Ok(())
        } else {
            Err(FetchError::NotLeader(None))
        }
    }
}

fn elsewhere(error: &ProposeError) -> FetchError {
    match error {
        ProposeError::NotLeader { leader } => FetchError::NotLeader(*leader),
        _ => FetchError::NotLeader(None),
    }
}

/// Returns the error for a range that may or may not be lost.
pub(crate) fn unknown(gap: Gap) -> ReadError {
    ReadError::Busy(format!(
        "offsets [{}, {}) cannot be read here, and not all other nodes answer: start them, \
         or remove dead nodes with `weir cluster remove`",
        gap.start, gap.end
    ))
}

/// Drops records before `start` from `chunk`.
fn from_start(partition: PartitionId, mut chunk: Chunk, start: Offset) -> Result<Chunk, ReadError> {
    if planted(Bug::DeletedServed) {
        return Ok(chunk);
    }
    for piece in &mut chunk.pieces {
        let Piece::Batch(batch) = piece else { continue };
        if batch.base_offset() >= start {
            break;
        }
        let left = without(batch, start).map_err(|e| ReadError::Damaged {
            partition,
            near: batch.base_offset().get(),
            why: e.to_string(),
        })?;
        *piece = Piece::Batch(left);
    }
    Ok(chunk)
}

/// Returns `batch` without the records before `start`, in the same frame.
fn without(batch: &Batch, start: Offset) -> Result<Batch, BatchError> {
    let body = batch.body()?;
    let (mut ends, mut keep) = (Vec::new(), Vec::new());
    let mut records = body.records();
    while let Some(record) = records.next() {
        keep.push(record?.offset >= start);
        ends.push(records.position() as u32);
    }
    batch.sparse(&ends, &body, &keep)
}

/// Returns the first lost range of `chunk` that was not known before.
fn new_gap(chunk: &Chunk, marks: &Marks) -> Option<Gap> {
    let known = marks.gaps();
    let is_known = |gap: &Gap| known.iter().any(|k| k.start <= gap.start && gap.end <= k.end);
    chunk.pieces.iter().find_map(|piece| match piece {
        Piece::Gap(gap) if gap.reason == GapReason::Lost && !is_known(gap) => Some(*gap),
        _ => None,
    })
}

fn partition_id(tables: &Tables, topic: &str, partition: u32) -> Result<PartitionId, FetchError> {
    let found = tables
        .topics
        .get(topic)
        .ok_or_else(|| FetchError::NoTopic(topic.to_owned()))?;
    let partitions = found.partitions.len() as u32;
    found.partition(partition).ok_or_else(|| FetchError::NoPartition {
        topic: topic.to_owned(),
        partition,
        partitions,
    })
}
