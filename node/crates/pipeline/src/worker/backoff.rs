//! Partitions that hold up the others, because whoever leads them does not answer: one of them is tried at a time, and seldom.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

#[derive(Debug, Default)]
pub(crate) struct RetryQueue {
    /// In the order in which they are tried.
    queue: VecDeque<u32>,
    /// The same.
    all: BTreeSet<u32>,
    /// Until when none of them is.
    until: Option<Instant>,
}

impl RetryQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether `partition` may be gone on with at `now`.
    pub(crate) fn may(&self, partition: u32, now: Instant) -> bool {
        let is_its_turn =
            || self.queue.front() == Some(&partition) && self.until.is_none_or(|until| now >= until);
        !self.all.contains(&partition) || is_its_turn()
    }

    /// `partitions` hold up the others: none of them is tried before `until`, and these behind those that were known before.
    pub(crate) fn note(&mut self, partitions: Vec<u32>, until: Instant) {
        self.until = Some(until);
        let fresh: BTreeSet<u32> = partitions.iter().copied().collect();
        self.queue.retain(|partition| !fresh.contains(partition));
        self.queue.extend(partitions);
        self.all.extend(fresh);
    }

    /// `partition` was gone on with: the next may be tried at once.
    pub(crate) fn is_back(&mut self, partition: u32) {
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
        let may = |slow: &RetryQueue, s| (0..6).filter(|p| slow.may(*p, at(s))).collect::<Vec<u32>>();
        let mut slow = RetryQueue::default();
        assert_eq!(may(&slow, 0), [0, 1, 2, 3, 4, 5]);
        slow.note(vec![1, 3, 0], at(20));
        assert_eq!(may(&slow, 19), [2, 4, 5]);
        assert_eq!(may(&slow, 20), [1, 2, 4, 5]);
        // Another group's, and then the first of these again.
        slow.note(vec![5], at(40));
        slow.note(vec![3, 0, 1], at(60));
        assert_eq!(may(&slow, 59), [2, 4]);
        assert_eq!(may(&slow, 60), [2, 4, 5]);
        // Once one is back, those behind it are tried as fast as they answer.
        slow.is_back(5);
        assert_eq!(may(&slow, 60), [2, 3, 4, 5]);
        slow.is_back(3);
        slow.is_back(0);
        slow.is_back(1);
        assert!(slow.is_empty() && slow.all.is_empty());
        assert_eq!(may(&slow, 60), [0, 1, 2, 3, 4, 5]);
    }
}
