//! The partitions of a worker that are in memory, loaded from the log on demand and evicted when too many.

use crate::partition::evicted::EvictedTimers;
use crate::partition::input::Input;
use crate::partition::partition_set::PartitionSet;
use crate::partition::refusal::Refusal;
use crate::partition::rows::{count_stored, progress, table};
use crate::partition::state::PartitionState;
use crate::partition::time::Time;
use crate::spec::Spec;
use crate::spec::event_time::EventTime;
use crate::stages::stage::Stage;
use std::collections::BTreeMap;
use weir_broker::{Broker, Chain, PartitionId, ReadError};
use weir_runtime::Table;
use weir_types::limits::{
    BATCH_RECORDS_MAX, HOLDING_PARTITIONS_MAX, LOG_PARTITIONS_MAX, STATEFUL_PARTITIONS_MAX,
};
use weir_types::{GroupId, Offset, Term, TopicName};

/// The partitions of a worker that are in memory. All others are in the log only.
#[derive(Default)]
pub(crate) struct PartitionStates {
    parts: BTreeMap<u32, PartitionState>,
    /// Limit on records or timers processed together, per partition whose results exceeded an entry.
    most: BTreeMap<u32, usize>,
    uses: u64,
    /// Term of each group in which its stored state was last counted.
    counted: BTreeMap<GroupId, Term>,
    /// Partitions of the worker, or `None` for all.
    share: Option<PartitionSet>,
    pub(crate) evicted: EvictedTimers,
}

impl PartitionStates {
    /// Creates an empty set for a worker of these partitions.
    pub(crate) fn of(share: PartitionSet) -> Self {
        Self {
            share: Some(share),
            ..Self::default()
        }
    }

    /// Returns the state of `partition`, loaded from the log if it is missing or no longer valid. Returns
    /// `None` while another node leads the partition.
    pub(crate) fn part(
        &mut self,
        spec: &Spec,
        stages: &[Stage],
        broker: &Broker,
        partition: u32,
        id: PartitionId,
    ) -> Result<Option<&mut PartitionState>, Refusal> {
        self.uses += 1;
        if self.parts.get(&partition).is_some_and(|p| !p.chain.is_standing()) {
            self.end(partition);
        }
        if !self.parts.contains_key(&partition) {
            let most = if spec.remembers() || !spec.is_behind_the_log() {
                STATEFUL_PARTITIONS_MAX
            } else {
                LOG_PARTITIONS_MAX
            };
            if self.parts.len() >= most {
                let longest = self.parts.iter().min_by_key(|(_, p)| p.last_used);
                if let Some(partition) = longest.map(|(p, _)| *p) {
                    self.evict(partition, spec);
                }
            }
            let Some(chain) = Chain::begin(broker, id) else {
                return Ok(None);
            };
            self.count_stored(spec, stages, broker, id)?;
            if let Some(stage) = stages.first() {
                stage.quota.load(partition);
            }
            let stages = begin(spec, stages, broker, partition)?;
            let time = Time::from(progress(spec, broker, partition)?);
            let input = Input::open(spec, broker, partition)?;
            let last_used = self.uses;
            self.evicted.wake(partition);
            self.parts.insert(
                partition,
                PartitionState {
                    stages,
                    chain,
                    time,
                    input,
                    last_used,
                },
            );
        }
        let mut part = self.parts.get_mut(&partition);
        if let Some(part) = &mut part {
            part.last_used = self.uses;
        }
        Ok(part)
    }

    /// Evicts the least recently used partition. Its timers are still noted.
    fn evict(&mut self, partition: u32, spec: &Spec) {
        if let Some(part) = self.parts.remove(&partition) {
            let events = spec.event_time.clone().unwrap_or_default();
            part.chain.drain();
            if let Some(stage) = part.stages.first() {
                stage
                    .quota
                    .put_aside(partition, part.tables().map(Table::bytes).sum());
            }
            if !part.chain.is_standing() {
                // State in memory is invalid, so the due time is unknown.
                self.evicted.put_at_once(partition);
            } else if let Some(at) = part.wake(&events) {
                self.evicted.put(partition, part.time, at);
            }
        }
    }

    /// Returns true if the state in memory depends on a step that failed.
    pub(crate) fn is_broken(&self, partition: u32) -> bool {
        self.parts.get(&partition).is_some_and(|p| !p.chain.is_standing())
    }

    /// Returns the limit on records or timers of the partition that are processed together.
    pub(crate) fn most(&self, partition: u32) -> usize {
        self.most.get(&partition).copied().unwrap_or(usize::MAX)
    }

    /// Halves the limit after `looked_at` records exceeded an entry, and reloads the partition from the log.
    pub(crate) fn narrow(&mut self, partition: u32, looked_at: usize) {
        self.most.insert(partition, (looked_at / 2).max(1));
        self.end(partition);
    }

    /// Raises the limit after a success.
    pub(crate) fn widen(&mut self, partition: u32) {
        if let Some(most) = self.most.get_mut(&partition) {
            *most += *most / 8 + 1;
        }
        self.most.retain(|_, most| *most < BATCH_RECORDS_MAX as usize);
    }

