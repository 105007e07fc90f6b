//! Partitions with timers that nobody works on at present.

use crate::partition::time::Time;
use crate::spec::event_time::EventTime;
use std::collections::BTreeMap;
use weir_types::Term;

/// Partitions with timers that nobody works on at present.
#[derive(Default)]
pub(crate) struct EvictedTimers {
    /// The term in which they were looked for.
    pub(crate) term: Option<Term>,
    /// Those that have timers, with when to look at them; without it, at once.
    pub(crate) partitions: BTreeMap<u32, Option<(Time, i64)>>,
}

impl EvictedTimers {
    /// Puts one aside that has something due at `at`, by its own `time`.
    pub(crate) fn put(&mut self, partition: u32, time: Time, at: i64) {
        self.partitions.insert(partition, Some((time, at)));
    }

    /// Puts one aside that has to be looked at.
    pub(crate) fn put_at_once(&mut self, partition: u32) {
        self.partitions.insert(partition, None);
    }

    /// It is at work again.
    pub(crate) fn wake(&mut self, partition: u32) {
        self.partitions.remove(&partition);
    }

    /// Milliseconds until the first is due, if it is `wall` now.
    pub(crate) fn next_due_in(&mut self, wall: i64, events: &EventTime) -> Option<u64> {
        let waits = self.partitions.values_mut().map(|sleeper| match sleeper {
            Some((time, at)) => time.until(*at, wall, events),
            None => 0,
        });
        waits.min()
    }

    /// Takes those that are due.
    pub(crate) fn take_due(&mut self, wall: i64, events: &EventTime) -> Vec<u32> {
        let is_due = |sleeper: &mut Option<(Time, i64)>| match sleeper {
            Some((time, at)) => time.until(*at, wall, events) == 0,
            None => true,
        };
        let due = self.partitions.iter_mut();
        let due: Vec<u32> = due
            .filter_map(|(p, sleeper)| is_due(sleeper).then_some(*p))
            .collect();
        for partition in &due {
            self.partitions.remove(partition);
        }
        due
    }
}
