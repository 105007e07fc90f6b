//! A poll cycle of a log pipeline: reads a partition and processes as much as fits into an entry.

use crate::partition::merge;
use crate::partition::refusal::Refusal;
use crate::partition::state::PartitionState;
use crate::partition::states::PartitionStates;
use crate::stages::batches::Batches;
use crate::stages::dated::Dated;
use crate::stages::dead_letter::Provenance;
use crate::stages::effects::{Effects, StageInput};
use crate::stages::output::Assembly;
use crate::worker::thread::Worker;
use crate::worker::trace::{self, ObservedOutput};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use weir_broker::{Output, Stepped, Stop as StopAt, Topic};
use weir_types::limits::{
    ENTRY_BYTES_TARGET, LOG_TURN_BYTES, STATE_CHANGES_BYTES_MAX, STEPS_UNDECIDED_MAX, TIMERS_FIRED_MAX,
};
use weir_types::{GroupId, Offset, PartitionId, RecordRef, TopicName};

/// Estimated bytes that a fired timer adds to an entry: the removal of its row, and often of a related row.
const TIMER_ROW_BYTES: usize = 128;

/// A poll cycle under way.
pub(crate) struct PollCycle<'a> {
    pub(crate) part: &'a mut PartitionState,
    pub(crate) topic: &'a Arc<Topic>,
    pub(crate) partition: u32,
    pub(crate) sink: Sink,
    /// Timers fired so far.
    pub(crate) fired: usize,
    /// Limit on records or timers that are processed together.
    pub(crate) most: usize,
    /// Largest number of records or timers that were processed together.
    pub(crate) looked_at: usize,
}

/// Destination of a cycle's results.
pub(crate) enum Sink {
    /// Batches for topics.
    Entry(Vec<Output>),
    /// Results to compare. Nothing is stored.
    Shadow(Vec<ObservedOutput>),
}

impl Worker {
    /// Processes stored records and due timers of `partition`, up to an entry. Returns true if there were
    /// any. Blocks.
    pub(crate) fn poll_partition(
        &mut self,
        parts: &mut PartitionStates,
        topic: &Arc<Topic>,
        partition: u32,
    ) -> Result<bool, Refusal> {
        let spec = Arc::clone(&self.spec);
        let events = spec.event_time.clone().unwrap_or_default();
        // Pipeline state is always in the site's group, whatever group has the source.
        let id = PartitionId::HOME;
        if parts.is_broken(partition) {
            // The cause, like a full disk, may last.
            parts.end(partition);
            return Err(Refusal::Busy);
        }
        let most = parts.most(partition);
        let part = parts.part(&spec, &self.stages, &self.broker, partition, id)?;
        let part = part.ok_or(Refusal::NotLeader)?;
        let gone = part.input.fetch_more(&self.broker)?;
        self.shared.counts.missed.fetch_add(gone, Ordering::Relaxed);
        let mut is_due = false;
        if part.input.is_at_end() {
            part.time.pass(self.broker.now_ms(), &events);
            is_due = spec.has_timers() && part.is_due(&events);
        }
        if !is_due && !part.input.has_records() && !part.input.has_moved() {
            return Ok(false);
        }
        StopAt::Read.here();
        // Each undecided step keeps its outputs in memory.
        part.chain.drain_to(STEPS_UNDECIDED_MAX - 1);
        // A step that is dropped unused restarts the chain from the log.
        let step = part.chain.step();
        let mut cycle = PollCycle {
            part,
            topic,
            partition,
            sink: Sink::Entry(Vec::new()),
            fired: 0,
            most,
            looked_at: 0,
        };
        self.process_records(&mut cycle)?;
        let looked_at = cycle.looked_at;
        let outputs = match cycle.sink {
            Sink::Entry(outputs) => outputs,
            Sink::Shadow(_) => Vec::new(),
        };
        let rows = part.changes(&spec, partition);
        Self::check_size(None, &outputs, &rows, looked_at)?;
        let made = Stepped { outputs, rows, step };
        StopAt::Computed.here();
        self.broker.take_step(Arc::clone(topic), id, made);
        Ok(true)
    }

    /// Processes fetched records until an entry is full, and due timers at the end of the log.
    pub(crate) fn process_records(&mut self, cycle: &mut PollCycle<'_>) -> Result<(), Refusal> {
        let events = self.spec.event_time.clone().unwrap_or_default();
        let bodies = cycle.part.input.bodies(LOG_TURN_BYTES * 4)?;
        let mut lists = cycle.part.input.lists(&self.broker, &bodies)?;
        while !cycle.is_full()
            && let Some((n, mut run)) = merge::next_run(&lists)
        {
            run.end = run.end.min(run.start.saturating_add(cycle.most));
            cycle.looked_at = cycle.looked_at.max(run.len());
            let records = lists.get(n).and_then(|l| l.records.get(run.clone()));
            if !self.process_run(cycle, n, records.unwrap_or_default().to_vec())? {
                break;
            }
            lists.get_mut(n).into_iter().for_each(|l| l.at = run.end);
        }
        let next = |l: &merge::List<'_>| l.records.get(l.at).map(|r| r.offset);
        let to: Vec<_> = lists.iter().map(next).collect();
        let counts: Vec<_> = bodies.iter().map(Vec::len).collect();
        cycle.part.input.advance(&to, &counts);
        if cycle.part.input.is_at_end() {
            cycle.part.time.pass(self.broker.now_ms(), &events);
            self.fire_into(cycle)?;
        }
        Ok(())
    }

