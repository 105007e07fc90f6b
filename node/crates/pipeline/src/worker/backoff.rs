//! Partitions whose leader does not answer and that delay the others. A single such partition is retried at a
//! time, after a pause.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

/// Partitions whose leader does not answer.
#[derive(Debug, Default)]
pub(crate) struct RetryQueue {
    /// Partitions in the order of their retries.
    queue: VecDeque<u32>,
    /// The same partitions, for look-ups.
    all: BTreeSet<u32>,
    /// Time of the next retry.
    until: Option<Instant>,
}

impl RetryQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns true if `partition` may be polled at `now`.
    pub(crate) fn may_try(&self, partition: u32, now: Instant) -> bool {
        let is_its_turn =
            || self.queue.front() == Some(&partition) && self.until.is_none_or(|until| now >= until);
        !self.all.contains(&partition) || is_its_turn()
    }

    /// Notes partitions whose leader does not answer. They are retried after those noted earlier, and not
    /// before `until`.
    pub(crate) fn add(&mut self, partitions: Vec<u32>, until: Instant) {
        self.until = Some(until);
        let fresh: BTreeSet<u32> = partitions.iter().copied().collect();
        self.queue.retain(|partition| !fresh.contains(partition));
        self.queue.extend(partitions);
        self.all.extend(fresh);
    }

    /// Removes `partition` after a success. The next may be retried at once.
    pub(crate) fn remove(&mut self, partition: u32) {
        if self.all.remove(&partition) {
            self.queue.retain(|slow| *slow != partition);
            self.until = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn one_is_tried_at_a_time_and_the_others_are_not_held_up() {
        let begun = Instant::now();
        let at = |s| begun + Duration::from_secs(s);
        let may = |slow: &RetryQueue, s| (0..6).filter(|p| slow.may_try(*p, at(s))).collect::<Vec<u32>>();
        let mut slow = RetryQueue::default();
        assert_eq!(may(&slow, 0), [0, 1, 2, 3, 4, 5]);
        slow.add(vec![1, 3, 0], at(20));
        assert_eq!(may(&slow, 19), [2, 4, 5]);
        assert_eq!(may(&slow, 20), [1, 2, 4, 5]);
        // A partition of another group, then the first group again.
        slow.add(vec![5], at(40));
        slow.add(vec![3, 0, 1], at(60));
        assert_eq!(may(&slow, 59), [2, 4]);
        assert_eq!(may(&slow, 60), [2, 4, 5]);
        // After a success, the others are retried without pause.
        slow.remove(5);
        assert_eq!(may(&slow, 60), [2, 3, 4, 5]);
        slow.remove(3);
        slow.remove(0);
        slow.remove(1);
        assert!(slow.is_empty() && slow.all.is_empty());
        assert_eq!(may(&slow, 60), [0, 1, 2, 3, 4, 5]);
    }
}
