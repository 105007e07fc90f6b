//! What is known of the numbers in a window.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What two windows that become one give together.
pub trait Aggregate {
    /// Adds what `later` has; its records came later in time.
    fn merge(&mut self, later: Self);
}

/// Count, sum, mean, standard deviation, least, greatest, first and last, in 64 bytes. First and last go by the order in
/// which they were added.
///
/// The deviation is Welford's, and merging is Chan's, Golub's and LeVeque's ("Updating Formulae and a Pairwise Algorithm for
/// Computing Sample Variances", 1979): sums of squares would lose what is small beside a large mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    count: u64,
    mean: f64,
    /// Sum of the squared differences from the mean.
    squares: f64,
    min: f64,
    max: f64,
    first: f64,
    last: f64,
}

impl Stats {
    /// Adds a number.
    pub fn add(&mut self, value: f64) {
        if self.count == 0 {
            (self.min, self.max, self.first) = (value, value, value);
        }
        self.count += 1;
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.last = value;
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum.
    pub fn sum(&self) -> f64 {
        self.mean * self.count as f64
    }

    /// Their mean; 0 of none.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Their standard deviation, as of a whole population; 0 of none.
    pub fn deviation(&self) -> f64 {
        match self.count {
            0 => 0.0,
            count => (self.squares / count as f64).sqrt(),
        }
    }

    /// The least; 0 of none.
    pub fn min(&self) -> f64 {
        self.min
    }

    /// The greatest; 0 of none.
    pub fn max(&self) -> f64 {
        self.max
    }

    /// The first that was added; 0 of none.
    pub fn first(&self) -> f64 {
        self.first
    }

    /// The last that was added; 0 of none.
    pub fn last(&self) -> f64 {
        self.last
    }
}

impl Aggregate for Stats {
    fn merge(&mut self, later: Self) {
        if later.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = later;
            return;
        }
        let count = self.count + later.count;
        let apart = later.mean - self.mean;
        let share = later.count as f64 / count as f64;
        self.squares += later.squares + apart * apart * self.count as f64 * share;
        self.mean += apart * share;
        self.count = count;
        self.min = self.min.min(later.min);
        self.max = self.max.max(later.max);
        self.last = later.last;
    }
}

/// Quantiles within one in a hundred of the true value, in a few hundred bytes: DDSketch (Masson, Rim and Lee, VLDB 2019) with
/// buckets that grow by a ratio. Numbers closer to 0 than 1e-9 count as 0; those that are none are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sketch {
    zeros: u64,
    negative: BTreeMap<i32, u64>,
    positive: BTreeMap<i32, u64>,
}

/// Buckets of a sketch: from 1e-9 to 1e11 with a ratio of 1.02; beyond, the smallest become one.
const BUCKETS_MAX: usize = 2_048;
/// Ratio of a bucket's ends, for values within one in a hundred: (1 + 0.01) / (1 - 0.01).
const RATIO: f64 = 1.01 / 0.99;
const NEAR_ZERO: f64 = 1e-9;

impl Sketch {
    /// Adds a number.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        if value.abs() < NEAR_ZERO {
            self.zeros += 1;
            return;
        }
        let bucket = (value.abs().ln() / RATIO.ln()).ceil() as i32;
        let side = match value > 0.0 {
            true => &mut self.positive,
            false => &mut self.negative,
        };
        *side.entry(bucket).or_default() += 1;
        bound(side);
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.zeros + self.negative.values().chain(self.positive.values()).sum::<u64>()
    }

    /// The value below which the share `q` of all lies, 0.5 for the median; nothing when there are none.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        let rank = (q.clamp(0.0, 1.0) * count.saturating_sub(1) as f64) as u64;
        let middle = |bucket: &i32| 2.0 * RATIO.powi(*bucket) / (RATIO + 1.0);
        let negative = self.negative.iter().rev().map(|(b, n)| (-middle(b), *n));
        let positive = self.positive.iter().map(|(b, n)| (middle(b), *n));
        let zeros = std::iter::once((0.0, self.zeros));
        let mut before = 0;
        for (value, n) in negative.chain(zeros).chain(positive) {
            before += n;
            if before > rank {
                return Some(value);
            }
        }
        None
    }
}

impl Aggregate for Sketch {
    fn merge(&mut self, later: Self) {
        self.zeros += later.zeros;
        for (side, of) in [
            (&mut self.negative, later.negative),
            (&mut self.positive, later.positive),
        ] {
            for (bucket, n) in of {
                *side.entry(bucket).or_default() += n;
            }
            bound(side);
        }
    }
}

fn bound(side: &mut BTreeMap<i32, u64>) {
    while side.len() > BUCKETS_MAX
        && let Some((_, n)) = side.pop_first()
        && let Some(mut first) = side.first_entry()
    {
        *first.get_mut() += n;
    }
}

impl Aggregate for u64 {
    fn merge(&mut self, later: Self) {
        *self += later;
    }
}