    /// Processes a run of records of source `n`, after all timers that are due before. Returns false if those
    /// timers alone fill the entry.
    fn process_run(
        &mut self,
        cycle: &mut PollCycle<'_>,
        n: usize,
        mut records: Vec<RecordRef<'_>>,
    ) -> Result<bool, Refusal> {
        let spec = Arc::clone(&self.spec);
        let events = spec.event_time.clone().unwrap_or_default();
        let (source, name) = match cycle.part.input.source(n) {
            Some((source, name)) => (source, name.clone()),
            None => return Ok(true),
        };
        let times = || records.iter().map(|r| r.timestamp);
        let times = times().min().unwrap_or(i64::MIN)..=times().max().unwrap_or(i64::MIN);
        cycle.part.time.read(times, self.broker.now_ms(), &events);
        if !self.fire_into(cycle)? {
            return Ok(false);
        }
        let dated = if spec.is_timed() {
            cycle.part.time.date(&mut records, &events)
        } else {
            Dated::default()
        };
        let moment = cycle.part.time.moment();
        let input = StageInput::Records { source };
        let effects = if spec.remembers() {
            self.run_through(&mut cycle.part.stages, input, &records, &dated, moment)
        } else {
            let mut stages = std::mem::take(&mut self.stages);
            let effects = self.run_through(&mut stages, input, &records, &dated, moment);
            self.stages = stages;
            effects
        };
        let effects = effects.map_err(|refusal| at(refusal, &name, cycle.partition, &records))?;
        self.check_breaker(records.len(), &effects)?;
        self.count(records.len(), &effects);
        cycle.part.time.follow(&records, &dated, &events);
        self.keep(
            cycle,
            name.as_str(),
            effects,
            (&records, &dated.own),
            Provenance::Stored,
        )?;
        self.fire_into(cycle)?;
        Ok(true)
    }

    /// Fires due timers until an entry is full. Returns true if none is left.
    fn fire_into(&mut self, cycle: &mut PollCycle<'_>) -> Result<bool, Refusal> {
        if !self.spec.has_timers() {
            return Ok(true);
        }
        let moment = cycle.part.time.moment();
        while !cycle.is_full()
            && let Some(due) = cycle.part.pop_due(moment, TIMERS_FIRED_MAX.min(cycle.most))
        {
            let records = due.records();
            cycle.looked_at = cycle.looked_at.max(records.len());
            let effects = self.run_through(
                &mut cycle.part.stages,
                due.input(),
                &records,
                &Dated::default(),
                moment,
            )?;
            self.count_fired(records.len(), &effects);
            cycle.fired += records.len();
            let name = self.spec.source.first().to_owned();
            self.keep(cycle, &name, effects, (&records, &[]), Provenance::Timers)?;
        }
        let events = self.spec.event_time.clone().unwrap_or_default();
        Ok(!cycle.is_full() || !cycle.part.is_due(&events))
    }

    /// Adds the results of `records` to the step.
    pub(crate) fn keep(
        &self,
        cycle: &mut PollCycle<'_>,
        name: &str,
        mut effects: Effects,
        (records, own_times): (&[RecordRef<'_>], &[i64]),
        provenance: Provenance,
    ) -> Result<(), Refusal> {
        let outputs = match &mut cycle.sink {
            Sink::Entry(outputs) => outputs,
            Sink::Shadow(lines) => {
                lines.extend(trace::lines(effects, records, name, provenance));
                return Ok(());
            }
        };
        self.divert_main(&mut effects);
        let assembly = Assembly {
            spec: &self.spec,
            broker: &self.broker,
            topic: cycle.topic,
            home: GroupId::SITE,
            name,
            partition: cycle.partition,
            records,
            own_times,
            provenance,
        };
        let made = assembly.outputs(Batches::default(), &effects)?;
        outputs.extend(made);
        Ok(())
    }
}

impl PollCycle<'_> {
    /// Returns true if the results fill an entry.
    pub(crate) fn is_full(&self) -> bool {
        let outputs: usize = match &self.sink {
            Sink::Entry(outputs) => outputs.iter().map(|o| o.batch.bytes().len()).sum(),
            Sink::Shadow(lines) => lines.iter().map(ObservedOutput::bytes).sum(),
        };
        let changed = self.part.changed_bytes() + self.fired * TIMER_ROW_BYTES;
        outputs >= ENTRY_BYTES_TARGET || changed >= STATE_CHANGES_BYTES_MAX / 2
    }
}

/// Adds topic, partition and offsets to the message of a halt.
pub(crate) fn at(refusal: Refusal, topic: &TopicName, partition: u32, records: &[RecordRef<'_>]) -> Refusal {
    match refusal {
        Refusal::Halt(why) => {
            let Range { start, end } = span(records);
            Refusal::Halt(format!(
                "{why} (topic `{topic}`, partition {partition}, offsets {start} to {end})"
            ))
        }
        other => other,
    }
}

/// Returns the offsets of the first and the last record.
fn span(records: &[RecordRef<'_>]) -> Range<Offset> {
    let of = |r: Option<&RecordRef<'_>>| r.map_or(Offset::ZERO, |r| r.offset);
    of(records.first())..of(records.last())
}
