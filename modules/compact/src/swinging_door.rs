//! The swinging door of a key: two slopes from a pivot that close as readings arrive.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reading {
    pub(crate) at: i64,
    pub(crate) value: f64,
    pub(crate) whole: Vec<u8>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SwingingDoor {
    /// The last reading that was emitted.
    pivot: (i64, f64),
    /// Bounds of the slopes from the pivot that stay near all readings since.
    lower: f64,
    upper: f64,
    /// The last reading, if not emitted yet.
    held: Option<Reading>,
    /// Consecutive readings that were not later than their predecessor.
    early: u8,
}

/// After this many earlier readings, the last reading counts as dated ahead, or the clock as set back.
const EARLY_MAX: u8 = 8;

/// Stored form of version 1.
#[derive(Debug, Deserialize)]
pub(crate) struct First {
    pivot: (i64, f64),
    lower: f64,
    upper: f64,
    held: Option<Reading>,
}

impl From<First> for SwingingDoor {
    fn from(first: First) -> Self {
        let First {
            pivot,
            lower,
            upper,
            held,
        } = first;
        Self {
            pivot,
            lower,
            upper,
            held,
            early: 0,
        }
    }
}

impl SwingingDoor {
    /// Opens the door at the first reading, which is emitted.
    pub(crate) fn new(first: Reading) -> Self {
        Self::from(first.at, first.value)
    }

    fn from(at: i64, value: f64) -> Self {
        Self {
            pivot: (at, value),
            lower: f64::NEG_INFINITY,
            upper: f64::INFINITY,
            held: None,
            early: 0,
        }
    }

    /// Adds the next reading. Returns the previous reading if it is emitted now, and true if the next reading
    /// is emitted as well.
    pub(crate) fn pass(&mut self, next: Reading, deviation: f64) -> (Option<Reading>, bool) {
        let latest = self.held.as_ref().map_or(self.pivot.0, |held| held.at);
        if next.at <= latest {
            // A line cannot go back in time: the reading is emitted on its own, and the line continues
            // without it.
            self.early += 1;
            if self.early < EARLY_MAX {
                return (None, true);
            }
            let held = self.held.take();
            *self = Self::from(next.at, next.value);
            return (held, true);
        }
        self.early = 0;
        let before = self.held.take();
        if self.narrow(&next, deviation) {
            self.held = Some(next);
            return (None, false);
        }
        // No line from the pivot is near all readings: the line bends at the previous reading.
        if let Some(before) = &before {
            *self = Self::from(before.at, before.value);
        }
        self.narrow(&next, deviation);
        self.held = Some(next);
        (before, false)
    }

    /// Emits the last reading; a new line begins there.
    pub(crate) fn flush(&mut self) -> Option<Reading> {
        let held = self.held.take()?;
        *self = Self::from(held.at, held.value);
        Some(held)
    }

    /// Narrows the door so that a line through it is near `next`, too. Returns false if the line to `next`
    /// itself is not near all readings.
    fn narrow(&mut self, next: &Reading, deviation: f64) -> bool {
        let passed = next.at.abs_diff(self.pivot.0) as f64;
        let slope = |value: f64| (value - self.pivot.1) / passed;
        let (own, low, high) = (
            slope(next.value),
            slope(next.value - deviation),
            slope(next.value + deviation),
        );
        // The line that replaces the readings in between ends in a reading, so that line must pass through
        // the door.
        let fits = own >= self.lower && own <= self.upper;
        self.lower = self.lower.max(low);
        self.upper = self.upper.min(high);
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Points = Vec<(i64, f64)>;

    /// Returns `values` at uneven times, and the readings emitted for them.
    fn compressed(values: &[f64], deviation: f64) -> (Points, Points) {
        let all: Points = values
            .iter()
            .enumerate()
            .map(|(n, v)| ((n * n % 7 + 10 * n) as i64, *v))
            .collect();
        let kept = let_go(&all, deviation);
        (all, kept)
    }

    #[test]
    fn each_reading_is_near_the_line_that_stands_for_it() {
        let mut seed = 1u64;
        let mut random = || {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 40) as f64 / (1u64 << 24) as f64
        };
        for round in 0..2_000 {
            let deviation = random() * 2.0;
            let mut level = 0.0;
            let values: Vec<f64> = (0..2 + round % 60)
                .map(|_| {
                    level += random() - 0.5;
                    level
                })
                .collect();
            let (all, kept) = compressed(&values, deviation);
            for (at, value) in &all {
                let after = kept.iter().position(|k| k.0 >= *at).unwrap();
                let (a, b) = (kept[after.saturating_sub(1)], kept[after]);
                let line = match b.0 - a.0 {
                    0 => b.1,
                    span => a.1 + (b.1 - a.1) * (at - a.0) as f64 / span as f64,
                };
                assert!(
                    (line - value).abs() <= deviation + 1e-9,
                    "round {round}: {value} for {line}"
                );
            }
        }
    }

    /// Returns the emitted readings, in order of emission.
    fn let_go(all: &[(i64, f64)], deviation: f64) -> Points {
        let reading = |(at, value): (i64, f64)| Reading {
            at,
            value,
            whole: Vec::new(),
        };
        let mut kept = vec![all[0]];
        let mut door = SwingingDoor::new(reading(all[0]));
        for next in &all[1..] {
            let (before, goes_too) = door.pass(reading(*next), deviation);
            kept.extend(before.map(|b| (b.at, b.value)));
            kept.extend(goes_too.then_some(*next));
        }
        kept.extend(door.flush().map(|b| (b.at, b.value)));
        kept
    }

    #[test]
    fn what_goes_back_in_time_stands_for_itself() {
        let all = [
            (0, 0.0),
            (100, 0.0),
            (50, 999.0),
            (60, 1_000.0),
            (70, 5.0),
            (200, 0.0),
            (300, 0.0),
        ];
        let kept = let_go(&all, 0.5);
        assert_eq!(
            kept,
            [(0, 0.0), (50, 999.0), (60, 1_000.0), (70, 5.0), (300, 0.0)]
        );
    }

    #[test]
    fn after_one_that_is_dated_ahead_it_goes_on() {
        let mut all = vec![(0, 0.0), (10, 0.0), (3_600_000, 0.0)];
        all.extend((2..100).map(|n| (n * 10, 0.0)));
        let kept = let_go(&all, 0.5);
        // The first reading, the reading dated ahead, those until the detection, and the end of the line.
        assert_eq!(kept.len(), 2 + usize::from(EARLY_MAX) + 1, "{kept:?}");
    }

    #[test]
    fn a_straight_line_costs_its_ends() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let (_, kept) = compressed(&values, 3.0);
        assert!(kept.len() <= 3, "{kept:?}");
    }
}
