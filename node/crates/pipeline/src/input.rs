//! What a pipeline behind the log reads on one partition: a place in each of its sources, and what was read there and is not
//! looked at yet.
//!
//! The places are rows that change in the entries that hold what became of the records before them. So each record counts once,
//! whatever happens to the node.

use crate::lane::Refusal;
use crate::merge::List;
use crate::spec::Spec;
use crate::spec::source::{Origin, Sources};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use weir_broker::{
    At, Broker, Fetch, FetchError, FormatError, PartitionId, Piece, Principal, ReadError, StateKey,
    StateKind, decode, encode,
};
use weir_types::limits::LOG_TURN_BYTES;
use weir_types::{Batch, BatchError, Body, Offset, TopicName};

/// Up to where a partition was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    /// Which one it was, by the number with which it was made: a topic that was removed and made again has others.
    partition: PartitionId,
    next: Offset,
}

/// The key under which the places of `pipeline` lie, behind the kind.
fn of_pipeline(pipeline: &str) -> Vec<u8> {
    [pipeline.as_bytes(), &[0]].concat()
}

fn key(pipeline: &str, partition: u32, topic: &str) -> Vec<u8> {
    let partition = partition.to_be_bytes();
    [pipeline.as_bytes(), &[0], &partition[..], topic.as_bytes()].concat()
}

fn row(broker: &Broker, pipeline: &str, partition: u32, topic: &str) -> Result<Option<Row>, ReadError> {
    let key = key(pipeline, partition, topic);
    let rows = broker.rows_under(StateKind::Input, &key);
    let found = rows.into_iter().find(|(k, _)| *k == key);
    let found = found.map(|(_, value)| decode("a place of a pipeline", &value));
    found.transpose().map_err(|why| ReadError::Format {
        row: format!("pipeline `{pipeline}`, topic `{topic}`, partition {partition}"),
        why,
    })
}

fn written(pipeline: &str, partition: u32, topic: &str, row: Row) -> (StateKey, Option<Bytes>) {
    let key = StateKey::new(StateKind::Input, &key(pipeline, partition, topic));
    (key, Some(encode(&row)))
}

/// Who reads for a pipeline.
fn reader(pipeline: &str) -> Principal {
    Principal::anonymous(format!("pipeline {pipeline}"))
}

/// How far a pipeline has come on one partition of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The source.
    pub topic: String,
    /// Its partition.
    pub partition: u32,
    /// The first record that the pipeline has not seen.
    pub next: Offset,
    /// The end of what is committed there.
    pub end: Offset,
}

/// Ends of partitions that other nodes lead, as last heard.
pub(crate) type Ends = BTreeMap<(TopicName, u32), Offset>;

/// How far a pipeline has come, as stored. Of partitions that are other nodes' to lead, the ends are those that are known here.
pub(crate) fn places(broker: &Broker, spec: &Spec, heard: &Ends) -> Vec<Place> {
    let prefix = of_pipeline(spec.name.as_str());
    let place = |(key, value): (Vec<u8>, Vec<u8>)| {
        let (partition, topic) = key.get(prefix.len()..)?.split_first_chunk::<4>()?;
        let topic = std::str::from_utf8(topic).ok()?;
        let row: Result<Row, FormatError> = decode("a place of a pipeline", &value);
        let row = row
            .inspect_err(
                |error| tracing::error!(pipeline = %spec.name, topic, %error, "a place is not shown"),
            )
            .ok()?;
        let partition = u32::from_be_bytes(*partition);
        let end = broker.marks(topic, partition).map(|marks| marks.committed_end());
        let heard = heard
            .iter()
            .find(|((t, p), _)| t.as_str() == topic && *p == partition);
        let end = end.max(heard.map(|(_, end)| *end));
        spec.source.contains(topic).then(|| Place {
            topic: topic.to_owned(),
            partition,
            next: row.next,
            end: end.unwrap_or(row.next).max(row.next),
        })
    };
    let rows = broker.rows_under(StateKind::Input, &prefix);
    let mut places: Vec<_> = rows.into_iter().filter_map(place).collect();
    places.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    places
}

/// Rows that have a pipeline begin at `origin`: on all partitions of `sources`, or on those that it has no place on yet.
///
/// # Errors
/// When there is no such place.
pub(crate) async fn begin(
    broker: &Broker,
    pipeline: &str,
    sources: &Sources,
    origin: Origin,
    all: bool,
) -> Result<Vec<(StateKey, Option<Bytes>)>, FetchError> {
    let who = reader(pipeline);
    let mut rows = Vec::new();
    for topic in sources.iter().filter_map(|name| broker.topic(name.as_str())) {
        let name = topic.name.as_str();
        for (partition, id) in (0..).zip(&topic.partitions) {
            if !all && row(broker, pipeline, partition, name)?.is_some() {
                continue;
            }
            let next = place_of(broker, &who, (name, partition), origin).await?;
            let partition_id = broker.identity(*id);
            let row = Row {
                partition: partition_id,
                next,
            };
            rows.push(written(pipeline, partition, name, row));
        }
    }
    Ok(rows)
}

/// The offset at which `origin` is on a partition.
async fn place_of(
    broker: &Broker,
    who: &Principal,
    (topic, partition): (&str, u32),
    origin: Origin,
) -> Result<Offset, FetchError> {
    let at = |at| broker.offset_anywhere(who, topic, partition, at);
    match origin {
        Origin::Start => at(At::Start).await,
        Origin::End => at(At::End).await,
        Origin::Time(ms) => at(At::Time(ms)).await,
        Origin::Offset(offset) => {
            let (offset, end) = (Offset::new(offset), at(At::End).await?);
            match offset <= end {
                true => Ok(offset),
                false => Err(FetchError::OutOfRange { offset, end }),
            }
        }
    }
}

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
    fn new(index: u32, topic: &TopicName, id: PartitionId, next: Offset) -> Self {
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
    pub(crate) fn fill(&mut self, broker: &Broker) -> Result<u64, Refusal> {
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