    /// Drops unprocessed batches of the partition if many partitions are in memory.
    pub(crate) fn release_buffers(&mut self, partition: u32) {
        let is_crowded = self.parts.len() > HOLDING_PARTITIONS_MAX;
        if let Some(part) = self.parts.get_mut(&partition).filter(|_| is_crowded) {
            part.input.give_back();
        }
    }

    /// Returns the read positions of the sources of the partition, if their ends were reached.
    pub(crate) fn place(&self, partition: u32) -> Option<Vec<(TopicName, Offset)>> {
        let part = self.parts.get(&partition)?;
        part.input.is_at_end().then(|| part.input.read_to())
    }

    /// Returns true if no step is undecided.
    pub(crate) fn are_decided(&self) -> bool {
        self.parts.values().all(|part| part.chain.is_decided())
    }

    /// Waits for undecided steps, then drops the partition.
    pub(crate) fn end(&mut self, partition: u32) {
        if let Some(part) = self.parts.remove(&partition) {
            part.chain.drain();
            // The partition is loaded again later, here or on another node.
            if let Some(stage) = part.stages.first() {
                stage.quota.forget(partition);
            }
        }
    }

    /// Counts the stored state of a group's other partitions against the quota, when this node has begun to
    /// lead the group. Blocks.
    fn count_stored(
        &mut self,
        spec: &Spec,
        stages: &[Stage],
        broker: &Broker,
        id: PartitionId,
    ) -> Result<(), ReadError> {
        let term = broker.led_term(id);
        if !spec.remembers() || self.counted.get(&id.group()) == term.as_ref() {
            return Ok(());
        }
        self.counted.extend(term.map(|term| (id.group(), term)));
        let topics: Vec<_> = spec
            .source
            .iter()
            .filter_map(|t| broker.topic(t.as_str()))
            .collect();
        let is_led = |partition: u32| {
            let mut ids = topics.iter().filter_map(|topic| topic.partition(partition));
            ids.any(|id| broker.led_term(id).is_some())
        };
        // The canary counts its own partitions.
        let share = self.share.clone().unwrap_or(PartitionSet::All);
        count_stored(spec, broker, stages, |partition| {
            share.has(partition) && is_led(partition)
        })
    }

    /// Drops all instances to free their memory. They are made again on demand.
    pub(crate) fn drop_instances(&mut self) {
        let stages = self.parts.values_mut().flat_map(|part| &mut part.stages);
        stages.for_each(|stage| stage.instance = None);
    }

    /// Waits for undecided steps of all partitions, then drops the partitions.
    pub(crate) fn end_all(&mut self) {
        for (_, part) in std::mem::take(&mut self.parts) {
            part.chain.drain();
        }
    }

    /// Returns the number of rows, timers and bytes in memory.
    pub(crate) fn size(&self) -> (usize, usize, usize) {
        let tables = self.parts.values().flat_map(PartitionState::tables);
        tables.fold((0, 0, 0), |(rows, timers, bytes), t| {
            (rows + t.len(), timers + t.timers(), bytes + t.bytes())
        })
    }

    /// Returns the milliseconds until a timer is due, counted from `wall`.
    pub(crate) fn next_due_in(&mut self, wall: i64, events: &EventTime) -> Option<u64> {
        let wait = |part: &mut PartitionState| {
            // An invalid partition is reloaded with the next poll. The cause, like a full disk, may last.
            let is_by_itself = part.chain.is_standing() && part.input.is_at_end();
            let at = part.wake(events).filter(|_| is_by_itself)?;
            Some(part.time.until(at, wall, events))
        };
        let first = self.parts.values_mut().filter_map(wait).min();
        first
            .into_iter()
            .chain(self.evicted.next_due_in(wall, events))
            .min()
    }

    /// Returns the partitions with timers that are due at `wall`, and invalid partitions, whose due times are
    /// unknown.
    pub(crate) fn due(&mut self, wall: i64, events: &EventTime) -> Vec<u32> {
        let is_due = |part: &mut PartitionState| {
            // A log pipeline takes its time from the records until their end is reached.
            if part.input.is_at_end() {
                part.time.pass(wall, events);
            }
            part.is_due(events) || !part.chain.is_standing()
        };
        let due = self
            .parts
            .iter_mut()
            .filter_map(|(p, part)| is_due(part).then_some(*p));
        due.collect()
    }
}

/// Creates the stages for `partition`, with their stored state. Blocks.
fn begin(spec: &Spec, stages: &[Stage], broker: &Broker, partition: u32) -> Result<Vec<Stage>, ReadError> {
    let mut own: Vec<_> = stages.iter().map(|s| s.of_partition(partition)).collect();
    for (n, (stage, with)) in own.iter_mut().zip(&spec.stages).enumerate() {
        if !with.remembers() {
            continue;
        }
        stage.table = Some(table(spec, broker, n, stage, partition)?);
    }
    Ok(own)
}
