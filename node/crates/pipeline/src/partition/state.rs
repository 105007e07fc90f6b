//! The state of a pipeline on a partition, in memory.

use crate::partition::input::Input;
use crate::partition::rows::{changes_of, of_progress};
use crate::partition::time::{Progress, Time};
use crate::spec::Spec;
use crate::spec::event_time::EventTime;
use crate::stages::effects::StageInput;
use crate::stages::stage::Stage;
use bytes::Bytes;
use weir_broker::{Chain, StateKey, encode};
use weir_runtime::{Fired, Moment, Table, Timer, TimerClock};
use weir_types::limits::OP_HEAD_BYTES_MAX;
use weir_types::{Headers, Offset, RecordRef};

/// The state of a pipeline on a partition.
pub(crate) struct PartitionState {
    pub(crate) stages: Vec<Stage>,
    pub(crate) chain: Chain,
    pub(crate) time: Time,
    /// Input of a log pipeline.
    pub(crate) input: Input,
    pub(crate) last_used: u64,
}

impl PartitionState {
    /// Creates a partition with empty state that reads `input`, for a comparison.
    pub(crate) fn detached(
        spec: &Spec,
        stages: &[Stage],
        chain: Chain,
        input: Input,
        partition: u32,
    ) -> Self {
        let mut stages: Vec<_> = stages.iter().map(|s| s.of_partition(partition)).collect();
        for (stage, with) in stages.iter_mut().zip(&spec.stages) {
            // A comparison does not use up the quota of running pipelines.
            stage.table = with.remembers().then(|| Table::new(spec.limits.state_bytes));
        }
        Self {
            stages,
            chain,
            time: Time::from(Progress::default()),
            input,
            last_used: 0,
        }
    }

    /// Treats all changes as stored.
    pub(crate) fn settle(&mut self) {
        for table in self.stages.iter_mut().filter_map(|s| s.table.as_mut()) {
            table.take_changes(|_, _| {});
            table.take_timer_changes(|_, _, _, _| {});
        }
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = &Table> {
        self.stages.iter().filter_map(|s| s.table.as_ref())
    }

    /// Returns when the next timer is due, in processing time.
    pub(crate) fn wake(&self, events: &EventTime) -> Option<i64> {
        let processing = self
            .tables()
            .filter_map(|t| t.first_due(TimerClock::Processing))
            .min();
        let event = self.tables().filter_map(|t| t.first_due(TimerClock::Event)).min();
        let event = event.and_then(|at| self.time.reaches(at, events));
        processing.into_iter().chain(event).min()
    }

    /// Returns true if a timer is due.
    pub(crate) fn is_due(&self, events: &EventTime) -> bool {
        self.wake(events).is_some_and(|at| at <= self.time.moment().now)
    }

    /// Returns the bytes of state changes that are in no step yet.
    pub(crate) fn changed_bytes(&self) -> usize {
        let changed = |table: &Table| table.changed_bytes() + table.changed_rows() * OP_HEAD_BYTES_MAX;
        self.tables().map(changed).sum()
    }

    /// Removes and returns up to `max` timers that are due, of a single stage and clock.
    pub(crate) fn pop_due(&mut self, moment: Moment, max: usize) -> Option<DueTimers> {
        for clock in TimerClock::ALL {
            let until = match clock {
                TimerClock::Event => moment.watermark,
                TimerClock::Processing => moment.now,
            };
            for (stage, with) in self.stages.iter_mut().enumerate() {
                let Some(table) = &mut with.table else { continue };
                let due = std::iter::from_fn(|| table.pop_due(clock, until)).take(max);
                let timers: Vec<_> = due.collect();
                if !timers.is_empty() {
                    return Some(DueTimers { stage, clock, timers });
                }
            }
        }
        None
    }

    /// Returns rows for all changes since the last call.
    pub(crate) fn changes(&mut self, spec: &Spec, partition: u32) -> Vec<(StateKey, Option<Bytes>)> {
        let mut rows = Vec::new();
        let name = spec.name.as_str();
        for (n, stage) in self.stages.iter_mut().enumerate() {
            changes_of(name, n, stage, partition, &mut rows);
        }
        if let Some(progress) = self.time.take_change().filter(|_| spec.has_time()) {
            rows.push((of_progress(name, partition), Some(encode(&progress))));
        }
        self.input.changes(&mut rows);
        rows
    }
}

/// Timers of a stage and clock that are due.
pub(crate) struct DueTimers {
    stage: usize,
    clock: TimerClock,
    timers: Vec<Timer>,
}

impl DueTimers {
    /// Returns the timers as records, as the source of new records.
    pub(crate) fn records(&self) -> Vec<RecordRef<'_>> {
        let timers = (0..).zip(&self.timers);
        timers
            .map(|(n, timer)| RecordRef {
                offset: Offset::new(n),
                timestamp: timer.at,
                key: Some(&timer.key),
                value: None,
                headers: Headers::NONE,
            })
            .collect()
    }

    pub(crate) fn input(&self) -> StageInput<'_> {
        let fired = Fired {
            clock: self.clock,
            timers: &self.timers,
        };
        StageInput::Timers {
            stage: self.stage,
            fired,
        }
    }
}
