//! The door of one key: two slopes from a pivot that close as readings come.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reading {
    pub(crate) at: i64,
    pub(crate) value: f64,
    pub(crate) whole: Vec<u8>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Door {
    /// The last reading that was let go.
    pivot: (i64, f64),
    /// The steepest line down and up from there that is near all readings since.
    lower: f64,
    upper: f64,
    /// The last one, if it has not been let go.
    held: Option<Reading>,
    /// How many in a row were no later than the one before.
    early: u8,
}

/// After so many that are earlier than the last one, that was dated ahead, or the clock was set back.
const EARLY_MAX: u8 = 8;

/// What version 1 kept.
#[derive(Debug, Deserialize)]
pub(crate) struct First {
    pivot: (i64, f64),
    lower: f64,
    upper: f64,
    held: Option<Reading>,
}

impl From<First> for Door {
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

impl Door {
    /// The first reading is let go.
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

    /// Takes the next reading. Returns the one before it, if it is let go now, and whether the next one is let go as well.
    pub(crate) fn pass(&mut self, next: Reading, deviation: f64) -> (Option<Reading>, bool) {
        let latest = self.held.as_ref().map_or(self.pivot.0, |held| held.at);
        if next.at <= latest {
            // No line goes back in time: it stands for itself, and the line goes on as if it had not come.
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
        // No line from the pivot is near all of them: the one before is where it bends.
        if let Some(before) = &before {
            *self = Self::from(before.at, before.value);
        }
        self.narrow(&next, deviation);
        self.held = Some(next);
        (before, false)
    }

    /// Lets the last one go: a new line begins there.
    pub(crate) fn flush(&mut self) -> Option<Reading> {
        let held = self.held.take()?;
        *self = Self::from(held.at, held.value);
        Some(held)
    }

    /// Closes the door so far that a line through it is near `next`, too. False when the line to `next` itself is not near all.
    fn narrow(&mut self, next: &Reading, deviation: f64) -> bool {
        let passed = next.at.abs_diff(self.pivot.0) as f64;
        let slope = |value: f64| (value - self.pivot.1) / passed;
        let (own, low, high) = (
            slope(next.value),
            slope(next.value - deviation),
            slope(next.value + deviation),
        );
        // The line that will stand for those between ends in a reading: it must itself go through the door.
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

    /// `values` at times whose steps differ, and what is let go of them.
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

    /// What is let go of readings, in the order in which it is.
    fn let_go(all: &[(i64, f64)], deviation: f64) -> Points {
        let reading = |(at, value): (i64, f64)| Reading {
            at,
            value,
            whole: Vec::new(),
        };
        let mut kept = vec![all[0]];
        let mut door = Door::new(reading(all[0]));
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
        // The first, the one ahead, those until it is seen to be, and the end of the line.
        assert_eq!(kept.len(), 2 + usize::from(EARLY_MAX) + 1, "{kept:?}");
    }

    #[test]
    fn a_straight_line_costs_its_ends() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let (_, kept) = compressed(&values, 3.0);
        assert!(kept.len() <= 3, "{kept:?}");
    }
}
