//! Reading: long polls, byte limits, offsets by time.

use crate::access::auth::{Operation, Principal, Resource, authorize};
use crate::access::ledger::Taken;
use crate::access::quota::Direction;
use crate::broker::Broker;
use crate::error::FetchError;
use crate::state::tables::Tables;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_log::{Chunk, Errand, Marks, Piece, ReadError, ScrubReport};
use weir_replica::{Mended, ProposeError};
use weir_types::limits::{FETCH_BYTES_MAX, FETCH_WAIT_MS_MAX};
use weir_types::planted::{Bug, planted};
use weir_types::{Batch, BatchError, Gap, GapReason, Offset, PartitionId};

/// How long a read waits for its share of the bytes of answers.
pub const SHARE_WITHIN: Duration = Duration::from_secs(5);

/// What to read.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// Topic by name.
    pub topic: String,
    /// Partition of it.
    pub partition: u32,
    /// First offset wanted.
    pub from: Offset,
    /// Bytes of batches to answer with at most; the first batch comes whatever its size.
    pub max_bytes: usize,
    /// How long to wait for a record when there is none.
    pub wait: Duration,
}

/// What a fetch gave.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Whole batches, and gaps with their reasons, in order of offsets. The first batch may begin before the offset
    /// asked for.
    pub pieces: Vec<Piece>,
    /// Where to go on.
    pub next: Offset,
    /// First offset that may still be there.
    pub log_start: Offset,
    /// First offset not yet committed.
    pub committed_end: Offset,
    /// How long the client's next request should be held back, by its quota.
    pub throttle: Duration,
    /// The share of the bytes of answers that goes with them, to be kept until they are sent.
    pub share: Option<Arc<Taken>>,
}

/// A place in a partition, by meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum At {
    /// The first record that is there.
    Start,
    /// After the last.
    End,
    /// The first record at or after this time, in milliseconds; the end when there is none.
    Time(i64),
}

impl Broker {
    /// Reads from a partition.
    ///
    /// # Errors
    /// When there is no such partition, the offset lies beyond its end, or its index is damaged. Damaged batches are
    /// no error: they come as gaps.
    ///
    /// # Cancel safety
    /// Safe: reading changes nothing.
    pub async fn fetch(&self, who: &Principal, fetch: Fetch) -> Result<Fetched, FetchError> {
        let mut fetched = self.read_for(who, fetch, true).await?;
        let batches = fetched.pieces.iter().filter_map(|piece| match piece {
            Piece::Batch(batch) => Some(batch),
            Piece::Gap(_) => None,
        });
        let (bytes, records) = batches.fold((0, 0), |(bytes, records), batch| {
            (bytes + batch.bytes().len(), records + u64::from(batch.count()))
        });
        fetched.throttle = self.delivered(who, bytes, records);
        Ok(fetched)
    }

    /// As [`Broker::fetch`], for a listener that may not hand over what it reads: nothing is counted, no quota charged and no
    /// share of the bytes of answers taken until it says so with [`Broker::delivered`].
    ///
    /// # Errors
    /// As [`Broker::fetch`].
    ///
    /// # Cancel safety
    /// Safe: reading changes nothing.
    pub async fn peek(&self, who: &Principal, fetch: Fetch) -> Result<Fetched, FetchError> {
        self.read_for(who, fetch, false).await
    }

