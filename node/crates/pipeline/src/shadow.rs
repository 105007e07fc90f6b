//! Trying a pipeline out on what is stored, beside the one that works, without writing anything.
//!
//! Both look at the same records, each with nothing remembered at first; what they make of each record is compared, and what it
//! costs. An in-line pipeline is tried on what its source has: what it dropped is not there.

use crate::error::{ApplyError, PushError};
use crate::partition::input::Input;
use crate::partition::refusal::Refusal;
use crate::partition::state::Part;
use crate::pipelines::{Pipelines, apart};
use crate::priority::Priority;
use crate::spec::Spec;
use crate::spec::source::Origin;
use crate::stages::effects::TooMuch;
use crate::worker::cycle::{Sink, Turn};
use crate::worker::trace::What;
use crate::worker::worker::Worker;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use weir_broker::{AdminError, Broker, Chain, Topic};
use weir_types::limits::STATEFUL_PARTITIONS_MAX;
use weir_types::{Offset, PartitionId, TopicName};

/// Differences that are told of in full.
const EXAMPLES_MAX: usize = 10;

/// Bytes of a key or value that are told.
const TOLD_BYTES: usize = 200;

/// How long a side that has seen everything waits for more.
const PAUSE: Duration = Duration::from_millis(20);

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shadowed {
    /// The pipeline's name.
    pub name: String,
    /// Seconds that it took.
    pub seconds: f64,
    /// What was tried.
    pub candidate: Side,
    /// The pipeline of that name as it is, if there is one.
    pub live: Option<Side>,
    /// Records of which the two make something else.
    pub differences: u64,
    /// The first of them.
    pub examples: Vec<Example>,
    /// Whether something else came of timers: their outputs are counted and summed up, not told.
    pub timers_differ: bool,
}

/// What one of the two did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub struct Side {
    pub revision: Option<u64>,
    pub records: u64,
    pub kept: u64,
    pub dropped: u64,
    pub emitted: u64,
    pub routed: BTreeMap<String, u64>,
    pub dead_letters: u64,
    pub skipped: u64,
    pub failures: u64,
    pub timers_fired: u64,
    pub wasm_ns: u64,
    /// Why it stopped before the end.
    pub halted: Option<String>,
}

/// A record of which the two make something else.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub struct Example {
    pub topic: String,
    pub partition: u32,
    pub offset: Offset,
    pub live: Vec<Told>,
    pub candidate: Vec<Told>,
}

/// A record that came out, for people: text where it is some, and not all of it where it is long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The output; `dead` for dead letters.
    pub output: String,
    /// Its key; nothing for one that is as it came.
    pub key: Option<String>,
    /// Its value; nothing for one that is as it came. Of a dead letter, why.
    pub value: Option<String>,
}

/// Lines by topic and offset of what they stem from.
type ByStem = BTreeMap<(String, Offset), Vec<What>>;

/// One of the two at work.
struct Run {
    worker: Worker,
    topic: Arc<Topic>,
    parts: BTreeMap<u32, Part>,
    lines: BTreeMap<u32, ByStem>,
    /// Of all that timers made: how much, and a sum that does not depend on the order.
    of_timers: (u64, u64),
    /// Topics whose records both look at, or nothing to compare with.
    common: BTreeSet<TopicName>,
    revision: Option<u64>,
    halted: Option<String>,
}

impl Run {
    fn new(
        broker: &Broker,
        spec: Spec,
        stages: Vec<crate::stages::stage::Stage>,
        revision: Option<u64>,
    ) -> Option<Self> {
        let topic = broker.topic(spec.source.first())?;
        let worker = Worker::apart(Arc::new(spec), stages, broker.clone());
        Some(Self {
            worker,
            topic,
            parts: BTreeMap::new(),
            lines: BTreeMap::new(),
            of_timers: (0, 0),
            common: BTreeSet::new(),
            revision,
            halted: None,
        })
    }

    /// Goes to `origin` on a partition.
    fn begin(&mut self, partition: u32, origin: Origin) -> Result<(), ApplyError> {
        let Worker {
            spec, stages, broker, ..
        } = &self.worker;
        let chain = Chain::begin(broker, PartitionId::HOME);
        let chain = chain.ok_or(AdminError::Closed)?;
        let input = Input::at(spec, broker, partition, origin)?;
        let part = Part::apart(spec, stages, chain, input, partition);
        self.parts.insert(partition, part);
        self.lines.insert(partition, ByStem::new());
        Ok(())
    }

