//! Which partitions of a thread to poll next, and when.

use crate::worker::backoff::RetryQueue;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use weir_types::{Offset, TopicName};

/// Interval at which undecided steps are checked while idle: the input of a failed step is read again. Also
/// the interval at which a new leader checks whether it serves.
pub(crate) const SOON: Duration = Duration::from_millis(50);

/// Offsets of a partition up to which its sources are read, and where each source ended.
pub(crate) type Positions = Vec<(TopicName, Offset)>;

/// Which partitions of a thread to poll next, and when.
#[derive(Default)]
pub(crate) struct Schedule {
    /// Partitions that could not be processed, each with the time of the next attempt.
    delayed: BTreeMap<u32, Instant>,
    /// Partitions whose leader does not answer.
    slow: RetryQueue,
    /// Read positions of partitions whose end was reached. Other partitions have to be polled.
    at_end: BTreeMap<u32, Positions>,
}

impl Schedule {
    /// Returns true if `partition` may be polled at `now`. Otherwise it is polled in a later round.
    pub(crate) fn may_poll(&mut self, partition: u32, now: Instant) -> bool {
        let is_delayed = self.delayed.get(&partition).is_some_and(|until| now < *until);
        if !is_delayed {
            self.delayed.remove(&partition);
        }
        let may = !is_delayed && self.slow.may_try(partition, now);
        if !may {
            self.poll_again(partition);
        }
        may
    }

    /// Notes a success. With `positions`, the end was reached there.
    pub(crate) fn succeeded(&mut self, partition: u32, positions: Option<Positions>) {
        self.slow.remove(partition);
        self.poll_again(partition);
        self.at_end
            .extend(positions.map(|positions| (partition, positions)));
    }

    /// Polls `partition` in the next round, whether its log has grown or not.
    pub(crate) fn poll_again(&mut self, partition: u32) {
        self.at_end.remove(&partition);
    }

    /// Polls `partition` not before `until`.
    pub(crate) fn delay(&mut self, partition: u32, until: Instant) {
        self.poll_again(partition);
        self.delayed.insert(partition, until);
    }

    /// Notes partitions whose leader does not answer: see [`RetryQueue::add`].
    pub(crate) fn note_slow(&mut self, partitions: Vec<u32>, until: Instant) {
        self.slow.add(partitions, until);
    }

    /// Polls all partitions in the next round.
    pub(crate) fn poll_all(&mut self) {
        self.at_end.clear();
    }

    /// Returns the read positions of `partition` if its end was reached.
    pub(crate) fn positions(&self, partition: u32) -> Option<&Positions> {
        self.at_end.get(&partition)
    }

    /// Iterates over the partitions whose end was reached: topic, partition and read position.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (&TopicName, u32, Offset)> {
        let positions = self.at_end.iter();
        positions.flat_map(|(partition, of)| of.iter().map(|(topic, at)| (topic, *partition, *at)))
    }

    /// Limits the time to wait, `longest`, to `retry` if partitions have to be retried.
    pub(crate) fn limit_wait(&self, longest: Duration, retry: Duration) -> Duration {
        if self.delayed.is_empty() && self.slow.is_empty() {
            longest
        } else {
            longest.clamp(SOON, retry)
        }
    }
}
