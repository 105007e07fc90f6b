//! Input of a log pipeline on a partition: a position in each source, and records that are read but not
//! processed.
//!
//! Positions are rows that change in the same entry as the results of the records before them. Each record
//! therefore counts once, whatever happens to the node.

use crate::partition::merge::List;
use crate::partition::place::{Row, place_of, reader, row, written};
use crate::partition::refusal::Refusal;
use crate::spec::Spec;
use crate::spec::source::Origin;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;
use weir_broker::{Broker, Fetch, FetchError, PartitionId, Piece, ReadError, StateKey};
use weir_types::limits::LOG_TURN_BYTES;
use weir_types::{Batch, BatchError, Body, Offset, TopicName};

/// Input of a log pipeline on a partition.
pub(crate) struct Input {
    pipeline: TopicName,
    partition: u32,
    sources: Vec<Source>,
}

struct Source {
    /// Index of the source in the spec, by which modules know the source.
    index: u32,
    topic: TopicName,
    id: PartitionId,
    /// Offset of the first unprocessed record.
    next: Offset,
    /// Position as last stored.
    stored: Offset,
    /// Offset at which the next fetch begins.
    read_to: Offset,
    /// Batches that are not or not completely processed.
    batches: VecDeque<Batch>,
    /// The last fetch reached the end of the log.
    is_all: bool,
}

impl Source {
    pub(crate) fn new(index: u32, topic: &TopicName, id: PartitionId, next: Offset) -> Self {
        Self {
            index,
            topic: topic.clone(),
            id,
            next,
            stored: next,
            read_to: next,
            batches: VecDeque::new(),
            is_all: false,
        }
    }
}

impl Input {
    /// Opens the input at its stored position on `partition`, or at the start. The input of an in-line
    /// pipeline is empty.
    pub(crate) fn open(spec: &Spec, broker: &Broker, partition: u32) -> Result<Self, Refusal> {
        let mut sources = Vec::new();
        let topics = spec.source.iter().filter(|_| spec.is_behind_the_log());
        for (index, topic) in (0..).zip(topics) {
            let found = broker.topic(topic.as_str());
            let found = found
                .ok_or_else(|| Refusal::Halt(format!("the source `{topic}` does not exist any more")))?;
            let id = found.partition(partition).map(|id| broker.identity(id));
            let Some(id) = id else {
                // The sources of a stateless pipeline may differ in their number of partitions.
                continue;
            };
            let stored = row(broker, spec.name.as_str(), partition, topic.as_str())
                .map_err(|e| Refusal::Halt(e.to_string()))?;
            if stored.is_some_and(|row| row.partition != id) {
                return Err(Refusal::Halt(format!(
                    "the source `{topic}` was removed and created again since the last read: run `weir pipeline rewind {}`",
                    spec.name
                )));
            }
            let next = stored.map_or(Offset::ZERO, |row| row.next);
            sources.push(Source::new(index, topic, id, next));
        }
        Ok(Self {
            pipeline: spec.name.clone(),
            partition,
            sources,
        })
    }

    /// Opens the input at `origin` and ignores stored positions, for log and in-line pipelines. Blocks.
    ///
    /// # Errors
    /// When `origin` does not exist on a partition.
    pub(crate) fn at(
        spec: &Spec,
        broker: &Broker,
        partition: u32,
        origin: Origin,
    ) -> Result<Self, FetchError> {
        let who = reader(spec.name.as_str());
        let mut sources = Vec::new();
        for (index, topic) in (0..).zip(spec.source.iter()) {
            let found = broker.topic(topic.as_str());
            let id = found.and_then(|found| found.partition(partition));
            let Some(id) = id.map(|id| broker.identity(id)) else {
                continue;
            };
            let place = place_of(broker, &who, (topic.as_str(), partition), origin);
            let next = broker.block_on(place)?;
            sources.push(Source::new(index, topic, id, next));
        }
        Ok(Self {
            pipeline: spec.name.clone(),
            partition,
            sources,
        })
    }

    /// Iterates over the sources' topics, each with the offset of its first unprocessed record.
    pub(crate) fn next(&self) -> impl Iterator<Item = (&TopicName, Offset)> {
        self.sources.iter().map(|s| (&s.topic, s.next))
    }

    /// Fetches more from every source without unprocessed batches. Returns the number of offsets skipped
    /// because their records are gone. Blocks.
    pub(crate) fn fetch_more(&mut self, broker: &Broker) -> Result<u64, Refusal> {
        let mut gone = 0;
        for source in &mut self.sources {
            if !source.batches.is_empty() {
                // The log may have grown since they were read.
                source.is_all = false;
                continue;
            }
            let fetch = Fetch {
                topic: source.topic.to_string(),
                partition: self.partition,
                from: source.read_to,
                max_bytes: LOG_TURN_BYTES,
                wait: Duration::ZERO,
            };
            let fetched = broker.block_on(broker.peek_anywhere(&reader(self.pipeline.as_str()), fetch));
            let fetched = fetched.map_err(|e| refusal(source, self.partition, e))?;
            for piece in fetched.pieces {
                match piece {
                    Piece::Batch(batch) => source.batches.push_back(batch),
                    Piece::Gap(gap) => {
                        gone += gap.end.get() - gap.start.max(source.next).get().min(gap.end.get())
                    }
                }
            }
            source.read_to = fetched.next;
            source.is_all = fetched.next >= fetched.committed_end;
            if source.batches.is_empty() {
                source.next = source.read_to;
            }
        }
        Ok(gone)
    }

