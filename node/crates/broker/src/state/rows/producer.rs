//! Idempotent producers: the last five batches of each on each partition, like in Kafka (KIP-98).
//!
//! A pure state machine: [`Window::check`] classifies a batch, [`Window::accept`] records a batch.

use crate::state::rows::{Row, parse_partition};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use weir_log::{FormatError, StateKind};
use weir_types::limits::PRODUCER_WINDOW;
use weir_types::planted::{Bug, planted};
use weir_types::{Offset, PartitionId, Producer};

/// First producer id of channels: `CHANNELS` plus the number of the home group. Allocated ids count up from
/// 1.
pub(crate) const CHANNELS: i64 = 1 << 62;

/// A batch that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Accepted {
    /// Sequence of the first record.
    pub(crate) sequence: i32,
    /// Number of records sent, including records that a filter dropped.
    pub(crate) span: u32,
    /// Base offset.
    pub(crate) base: Offset,
}

/// State of a producer on a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) epoch: i16,
    pub(crate) batches: VecDeque<Accepted>,
    /// Time of the last batch in milliseconds since 1970; the oldest producer is forgotten first.
    pub(crate) last_ms: i64,
}

/// Classification of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Next,
    Duplicate(Accepted),
    OutOfOrder { expected: i32 },
    Fenced { current: i16 },
    Unknown,
}

impl Window {
    /// Classifies a batch of `span` records from `producer`, given the producer's window, if any.
    pub(crate) fn check(window: Option<&Self>, producer: &Producer, span: u32) -> Verdict {
        let Some(window) = window else {
            // Like Kafka, accepts an unknown producer only from sequence 0: another sequence means that the
            // window has been forgotten.
            return if producer.sequence == 0 {
                Verdict::Next
            } else {
                Verdict::Unknown
            };
        };
        if producer.epoch < window.epoch {
            return Verdict::Fenced {
                current: window.epoch,
            };
        }
        if producer.epoch > window.epoch {
            return if producer.sequence == 0 {
                Verdict::Next
            } else {
                Verdict::OutOfOrder { expected: 0 }
            };
        }
        let same = |a: &&Accepted| a.sequence == producer.sequence && a.span == span;
        if let Some(accepted) = window.batches.iter().find(same) {
            if planted(Bug::NoDedup) {
                return Verdict::Next;
            }
            return Verdict::Duplicate(*accepted);
        }
        let expected = window.batches.back().map_or(0, |a| after(a.sequence, a.span));
        if producer.sequence == expected {
            Verdict::Next
        } else {
            Verdict::OutOfOrder { expected }
        }
    }

    /// Returns the sequence of the last record; -1 for none.
    pub(crate) fn last_sequence(&self) -> i32 {
        self.batches
            .back()
            .map_or(-1, |a| after(a.sequence, a.span.saturating_sub(1)))
    }

    pub(crate) fn accept(&mut self, producer: &Producer, batch: Accepted, now_ms: i64) {
        if producer.epoch != self.epoch {
            self.batches.clear();
            self.epoch = producer.epoch;
        }
        while self.batches.len() >= PRODUCER_WINDOW {
            self.batches.pop_front();
        }
        self.batches.push_back(batch);
        self.last_ms = now_ms;
    }
}

impl Row for Window {
    const KIND: StateKind = StateKind::Producer;
    type Key = (PartitionId, i64);

    fn key_bytes((partition, id): &(PartitionId, i64)) -> Vec<u8> {
        [&partition.0.to_be_bytes()[..], &id.to_be_bytes()].concat()
    }

    fn parse_key(bytes: &[u8]) -> Option<(PartitionId, i64)> {
        let (partition, id) = bytes.split_first_chunk::<4>()?;
        Some((
            parse_partition(partition)?,
            i64::from_be_bytes(*id.first_chunk()?),
        ))
    }

    fn encode(&self) -> Bytes {
        weir_log::encode(self)
    }

    fn decode(value: &[u8]) -> Result<Self, FormatError> {
        weir_log::decode("the window of a producer", value)
    }
}

/// Sequences wrap from 2^31 - 1 to 0.
pub(crate) fn after(sequence: i32, span: u32) -> i32 {
    ((i64::from(sequence) + i64::from(span)) % (i64::from(i32::MAX) + 1)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producer(epoch: i16, sequence: i32) -> Producer {
        Producer {
            id: 1,
            epoch,
            sequence,
        }
    }

    fn sent(window: &mut Window, sequence: i32, span: u32, base: u64) {
        let batch = Accepted {
            sequence,
            span,
            base: Offset::new(base),
        };
        window.accept(&producer(0, sequence), batch, 0);
    }

    #[test]
    fn the_last_five_are_known_again_and_a_hole_is_refused() {
        let mut window = Window::default();
        for i in 0..7 {
            sent(&mut window, i * 10, 10, i as u64 * 10);
        }
        assert_eq!(Window::check(Some(&window), &producer(0, 70), 5), Verdict::Next);
        for i in 2..7 {
            let verdict = Window::check(Some(&window), &producer(0, i * 10), 10);
            assert!(matches!(verdict, Verdict::Duplicate(a) if a.base.get() == i as u64 * 10));
        }
        for bad in [10, 71, 69] {
            let verdict = Window::check(Some(&window), &producer(0, bad), 10);
            assert_eq!(verdict, Verdict::OutOfOrder { expected: 70 });
        }
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_fences_the_old_one() {
        let mut window = Window::default();
        sent(&mut window, 0, 3, 0);
        assert_eq!(
            Window::check(Some(&window), &producer(1, 3), 1),
            Verdict::OutOfOrder { expected: 0 }
        );
        assert_eq!(Window::check(Some(&window), &producer(1, 0), 1), Verdict::Next);
        let batch = Accepted {
            sequence: 0,
            span: 1,
            base: Offset::new(3),
        };
        window.accept(&producer(1, 0), batch, 0);
        assert_eq!(
            Window::check(Some(&window), &producer(0, 3), 1),
            Verdict::Fenced { current: 1 }
        );
    }

    #[test]
    fn sequences_wrap() {
        let mut window = Window::default();
        sent(&mut window, i32::MAX - 1, 4, 0);
        assert_eq!(Window::check(Some(&window), &producer(0, 2), 1), Verdict::Next);
    }
}
