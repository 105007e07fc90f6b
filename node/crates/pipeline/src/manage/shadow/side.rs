//! A side of a shadow run: the candidate, or the live pipeline.

use crate::error::ApplyError;
use crate::manage::shadow::report::Side;
use crate::partition::input::Input;
use crate::partition::refusal::Refusal;
use crate::partition::state::PartitionState;
use crate::spec::Spec;
use crate::spec::source::Origin;
use crate::stages::effects::TooMuch;
use crate::worker::cycle::{PollCycle, Sink};
use crate::worker::thread::Worker;
use crate::worker::trace::OutputContent;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use weir_broker::{AdminError, Broker, Chain, Topic};
use weir_types::{Offset, PartitionId, TopicName};

/// Outputs by topic and offset of their source record.
type BySource = BTreeMap<(String, Offset), Vec<OutputContent>>;

/// A side of a shadow run.
pub(crate) struct Run {
    pub(crate) worker: Worker,
    pub(crate) topic: Arc<Topic>,
    pub(crate) parts: BTreeMap<u32, PartitionState>,
    pub(crate) lines: BTreeMap<u32, BySource>,
    /// Number of outputs of timers, and a hash of them that does not depend on their order.
    pub(crate) of_timers: (u64, u64),
    /// Sources that both sides have, whose outputs are compared.
    pub(crate) common: BTreeSet<TopicName>,
    pub(crate) revision: Option<u64>,
    pub(crate) halted: Option<String>,
}

impl Run {
    pub(crate) fn new(
        broker: &Broker,
        spec: Spec,
        stages: Vec<crate::stages::stage::Stage>,
        revision: Option<u64>,
    ) -> Option<Self> {
        let topic = broker.topic(spec.source.first())?;
        let worker = Worker::detached(Arc::new(spec), stages, broker.clone());
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

    /// Starts at `origin` on a partition.
    pub(crate) fn begin(&mut self, partition: u32, origin: Origin) -> Result<(), ApplyError> {
        let Worker {
            spec, stages, broker, ..
        } = &self.worker;
        let chain = Chain::begin(broker, PartitionId::HOME);
        let chain = chain.ok_or(AdminError::Closed)?;
        let input = Input::at(spec, broker, partition, origin)?;
        let part = PartitionState::detached(spec, stages, chain, input, partition);
        self.parts.insert(partition, part);
        self.lines.insert(partition, BySource::new());
        Ok(())
    }

    /// Processes more records of a partition. Returns true if there were any.
    pub(crate) fn step(&mut self, partition: u32) -> bool {
        let Some(part) = self.parts.get_mut(&partition).filter(|_| self.halted.is_none()) else {
            return false;
        };
        let mut cycle = PollCycle {
            part,
            topic: &self.topic,
            partition,
            sink: Sink::Shadow(Vec::new()),
            fired: 0,
            most: usize::MAX,
            looked_at: 0,
        };
        let filled = cycle.part.input.fetch_more(&self.worker.broker);
        let had_records = cycle.part.input.has_records();
        let looked = filled.and_then(|_| self.worker.process_records(&mut cycle));
        cycle.part.settle();
        match looked {
            Ok(()) => {}
            Err(Refusal::Halt(why)) => self.halted = Some(why),
            Err(Refusal::NotLeader) => self.halted = Some("another node leads now: retry there".to_owned()),
            Err(Refusal::TooMuch(much)) => {
                let TooMuch { bytes, limit, of } = much;
                self.halted = Some(format!(
                    "the result of {of} records has {bytes} bytes, and an entry has at most {limit}"
                ));
            }
            Err(Refusal::Busy) => self.halted = Some("the log is busy: retry".to_owned()),
        }
        let Sink::Shadow(lines) = cycle.sink else {
            return had_records;
        };
        for line in lines {
            match line.provenance {
                // Never compared, so not kept.
                Some((topic, _)) if !self.common.iter().any(|name| name.as_str() == topic) => {}
                Some(provenance) => {
                    let of = self.lines.entry(partition).or_default();
                    of.entry(provenance).or_default().push(line.content);
                }
                None => {
                    let mut hash = DefaultHasher::new();
                    line.content.hash(&mut hash);
                    let (count, sum) = self.of_timers;
                    self.of_timers = (count + 1, sum.wrapping_add(hash.finish()));
                }
            }
        }
        had_records
    }

    /// Returns a measure of progress on a partition, over the common sources.
    pub(crate) fn place(&self, partition: u32) -> u64 {
        let part = self.parts.get(&partition).into_iter();
        let places = part.flat_map(|part| part.input.next());
        let of_common = places.filter(|(topic, _)| self.common.contains(*topic));
        of_common.map(|(_, next)| next.get()).sum()
    }

    /// Returns true if the record is processed.
    pub(crate) fn has_seen(&self, partition: u32, topic: &str, offset: Offset) -> bool {
        let part = self.parts.get(&partition);
        part.is_some_and(|part| {
            part.input
                .next()
                .any(|(name, next)| name.as_str() == topic && offset < next)
        })
    }

    pub(crate) fn side(self) -> Side {
        let counts = &self.worker.shared.counts;
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Side {
            revision: self.revision,
            records: load(&counts.records_in),
            kept: load(&counts.kept),
            dropped: load(&counts.dropped),
            emitted: load(&counts.emitted),
            routed: counts.routed.lock().clone(),
            dead_letters: load(&counts.dead_letters),
            skipped: load(&counts.skipped),
            failures: load(&counts.failures),
            timers_fired: load(&counts.timers_fired),
            wasm_ns: load(&counts.wasm_ns),
            halted: self.halted,
        }
    }
}