    async fn read_for(&self, who: &Principal, fetch: Fetch, is_shared: bool) -> Result<Fetched, FetchError> {
        self.0.metrics.fetch_requests.fetch_add(1, Ordering::Relaxed);
        let (id, marks) = self.readable(who, &fetch.topic, fetch.partition)?;
        let end = marks.committed_end();
        if fetch.from > end {
            return Err(FetchError::OutOfRange {
                offset: fetch.from,
                end,
            });
        }
        if fetch.from == end && !fetch.wait.is_zero() {
            self.wait_for(id, &marks, fetch.from, fetch.wait).await;
        }
        self.lane_for_reads(id)?;
        let (log_start, committed_end) = (marks.log_start(), marks.committed_end());
        let mut chunk = Chunk {
            pieces: Vec::new(),
            next: fetch.from,
        };
        let mut share = None;
        if fetch.from < committed_end {
            if is_shared {
                // The first batch comes whole, whatever was asked for.
                let answers = &self.0.ledger.answers;
                share = Some(answers.take(FETCH_BYTES_MAX, who.address, SHARE_WITHIN).await?);
            }
            let max_bytes = fetch.max_bytes.min(FETCH_BYTES_MAX);
            chunk = self.read(id, fetch.from, committed_end, max_bytes).await?;
            // Noticed now, and nowhere on record: others may have it. Each time round there is one less.
            while let Some(gap) = noticed(&chunk, &marks) {
                match self.mend(id, gap).await {
                    Mended::Whole => {}
                    Mended::Lost => break,
                    // It is not told to be lost before that is known.
                    Mended::Unknown => return Err(unknown(gap).into()),
                }
                chunk = self.read(id, fetch.from, committed_end, max_bytes).await?;
                if noticed(&chunk, &marks) == Some(gap) {
                    break;
                }
            }
        }
        self.is_still(&fetch.topic, fetch.partition, id, &marks)?;
        if let Some(share) = &mut share {
            let sizes = chunk.pieces.iter().map(|piece| match piece {
                Piece::Batch(batch) => batch.bytes().len(),
                Piece::Gap(_) => 0,
            });
            share.keep(sizes.sum());
        }
        Ok(Fetched {
            share: share.map(Arc::new),
            pieces: chunk.pieces,
            next: chunk.next,
            log_start,
            committed_end,
            throttle: Duration::ZERO,
        })
    }

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
        // Looked at last: what was given up while it was read is not handed out either.
        from_start(id, chunk, marks.log_start())
    }

    /// Replaces what cannot be read of a gap by what other members have.
    pub(crate) async fn mend(&self, id: PartitionId, gap: Gap) -> Mended {
        match self.group_of(id.group()) {
            Some(group) => group.mend(id, gap.start, gap.end).await,
            None => Mended::Unknown,
        }
    }

    /// Reads all of this node's log, and replaces what cannot be read by what other members have. Calls `progress` with
    /// bytes read and in all; returns what was found, and what of it was mended.
    ///
    /// # Cancel safety
    /// Safe: it may be done again.
    pub async fn scrub(
        &self,
        progress: impl FnMut(u64, u64) + Send + 'static,
    ) -> Result<(ScrubReport, Vec<(PartitionId, Gap)>), ReadError> {
        if self.group().is_witness() {
            // It has no records, and must not get any.
            return Ok((ScrubReport::default(), Vec::new()));
        }
        let Ok(one) = Arc::clone(&self.0.scrubbing).try_acquire_owned() else {
            return Err(ReadError::Busy("another scrub is under way".to_owned()));
        };
        let (done, answer) = oneshot::channel();
        let log = self.0.log.clone();
        // Not a reader's: it takes as long as the disk.
        let errand = Errand::new(move || {
            let _one = one;
            drop(done.send(log.scrub(progress)));
        });
        let started = self.0.log.workers().start("weir-scrub", errand);
        started.map_err(|e| ReadError::Busy(e.to_string()))?;
        let mut report = answer.await.map_err(|_| ReadError::Closed)??;
        let mut mended = Vec::new();
        for (partition, gap) in std::mem::take(&mut report.damaged) {
            let list = match self.mend(partition, gap).await {
                Mended::Whole => &mut mended,
                Mended::Lost | Mended::Unknown => &mut report.damaged,
            };
            list.push((partition, gap));
        }
        Ok((report, mended))
    }

    /// The offset of a place in a partition.
    ///
    /// # Errors
    /// As [`Broker::fetch`].
    pub async fn offset_at(
        &self,
        who: &Principal,
        topic: &str,
        partition: u32,
        at: At,
    ) -> Result<Offset, FetchError> {
        let (_, marks) = self.readable(who, topic, partition)?;
        let timestamp = match at {
            At::Start => return Ok(marks.log_start()),
            At::End => return Ok(marks.committed_end()),
            At::Time(timestamp) => timestamp,
        };
        let found = self.record_at_time(who, topic, partition, timestamp).await?;
        Ok(found.map_or_else(|| marks.committed_end(), |(offset, _)| offset))
    }

    /// Where a partition stands, for describing it.
    pub fn marks(&self, topic: &str, partition: u32) -> Option<Arc<Marks>> {
        let id = self.0.applied.topic(topic)?.partition(partition)?;
        self.0.log.marks(id)
    }

    /// Returns when any of `places`, each a topic, a partition and an offset, has a record at its offset, or after
    /// `wait`; and whether it waited at all. A place that does not exist ends the wait: reading it tells why.
    ///
    /// # Cancel safety
    /// Safe: nothing changes.
    pub async fn wait_for_any(&self, places: &[(String, u32, Offset)], wait: Duration) -> bool {
        let found: Option<Vec<_>> = places
            .iter()
            .map(|(topic, partition, from)| {
                let id = self.0.applied.topic(topic)?.partition(*partition)?;
                Some((self.0.applied.growth.of(id), self.0.log.marks_or_new(id), *from))
            })
            .collect();
        let Some(found) = found else { return false };
        // Asked for before looking, so that growth in between is not missed.
        let mut notified: Vec<_> = found
            .iter()
            .map(|(growth, ..)| Box::pin(growth.notified()))
            .collect();
        for n in &mut notified {
            let _ = n.as_mut().enable();
        }
        if found.iter().any(|(_, marks, from)| marks.committed_end() > *from) {
            return false;
        }
        let any = std::future::poll_fn(|cx| {
            let grown = notified.iter_mut().any(|n| n.as_mut().poll(cx).is_ready());
            if grown { Poll::Ready(()) } else { Poll::Pending }
        });
        let wait = wait.min(Duration::from_millis(FETCH_WAIT_MS_MAX));
        let _ = tokio::time::timeout(wait, any).await;
        true
    }

    /// The largest timestamp of a partition, and the first record that has it; `None` if it is empty.
    ///
    /// # Errors
    /// As [`Broker::fetch`].
    pub async fn offset_of_max_timestamp(
        &self,
        who: &Principal,
        topic: &str,
        partition: u32,
    ) -> Result<Option<(Offset, i64)>, FetchError> {
        let (_, marks) = self.readable(who, topic, partition)?;
        let end = marks.committed_end();
        let timestamp = marks.max_timestamp();
        let offset = self.offset_at(who, topic, partition, At::Time(timestamp)).await?;
        Ok((offset < end).then_some((offset, timestamp)))
    }

    /// The first record of a partition at or after `timestamp`, in milliseconds, and its own time.
    ///
    /// # Errors
    /// As [`Broker::fetch`].
    pub async fn record_at_time(
        &self,
        who: &Principal,
        topic: &str,
        partition: u32,
        timestamp: i64,
    ) -> Result<Option<(Offset, i64)>, FetchError> {
        let (id, marks) = self.readable(who, topic, partition)?;
        let (done, answer) = oneshot::channel();
        self.0.log.seek(id, timestamp, move |r| drop(done.send(r)))?;
        let mut chunk = answer.await.map_err(|_| weir_log::ReadError::Closed)??;
        let (end, mut last) = (marks.committed_end(), Offset::ZERO);
        loop {
            self.is_still(topic, partition, id, &marks)?;
            if let Some(found) = first_at(&chunk, timestamp, marks.log_start()) {
                return Ok(Some(found));
            }
            // What the headers promised was given up since, or never was: look behind it.
            let from = chunk.next;
            if from >= end || from <= last || chunk.pieces.is_empty() {
                return Ok(None);
            }
            last = from;
            let (done, answer) = oneshot::channel();
            self.0
                .log
                .read(id, from, end, FETCH_BYTES_MAX, move |r| drop(done.send(r)))?;
            chunk = answer.await.map_err(|_| weir_log::ReadError::Closed)??;
        }
    }

    fn readable(
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
            // Another may know of it.
            Err(_) if !self.is_serving() => return Err(elsewhere(&self.not_leader())),
            found => found?,
        };
        self.lane_for_reads(id)?;
        Ok((id, self.0.log.marks_or_new(id)))
    }

    fn lane_for_reads(&self, id: PartitionId) -> Result<(), FetchError> {
        match self.serving_lane(id) {
            // What is written to it by now is elsewhere.
            Ok(_) if !self.serves(id) => Err(FetchError::NotLeader(None)),
            found => found.map(drop).map_err(|e| elsewhere(&e)),
        }
    }

    /// Whether what was read of a partition is what it has: it may have moved meanwhile, and be gone here.
    fn is_still(
        &self,
        topic: &str,
        partition: u32,
        id: PartitionId,
        marks: &Arc<Marks>,
    ) -> Result<(), FetchError> {
        let now = self.topic(topic).and_then(|t| t.partition(partition));
        let same = self.0.log.marks(id).is_some_and(|m| Arc::ptr_eq(&m, marks));
        match same && now == Some(id) {
            true => Ok(()),
            false => Err(FetchError::NotLeader(None)),
        }
    }

    /// Returns when the partition has grown past `from`, or after `wait`.
    async fn wait_for(&self, id: PartitionId, marks: &Marks, from: Offset, wait: Duration) {
        let wait = wait.min(Duration::from_millis(FETCH_WAIT_MS_MAX));
        let growth = self.0.applied.growth.of(id);
        let grown = async {
            loop {
                let mut notified = std::pin::pin!(growth.notified());
                // Asked for before looking, so that growth in between is not missed.
                notified.as_mut().enable();
                if marks.committed_end() > from {
                    return;
                }
                notified.await;
                if self.0.log.marks(id).is_none() || !self.serves(id) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(wait, grown).await;
    }

    /// Waits as long as a request has to whose account is over its quota, and not at all otherwise. A listener asks before anything
    /// of the request takes room, so that a new connection is not a new account.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn hold_back(&self, who: &Principal, direction: Direction) {
        let by = self.0.quotas.charge(direction, &who.account, 0, Instant::now());
        // A sleep of no length takes a millisecond, of each request.
        if !by.is_zero() {
            tokio::time::sleep(by).await;
        }
    }

    /// Counts what a client is handed, and charges its quota. Returns how long its next request should be held back.
    pub fn delivered(&self, who: &Principal, bytes: usize, records: u64) -> Duration {
        self.0.metrics.records_out.fetch_add(records, Ordering::Relaxed);
        self.0
            .metrics
            .bytes_out
            .fetch_add(bytes as u64, Ordering::Relaxed);
        self.0
            .quotas
            .charge(Direction::Fetch, &who.account, bytes, Instant::now())
    }
}