    /// Looks at some more records of a partition. Whether there were any.
    fn turn(&mut self, partition: u32) -> bool {
        let Some(part) = self.parts.get_mut(&partition).filter(|_| self.halted.is_none()) else {
            return false;
        };
        let mut turn = Turn {
            part,
            topic: &self.topic,
            partition,
            sink: Sink::Shadow(Vec::new()),
            fired: 0,
            most: usize::MAX,
            looked_at: 0,
        };
        let filled = turn.part.input.fill(&self.worker.broker);
        let had_records = turn.part.input.has_records();
        let looked = filled.and_then(|_| self.worker.look(&mut turn));
        turn.part.settle();
        match looked {
            Ok(()) => {}
            Err(Refusal::Halt(why)) => self.halted = Some(why),
            Err(Refusal::NotLeader) => {
                self.halted = Some("another node leads by now: try again there".to_owned())
            }
            Err(Refusal::TooMuch(much)) => {
                let TooMuch { bytes, limit, of } = much;
                self.halted = Some(format!(
                    "{of} records come to {bytes} bytes, and one entry has at most {limit}"
                ));
            }
            Err(Refusal::Busy) => {
                self.halted = Some("the log cannot be read at present: try again".to_owned())
            }
        }
        let Sink::Shadow(lines) = turn.sink else {
            return had_records;
        };
        for line in lines {
            match line.stem {
                // What the other never sees would be kept for ever.
                Some((topic, _)) if !self.common.iter().any(|name| name.as_str() == topic) => {}
                Some(stem) => {
                    let of = self.lines.entry(partition).or_default();
                    of.entry(stem).or_default().push(line.what);
                }
                None => {
                    let mut hash = DefaultHasher::new();
                    line.what.hash(&mut hash);
                    let (count, sum) = self.of_timers;
                    self.of_timers = (count + 1, sum.wrapping_add(hash.finish()));
                }
            }
        }
        had_records
    }

    /// How much of what both look at it has seen of a partition.
    fn place(&self, partition: u32) -> u64 {
        let part = self.parts.get(&partition).into_iter();
        let places = part.flat_map(|part| part.input.next());
        let of_common = places.filter(|(topic, _)| self.common.contains(*topic));
        of_common.map(|(_, next)| next.get()).sum()
    }

    /// Whether it has looked at a record.
    fn has_seen(&self, partition: u32, topic: &str, offset: Offset) -> bool {
        let part = self.parts.get(&partition);
        part.is_some_and(|part| {
            part.input
                .next()
                .any(|(name, next)| name.as_str() == topic && offset < next)
        })
    }

    fn side(self) -> Side {
        let counts = &self.worker.shared.counts;
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let routed = counts.routed.lock();
        Side {
            revision: self.revision,
            records: load(&counts.records_in),
            kept: load(&counts.kept),
            dropped: load(&counts.dropped),
            emitted: load(&counts.emitted),
            routed: routed.map(|routed| routed.clone()).unwrap_or_default(),
            dead_letters: load(&counts.dead_letters),
            skipped: load(&counts.skipped),
            failures: load(&counts.failures),
            timers_fired: load(&counts.timers_fired),
            wasm_ns: load(&counts.wasm_ns),
            halted: self.halted,
        }
    }
}

/// The two together, and how they differ.
struct Shadow {
    candidate: Run,
    live: Option<Run>,
    differences: u64,
    examples: Vec<Example>,
}

impl Shadow {
    /// A turn of the one that is behind, or of each: what one has seen and the other has not is kept in memory. Whether there was
    /// anything.
    fn turn(&mut self, partition: u32) -> bool {
        if self.is_halted() {
            return false;
        }
        let Some(live) = &mut self.live else {
            let did = self.candidate.turn(partition);
            self.compare(partition);
            return did;
        };
        let (theirs, ours) = (live.place(partition), self.candidate.place(partition));
        let mut did = ours <= theirs && self.candidate.turn(partition);
        if theirs <= ours || !did {
            did |= live.turn(partition);
        }
        self.compare(partition);
        did
    }

    /// Whether one of the two goes no further: there is nothing more to compare.
    fn is_halted(&self) -> bool {
        let is_halted = |run: &Run| run.halted.is_some();
        is_halted(&self.candidate) || self.live.as_ref().is_some_and(is_halted)
    }

    /// Compares what both have made of records that both have seen.
    fn compare(&mut self, partition: u32) {
        let Some(live) = &mut self.live else {
            self.candidate.lines.remove(&partition);
            return;
        };
        let stems = |run: &Run| -> Vec<_> {
            let of = run.lines.get(&partition).into_iter();
            of.flat_map(|lines| lines.keys().cloned()).collect()
        };
        let mut all = stems(&self.candidate);
        all.extend(stems(live));
        all.sort();
        all.dedup();
        for stem in all {
            let (topic, offset) = &stem;
            let seen = |run: &Run| run.has_seen(partition, topic, *offset);
            if !seen(live) || !seen(&self.candidate) {
                continue;
            }
            let take = |run: &mut Run| {
                run.lines
                    .get_mut(&partition)
                    .and_then(|lines| lines.remove(&stem))
            };
            let (before, after) = (
                take(live).unwrap_or_default(),
                take(&mut self.candidate).unwrap_or_default(),
            );
            if before == after {
                continue;
            }
            self.differences += 1;
            if self.examples.len() < EXAMPLES_MAX {
                self.examples.push(Example {
                    topic: topic.clone(),
                    partition,
                    offset: *offset,
                    live: before.iter().map(told).collect(),
                    candidate: after.iter().map(told).collect(),
                });
            }
        }
    }

