//! What a pipeline does without a batch: its modules are called by the timers that they set.
//!
//! A timer that is due makes a step of the chain like any batch: what comes of it is in one entry with the row that says that
//! it is not set any more. Before a batch is looked at, all that is due by then has fired, so that the order is that of time.

use crate::partition::refusal::Refusal;
use crate::partition::rows;
use crate::partition::states::PartitionStates;
use crate::stages::batches::Batches;
use crate::stages::dated::Dated;
use crate::stages::dead_letter::Provenance;
use crate::stages::output::Assembly;
use crate::worker::counts::State;
use crate::worker::worker::Worker;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use weir_broker::{ReadError, Stepped, Topic};
use weir_types::PartitionId;
use weir_types::limits::{STEPS_UNDECIDED_MAX, TIMERS_FIRED_MAX};

/// How often a pipeline with timers looks whether its node has come to lead: timers of a partition to which nothing comes fire
/// there so much later.
pub(crate) const LEAD_POLL: Duration = Duration::from_millis(500);

/// Why something fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FireReason {
    /// It is time.
    Time,
    /// A batch comes, and what is due comes before it.
    Batch,
}

impl Worker {
    /// How long it may wait for a batch; for ever if there is nothing else.
    pub(crate) fn next_wakeup(&mut self) -> Option<Duration> {
        if !self.spec.has_timers() {
            return None;
        }
        if !self.may_work() {
            return Some(LEAD_POLL);
        }
        Some(self.next_due_in().map_or(LEAD_POLL, |wait| wait.min(LEAD_POLL)))
    }

    /// How long it is until a timer is due by itself.
    pub(crate) fn next_due_in(&mut self) -> Option<Duration> {
        let events = self.spec.event_time.clone().unwrap_or_default();
        let wall = self.broker.now_ms();
        // Timers that an earlier revision set are kept for a later one, and are nothing to this.
        let due_in = match self.spec.has_timers() {
            true => self.parts.next_due_in(wall, &events),
            false => self.parts.evicted.next_due_in(wall, &events),
        };
        due_in.map(Duration::from_millis)
    }

    /// Fires what is due on all partitions.
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

    /// Partitions on which something is due, or may be.
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

    /// Which partitions have timers, whenever this node has begun to lead.
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

    /// Fires what is due on `partition`, a step at a time.
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
                // Whoever leads now fires them; if that is this node again, in the same term, it has to look for them.
                self.parts.evicted.term = None;
                Ok(())
            }
            // Tried again at the next look.
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
        // A batch that was given to it before it was paused still passes it, with what is due before.
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
            // Each keeps its outputs in memory until it is decided.
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