    /// Returns true if there are unprocessed batches.
    pub(crate) fn has_records(&self) -> bool {
        self.sources.iter().any(|s| !s.batches.is_empty())
    }

    /// Returns true if all sources are processed up to the end of the log, as of the last fetch.
    pub(crate) fn is_at_end(&self) -> bool {
        self.sources.iter().all(|s| s.batches.is_empty() && s.is_all)
    }

    /// Returns true if a position differs from the stored position.
    pub(crate) fn has_moved(&self) -> bool {
        self.sources.iter().any(|s| s.next != s.stored)
    }

    /// Decompresses batches: about `bytes` per source, and at least a batch.
    pub(crate) fn bodies(&self, bytes: usize) -> Result<Vec<Vec<Body>>, BatchError> {
        let of = |source: &Source| {
            let (mut bodies, mut size) = (Vec::new(), 0);
            for batch in &source.batches {
                if size > bytes {
                    break;
                }
                let body = batch.body()?;
                size += body.bytes().len();
                bodies.push(body);
            }
            Ok(bodies)
        };
        self.sources.iter().map(of).collect()
    }

    /// Returns the unprocessed records of `bodies`.
    ///
    /// Records that were deleted from the log since the fetch are left out.
    pub(crate) fn lists<'a>(
        &self,
        broker: &Broker,
        bodies: &'a [Vec<Body>],
    ) -> Result<Vec<List<'a>>, BatchError> {
        let of = |(source, bodies): (&Source, &'a Vec<Body>)| {
            let marks = broker.marks(source.topic.as_str(), self.partition);
            let first = source
                .next
                .max(marks.map(|marks| marks.log_start()).unwrap_or_default());
            let (mut records, mut ends) = (Vec::new(), Vec::new());
            for body in bodies {
                for record in body.records() {
                    let record = record?;
                    if record.offset >= first {
                        records.push(record);
                    }
                }
                ends.push(records.len());
            }
            Ok(List {
                records,
                ends,
                at: 0,
                is_all: source.is_all && bodies.len() == source.batches.len(),
            })
        };
        self.sources.iter().zip(bodies).map(of).collect()
    }

    /// Moves the positions to `to`, the offset of each source's first unprocessed record. `None` means that
    /// all of the source's `bodies`, given as numbers of batches, are processed.
    pub(crate) fn advance(&mut self, to: &[Option<Offset>], bodies: &[usize]) {
        for ((source, to), bodies) in self.sources.iter_mut().zip(to).zip(bodies) {
            let end = match to {
                Some(offset) => *offset,
                // All batches, including offsets removed after their last records.
                None if *bodies >= source.batches.len() => source.read_to,
                None => source
                    .batches
                    .get(bodies.saturating_sub(1))
                    .map_or(source.next, Batch::end_offset),
            };
            source.next = source.next.max(end);
            while source
                .batches
                .front()
                .is_some_and(|b| b.end_offset() <= source.next)
            {
                source.batches.pop_front();
            }
        }
    }

    /// Drops unprocessed batches, which are fetched again later.
    pub(crate) fn give_back(&mut self) {
        for source in self.sources.iter_mut().filter(|s| !s.batches.is_empty()) {
            source.batches.clear();
            source.read_to = source.next;
            source.is_all = false;
        }
    }

    /// Appends rows for the positions that changed since the last call.
    pub(crate) fn changes(&mut self, rows: &mut Vec<(StateKey, Option<Bytes>)>) {
        for source in self.sources.iter_mut().filter(|s| s.next != s.stored) {
            source.stored = source.next;
            let row = Row {
                partition: source.id,
                next: source.next,
            };
            let (pipeline, topic) = (self.pipeline.as_str(), source.topic.as_str());
            rows.push(written(pipeline, self.partition, topic, row));
        }
    }

    /// Returns each source's topic, with the offset at which the next fetch begins.
    pub(crate) fn read_to(&self) -> Vec<(TopicName, Offset)> {
        let place = |s: &Source| (s.topic.clone(), s.read_to);
        self.sources.iter().map(place).collect()
    }

    /// Returns the index in the spec, and the topic, of source `n`.
    pub(crate) fn source(&self, n: usize) -> Option<(u32, &TopicName)> {
        self.sources.get(n).map(|s| (s.index, &s.topic))
    }
}

fn refusal(source: &Source, partition: u32, error: FetchError) -> Refusal {
    let at = format!("topic `{}`, partition {partition}", source.topic);
    match error {
        // The leader may be unreachable. Other partitions go on.
        FetchError::NotLeader(_) => Refusal::Busy,
        FetchError::Read(ReadError::Busy(why)) => {
            tracing::warn!(%at, %why, "a pipeline waits for a busy log");
            Refusal::Busy
        }
        FetchError::Read(ReadError::Closed) => Refusal::Busy,
        FetchError::OutOfRange { offset, end } => Refusal::Halt(format!(
            "{at}: read up to {offset}, but the topic ends at {end}: choose a position with `weir pipeline rewind`"
        )),
        other => Refusal::Halt(format!("{at} cannot be read: {other}")),
    }
}