    fn begin(&mut self, partition: u32, origin: Origin) -> Result<(), ApplyError> {
        self.candidate.begin(partition, origin)?;
        self.live
            .as_mut()
            .map_or(Ok(()), |live| live.begin(partition, origin))
    }

    fn end(&mut self, partition: u32) {
        for run in [Some(&mut self.candidate), self.live.as_mut()]
            .into_iter()
            .flatten()
        {
            run.parts.remove(&partition);
            run.lines.remove(&partition);
        }
    }
}

fn told(what: &What) -> Told {
    let text = |bytes: &bytes::Bytes| {
        let cut = bytes.get(..TOLD_BYTES).map(String::from_utf8_lossy);
        match cut {
            Some(cut) => format!("{cut}…"),
            None => String::from_utf8_lossy(bytes).into_owned(),
        }
    };
    let made = what.made.as_ref();
    Told {
        output: what.output.clone(),
        key: made.and_then(|made| made.key.as_ref().map(text)),
        value: what
            .why
            .clone()
            .or_else(|| made.and_then(|made| made.value.as_ref().map(text))),
    }
}

impl Pipelines {
    /// Runs a pipeline in TOML over what its sources have from `origin` on, and over what comes within `wait`, beside the one of that
    /// name as it is. Writes nothing. `progress` is told how many records it has looked at, and says whether to go on.
    ///
    /// # Errors
    /// Those that applying it would have, and when another is being tried out already.
    pub async fn shadow(
        &self,
        text: &str,
        origin: Origin,
        wait: Duration,
        progress: impl FnMut(u64) -> bool + Send + 'static,
    ) -> Result<Shadowed, ApplyError> {
        // Each holds instances and tables of all partitions.
        let one = Arc::clone(&self.0.shadowing).try_lock_owned();
        let one = one.map_err(|_| ApplyError::Shadowing)?;
        let (candidate, live) = {
            let _checking = self.0.changing.lock().await;
            let checked = self.check(text).await?;
            (checked, self.row(Spec::parse(text)?.name.as_str()).ok())
        };
        let (this, broker) = (self.clone(), self.0.broker.clone());
        let ran = apart("weir-shadow", move || {
            let _one = one;
            Priority::Behind.ask();
            let live = live.map(|row| {
                let stages = this.stages(&row.spec, &row.digests)?;
                Ok::<_, ApplyError>(Run::new(&broker, row.spec, stages, Some(row.revision)))
            });
            let name = candidate.spec.name.to_string();
            let run_of = Run::new(&broker, candidate.spec, candidate.stages, None);
            let mut candidate = run_of.ok_or_else(|| ApplyError::NotFound(name.clone()))?;
            let mut live = live.transpose()?.flatten();
            if let Some(live) = &mut live {
                let theirs = live.worker.spec.source.clone();
                let ours = candidate.worker.spec.source.iter();
                candidate.common = ours
                    .filter(|topic| theirs.contains(topic.as_str()))
                    .cloned()
                    .collect();
                live.common = candidate.common.clone();
            }
            let shadow = Shadow {
                candidate,
                live,
                differences: 0,
                examples: Vec::new(),
            };
            run(shadow, &name, origin, wait, progress)
        });
        ran.await.ok_or(PushError::Admin(AdminError::Closed))?
    }
}

fn run(
    mut shadow: Shadow,
    name: &str,
    origin: Origin,
    wait: Duration,
    mut progress: impl FnMut(u64) -> bool,
) -> Result<Shadowed, ApplyError> {
    let begun = Instant::now();
    let partitions = shadow.candidate.topic.partitions.len() as u32;
    if !wait.is_zero() && partitions as usize > STATEFUL_PARTITIONS_MAX {
        return Err(ApplyError::Wide(partitions as usize));
    }
    let mut goes_on = true;
    let looked = |shadow: &Shadow| {
        let counts = &shadow.candidate.worker.shared.counts;
        counts.records_in.load(Ordering::Relaxed)
    };
    for partition in 0..partitions {
        shadow.begin(partition, origin)?;
        while goes_on && shadow.turn(partition) {
            goes_on = progress(looked(&shadow));
        }
        if wait.is_zero() {
            shadow.end(partition);
        }
    }
    while goes_on && !shadow.is_halted() && begun.elapsed() < wait {
        let mut did = false;
        (0..partitions).for_each(|partition| did |= shadow.turn(partition));
        if !did {
            let broker = shadow.candidate.worker.broker.clone();
            broker.block_on(async { tokio::time::sleep(PAUSE).await });
        }
        goes_on = progress(looked(&shadow));
    }
    let Shadow {
        candidate,
        live,
        differences,
        examples,
    } = shadow;
    Ok(Shadowed {
        name: name.to_owned(),
        seconds: begun.elapsed().as_secs_f64(),
        timers_differ: live
            .as_ref()
            .is_some_and(|live| live.of_timers != candidate.of_timers),
        candidate: candidate.side(),
        live: live.map(Run::side),
        differences,
        examples,
    })
}
