//! What a pipeline behind the log reads on one partition: a place in each of its sources, and what was read there and is not
//! looked at yet.
//!
//! The places are rows that change in the entries that hold what became of the records before them. So each record counts once,
//! whatever happens to the node.

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

/// See the module's docs.
pub(crate) struct Input {
    pipeline: TopicName,
    partition: u32,
    sources: Vec<Source>,
}

struct Source {
    /// Its place in the spec: a module knows it by that.
    index: u32,
    topic: TopicName,
    id: PartitionId,
    /// The first record that is not looked at yet.
    next: Offset,
    /// As it was stored last.
    stored: Offset,
    /// Where to read on.
    read_to: Offset,
    /// Not looked at yet, or not wholly.
    batches: VecDeque<Batch>,
    /// Nothing more was stored when it was read.
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
    /// Goes on where the last entry says on `partition`, or begins at its start. An in-line pipeline reads nothing.
    pub(crate) fn open(spec: &Spec, broker: &Broker, partition: u32) -> Result<Self, Refusal> {
        let mut sources = Vec::new();
        let topics = spec.source.iter().filter(|_| spec.is_behind_the_log());
        for (index, topic) in (0..).zip(topics) {
            let found = broker.topic(topic.as_str());
            let found = found.ok_or_else(|| Refusal::Halt(format!("its source `{topic}` is gone")))?;
            let id = found.partition(partition).map(|id| broker.identity(id));
            let Some(id) = id else {
                // Of several topics without state, not all need have as many.
                continue;
            };
            let stored = row(broker, spec.name.as_str(), partition, topic.as_str())
                .map_err(|e| Refusal::Halt(e.to_string()))?;
            if stored.is_some_and(|row| row.partition != id) {
                return Err(Refusal::Halt(format!(
                    "its source `{topic}` was removed and made again since it was last read: `weir pipeline rewind {}`",
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

    /// As [`Input::open`], at `origin`, whatever was read before, and of an in-line pipeline what its source has. Blocks.
    ///
    /// # Errors
    /// When there is no such place.
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

    /// Each source's topic, and the first offset of it that is not looked at yet.
    pub(crate) fn next(&self) -> impl Iterator<Item = (&TopicName, Offset)> {
        self.sources.iter().map(|s| (&s.topic, s.next))
    }

    /// Reads on where nothing is at hand. Returns how many offsets are passed over because what they held is gone.
    pub(crate) fn fetch_more(&mut self, broker: &Broker) -> Result<u64, Refusal> {
        let mut gone = 0;
        for source in &mut self.sources {
            if !source.batches.is_empty() {
                // More may have come since they were read.
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

    /// Whether there is anything to look at.
    pub(crate) fn has_records(&self) -> bool {
        self.sources.iter().any(|s| !s.batches.is_empty())
    }

    /// Whether nothing is stored that it has not seen, as far as it was read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.sources.iter().all(|s| s.batches.is_empty() && s.is_all)
    }

    /// Whether a place is not the one that is stored.
    pub(crate) fn has_moved(&self) -> bool {
        self.sources.iter().any(|s| s.next != s.stored)
    }

    /// What is at hand, decompressed: about `bytes` of each source, and a batch at least.
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

    /// Records of `bodies` that are not looked at yet.
    ///
    /// What was given up since it was read is not among them.
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

    /// The records of `lists` up to where they are have been looked at. `bodies` are how many batches of each source they are.
    pub(crate) fn advance(&mut self, to: &[Option<Offset>], bodies: &[usize]) {
        for ((source, to), bodies) in self.sources.iter_mut().zip(to).zip(bodies) {
            let end = match to {
                Some(offset) => *offset,
                // All of those batches, with what was dropped behind their last records.
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

    /// Gives back what was read and is not looked at yet: it is read again.
    pub(crate) fn give_back(&mut self) {
        for source in self.sources.iter_mut().filter(|s| !s.batches.is_empty()) {
            source.batches.clear();
            source.read_to = source.next;
            source.is_all = false;
        }
    }

    /// Rows for the places that have changed since the last time.
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

    /// Topic, and the first offset that is not read from the log yet, of each source.
    pub(crate) fn read_to(&self) -> Vec<(TopicName, Offset)> {
        let place = |s: &Source| (s.topic.clone(), s.read_to);
        self.sources.iter().map(place).collect()
    }

    /// Its place in the spec, and the name of source `n`.
    pub(crate) fn source(&self, n: usize) -> Option<(u32, &TopicName)> {
        self.sources.get(n).map(|s| (s.index, &s.topic))
    }
}

fn refusal(source: &Source, partition: u32, error: FetchError) -> Refusal {
    let at = format!("topic `{}`, partition {partition}", source.topic);
    match error {
        // Whoever leads it may be away: other partitions go on.
        FetchError::NotLeader(_) => Refusal::Busy,
        FetchError::Read(ReadError::Busy(why)) => {
            tracing::warn!(%at, %why, "a pipeline waits to read");
            Refusal::Busy
        }
        FetchError::Read(ReadError::Closed) => Refusal::Busy,
        FetchError::OutOfRange { offset, end } => Refusal::Halt(format!(
            "{at}: it had read up to {offset}, and the topic ends at {end}: `weir pipeline rewind` says where to go on"
        )),
        other => Refusal::Halt(format!("{at} cannot be read: {other}")),
    }
}