fn elsewhere(error: &ProposeError) -> FetchError {
    match error {
        ProposeError::NotLeader { leader } => FetchError::NotLeader(*leader),
        _ => FetchError::NotLeader(None),
    }
}

/// It may be lost, or not.
pub(crate) fn unknown(gap: Gap) -> ReadError {
    ReadError::Busy(format!(
        "offsets [{}, {}) cannot be read here, and not all other nodes can be asked for them: see to it that they run, \
         or remove those that are gone with `weir cluster remove`",
        gap.start, gap.end
    ))
}

/// What of `chunk` is at `start` or behind. A batch that begins before is cut down to the records that are still there.
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

/// `batch` without its records before `start`, in its own frame.
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

/// The first range of `chunk` that is lost, and was not known to be.
pub(crate) fn noticed(chunk: &Chunk, marks: &Marks) -> Option<Gap> {
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

/// The first record in `chunk` that is not before `timestamp`.
fn first_at(chunk: &Chunk, timestamp: i64, start: Offset) -> Option<(Offset, i64)> {
    chunk.pieces.iter().find_map(|piece| {
        let Piece::Batch(batch) = piece else { return None };
        let body = batch.body().ok()?;
        body.records()
            .filter_map(Result::ok)
            .find(|r| r.timestamp >= timestamp && r.offset >= start)
            .map(|r| (r.offset, r.timestamp))
    })
}
