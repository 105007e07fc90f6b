//! Timers: modules called without a batch.
//!
//! A due timer makes a step, as a batch does: its results are in the same entry as the removal of its row.
//! Before a batch is processed, all timers due by then have fired, so that the order is that of time.

use crate::partition::refusal::Refusal;
use crate::partition::rows;
use crate::partition::states::PartitionStates;
use crate::stages::batches::Batches;
use crate::stages::dated::Dated;
use crate::stages::dead_letter::Provenance;
use crate::stages::output::Assembly;
use crate::worker::counts::State;
use crate::worker::thread::Worker;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use weir_broker::{ReadError, Stepped, Topic};
use weir_types::PartitionId;
use weir_types::limits::{STEPS_UNDECIDED_MAX, TIMERS_FIRED_MAX};

/// Interval at which a pipeline with timers checks whether its node leads. Timers of an idle partition are
/// delayed by up to this time after a change of leader.
pub(crate) const LEAD_POLL: Duration = Duration::from_millis(500);

/// Reason for firing timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FireReason {
    /// They are due.
    Time,
    /// A batch follows, and due timers go first.
    Batch,
}

impl Worker {
    /// Returns how long to wait for a batch, or `None` for ever.
    pub(crate) fn next_wakeup(&mut self) -> Option<Duration> {
        if !self.spec.has_timers() {
            return None;
        }
        if !self.may_work() {
            return Some(LEAD_POLL);
        }
        Some(self.next_due_in().map_or(LEAD_POLL, |wait| wait.min(LEAD_POLL)))
    }

    /// Returns the time until the next timer is due.
    pub(crate) fn next_due_in(&mut self) -> Option<Duration> {
        let events = self.spec.event_time.clone().unwrap_or_default();
        let wall = self.broker.now_ms();
        // Timers of an earlier revision are kept for a later revision, and ignored by this.
        let due_in = if self.spec.has_timers() {
            self.parts.next_due_in(wall, &events)
        } else {
            self.parts.evicted.next_due_in(wall, &events)
        };
        due_in.map(Duration::from_millis)
    }

    /// Fires due timers on all partitions.
    pub(crate) fn fire_all(&mut self) {
        if !self.spec.has_timers() || !self.may_work() {
            return;
        }
        let Some(topic) = self.broker.topic(self.spec.source.first()) else {
            return;
        };
        let fired = self.due().and_then(|due| {
            due.into_iter()
                .try_for_each(|partition| self.fire(&topic, partition, FireReason::Time))
        });
        if let Err(Refusal::Halt(why)) = fired {
            self.halt(why);
        }
    }

    /// Returns the partitions with due timers, and those that have to be checked.
    pub(crate) fn due(&mut self) -> Result<BTreeSet<u32>, Refusal> {
        let events = self.spec.event_time.clone().unwrap_or_default();
        if !self.spec.has_timers() {
            let sleepers = self.parts.evicted.take_due(self.broker.now_ms(), &events);
            return Ok(sleepers.into_iter().collect());
        }
        let found = self.find_evicted_timers();
        let wall = self.broker.now_ms();
        let due = self.parts.due(wall, &events);
        let sleepers = self.parts.evicted.take_due(wall, &events);
        found?;
        Ok(due.into_iter().chain(sleepers).collect())
    }

    /// Looks up the partitions with stored timers after this node has begun to lead.
    fn find_evicted_timers(&mut self) -> Result<(), ReadError> {
        let lead = self.broker.led_term(PartitionId::HOME);
        if lead == self.parts.evicted.term {
            return Ok(());
        }
        self.parts.evicted.partitions.clear();
        if lead.is_some() {
            let with = rows::partitions_with_timers(&self.broker, &self.spec)?;
            let with = with.into_iter().filter(|p| self.share.has(*p));
            self.parts.evicted.partitions = with.map(|p| (p, None)).collect();
        }
        self.parts.evicted.term = lead;
        Ok(())
    }

    /// Fires due timers on `partition`, in steps.
    pub(crate) fn fire(
        &mut self,
        topic: &Arc<Topic>,
        partition: u32,
        why: FireReason,
    ) -> Result<(), Refusal> {
        let mut parts = std::mem::take(&mut self.parts);
        let fired = self.fire_due(&mut parts, topic, partition, why);
        self.parts = parts;
        match fired {
            Err(Refusal::NotLeader) => {
                // The new leader fires the timers. This node looks them up again, even in the same term.
                self.parts.evicted.term = None;
                Ok(())
            }
            // Retried with the next check.
            Err(Refusal::Busy) if why == FireReason::Time => Ok(()),
            fired => fired,
        }
    }

    fn fire_due(
        &mut self,
        parts: &mut PartitionStates,
        topic: &Arc<Topic>,
        partition: u32,
        why: FireReason,
    ) -> Result<(), Refusal> {
        let spec = Arc::clone(&self.spec);
        let events = spec.event_time.clone().unwrap_or_default();
        let id = topic.partition(partition).ok_or(Refusal::NotLeader)?;
        // A batch that was queued before a pause is still processed, after the timers before it.
        let mut has_stepped = false;
        while why == FireReason::Batch || self.state() == State::Running {
            if has_stepped && parts.is_broken(partition) {
                return Err(Refusal::Busy);
            }
            let most = parts.most(partition);
            let part = parts.part(&spec, &self.stages, &self.broker, partition, id)?;
            let part = part.ok_or(Refusal::NotLeader)?;
            part.time.pass(self.broker.now_ms(), &events);
            let moment = part.time.moment();
            let Some(due) = part.pop_due(moment, TIMERS_FIRED_MAX.min(most)) else {
                return Ok(());
            };
            // Each undecided step keeps its outputs in memory.
            part.chain.drain_to(STEPS_UNDECIDED_MAX - 1);
            let step = part.chain.step();
            let records = due.records();
            let effects =
                match self.run_through(&mut part.stages, due.input(), &records, &Dated::default(), moment) {
                    Err(Refusal::TooMuch(much)) => {
                        drop(step);
                        parts.narrow(partition, much.of);
                        continue;
                    }
                    effects => effects?,
                };
            self.count_fired(records.len(), &effects);
            let mut follow = Batches::default();
            effects
                .main
                .iter()
                .for_each(|item| follow.push(&item.view(&records)));
            let assembly = Assembly {
                spec: &spec,
                broker: &self.broker,
                topic,
                home: id.group(),
                name: topic.name.as_str(),
                partition,
                records: &records,
                own_times: &[],
                provenance: Provenance::Timers,
            };
            let outputs = assembly.outputs(follow, &effects)?;
            let rows = part.changes(&spec, partition);
            if let Err(Refusal::TooMuch(much)) = Self::check_size(None, &outputs, &rows, records.len()) {
                drop(step);
                parts.narrow(partition, much.of);
                continue;
            }
            let made = Stepped { outputs, rows, step };
            self.broker.take_step(Arc::clone(topic), id, made);
            parts.widen(partition);
            has_stepped = true;
        }
        Ok(())
    }
}
