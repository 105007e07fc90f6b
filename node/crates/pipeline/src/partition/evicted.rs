//! Timers of partitions that are not in memory.

use crate::partition::time::Time;
use crate::spec::event_time::EventTime;
use std::collections::BTreeMap;
use weir_types::Term;

/// Timers of partitions that are not in memory.
#[derive(Default)]
pub(crate) struct EvictedTimers {
    /// Leader term in which stored timers were last looked up.
    pub(crate) term: Option<Term>,
    /// Partitions with timers, each with its time and when it is due. Without a time, the partition is due at
    /// once.
    pub(crate) partitions: BTreeMap<u32, Option<(Time, i64)>>,
}

impl EvictedTimers {
    /// Notes a partition whose next timer is due at `at`, by the partition's `time`.
    pub(crate) fn put(&mut self, partition: u32, time: Time, at: i64) {
        self.partitions.insert(partition, Some((time, at)));
    }

    /// Notes a partition that has to be checked at once.
    pub(crate) fn put_at_once(&mut self, partition: u32) {
        self.partitions.insert(partition, None);
    }

    /// Removes a partition that is in memory again.
    pub(crate) fn wake(&mut self, partition: u32) {
        self.partitions.remove(&partition);
    }

    /// Returns the milliseconds until the first timer is due, counted from `wall`.
    pub(crate) fn next_due_in(&mut self, wall: i64, events: &EventTime) -> Option<u64> {
        let waits = self.partitions.values_mut().map(|sleeper| match sleeper {
            Some((time, at)) => time.until(*at, wall, events),
            None => 0,
        });
        waits.min()
    }

    /// Removes and returns the partitions that are due.
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
