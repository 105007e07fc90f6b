//! Aggregates of the numbers in a window.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An aggregate that can be merged when two windows become one.
pub trait Aggregate {
    /// Adds `later`, an aggregate of records with later times.
    fn merge(&mut self, later: Self);
}

/// Count, sum, mean, standard deviation, minimum, maximum, first and last, in a hundred bytes. First and last
/// go by time; among equal times the minimum is the first and the maximum the last, so the order of records
/// does not matter.
///
/// The sum is kept in two numbers and the sum of squares in three; each number holds the rounding error of
/// the previous number ([`Twofold`], [`Threefold`]). Sums of whole numbers are exact, small deviations from a
/// large mean are not lost, and the order of the numbers does not matter while the smallest is at most 2^26
/// times smaller than the largest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    count: u64,
    sum: Twofold,
    squares: Threefold,
    min: f64,
    max: f64,
    first: (i64, f64),
    last: (i64, f64),
}

impl Stats {
    /// Adds a number with its time, in milliseconds since 1970.
    pub fn add(&mut self, value: f64, at: i64) {
        self.merge(Self {
            count: 1,
            sum: Twofold::from(value),
            squares: Threefold::default().plus(Twofold::product(value, value)),
            min: value,
            max: value,
            first: (at, value),
            last: (at, value),
        });
    }

    /// Builds the aggregate from a summary; `squares` is the sum of the squared differences from the mean.
    pub fn of_summary(
        count: u64,
        mean: f64,
        squares: f64,
        least_and_most: (f64, f64),
        ends: [(i64, f64); 2],
    ) -> Self {
        let [first, last] = ends;
        let (min, max) = least_and_most;
        let sum = Twofold::product(mean, count as f64);
        let squares = Threefold::default()
            .plus(sum.times(mean))
            .plus(Twofold::from(squares));
        Self {
            count,
            sum,
            squares,
            min,
            max,
            first,
            last,
        }
    }

    /// Returns the count.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the sum.
    pub fn sum(&self) -> f64 {
        self.sum.value()
    }

    /// Returns the mean; 0 if empty.
    pub fn mean(&self) -> f64 {
        match self.count {
            0 => 0.0,
            count => self.sum.over(count as f64).value(),
        }
    }

    /// Returns the standard deviation of the population; 0 if empty.
    pub fn deviation(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        let count = self.count as f64;
        let mean = self.sum.over(count);
        let variance = self
            .squares
            .twofold()
            .over(count)
            .plus(mean.squared().negated())
            .value();
        // Rounding may make the variance of equal numbers slightly negative.
        variance.max(0.0).sqrt()
    }

    /// Returns the minimum; 0 if empty.
    pub fn min(&self) -> f64 {
        self.min
    }

    /// Returns the maximum; 0 if empty.
    pub fn max(&self) -> f64 {
        self.max
    }

    /// Returns the first number by time; 0 if empty.
    pub fn first(&self) -> f64 {
        self.first.1
    }

    /// Returns the last number by time; 0 if empty.
    pub fn last(&self) -> f64 {
        self.last.1
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
        let order = |a: &(i64, f64), b: &(i64, f64)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1));
        self.count += later.count;
        self.sum = self.sum.plus(later.sum);
        self.squares = self
            .squares
            .plus(later.squares.twofold())
            .plus(later.squares.rest());
        self.min = self.min.min(later.min);
        self.max = self.max.max(later.max);
        self.first = std::cmp::min_by(self.first, later.first, order);
        self.last = std::cmp::max_by(self.last, later.last, order);
    }
}

/// A number in two parts with about 32 decimal digits; the second part holds the rounding error of the first.
/// Sums and products without loss are Knuth's and Dekker's (Dekker, "A Floating-Point Technique for Extending
/// the Available Precision", 1971).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Twofold(f64, f64);

/// Splits a number into halves of 26 bits.
const SPLIT: f64 = ((1u64 << 27) + 1) as f64;

impl From<f64> for Twofold {
    fn from(value: f64) -> Self {
        Self(value, 0.0)
    }
}

impl Twofold {
    /// Returns `a` + `b` with its rounding error.
    fn sum(a: f64, b: f64) -> Self {
        let sum = a + b;
        let of_b = sum - a;
        Self::finite(sum, (a - (sum - of_b)) + (b - of_b))
    }

    /// Returns `a` · `b` with its rounding error.
    fn product(a: f64, b: f64) -> Self {
        let halves = |n: f64| {
            let scaled = SPLIT * n;
            let high = scaled - (scaled - n);
            (high, n - high)
        };
        let ((a_high, a_low), (b_high, b_low)) = (halves(a), halves(b));
        let product = a * b;
        let rest = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low);
        Self::finite(product, rest)
    }

    /// Drops the second part if the first has overflowed.
    fn finite(first: f64, rest: f64) -> Self {
        Self(first, if rest.is_finite() { rest } else { 0.0 })
    }

    fn plus(self, other: Self) -> Self {
        let sum = Self::sum(self.0, other.0);
        Self::sum(sum.0, sum.1 + self.1 + other.1)
    }

    fn times(self, by: f64) -> Self {
        let product = Self::product(self.0, by);
        Self::sum(product.0, product.1 + self.1 * by)
    }

    fn over(self, by: f64) -> Self {
        let first = self.0 / by;
        let rest = self.plus(Self::product(first, by).negated()).value() / by;
        Self::sum(first, if rest.is_finite() { rest } else { 0.0 })
    }

    fn squared(self) -> Self {
        let square = Self::product(self.0, self.0);
        Self::sum(square.0, square.1 + 2.0 * self.0 * self.1)
    }

    fn negated(self) -> Self {
        Self(-self.0, -self.1)
    }

    fn value(self) -> f64 {
        self.0 + self.1
    }
}

/// A number in three parts: room for a sum of squares, each of which fills the two parts of a [`Twofold`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Threefold(f64, f64, f64);

impl Threefold {
    fn plus(self, other: Twofold) -> Self {
        self.plus_one(other.0).plus_one(other.1)
    }

    fn plus_one(self, other: f64) -> Self {
        let first = Twofold::sum(self.0, other);
        let second = Twofold::sum(self.1, first.1);
        // Normalised: the same number has the same parts, whatever its summands. Each part is nearest to the
        // remainder.
        let low = Twofold::sum(second.0, self.2 + second.1);
        let high = Twofold::sum(first.0, low.0);
        let low = Twofold::sum(high.1, low.1);
        Self(high.0, low.0, low.1)
    }

    fn twofold(self) -> Twofold {
        Twofold::sum(self.0, self.1)
    }

    /// Returns the remainder of [`Threefold::twofold`].
    fn rest(self) -> Twofold {
        Twofold::from(self.2)
    }
}

/// Quantiles within 1 % of the true value, in a few hundred bytes: DDSketch (Masson, Rim and Lee, VLDB 2019)
/// with buckets that grow by a ratio. Numbers closer to 0 than 1e-9 count as 0; numbers that are not finite
/// are ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sketch {
    zeros: u64,
    negative: BTreeMap<i32, u64>,
    positive: BTreeMap<i32, u64>,
}

/// Maximum buckets of a sketch: from 1e-9 to 1e11 with a ratio of 1.02; beyond, the smallest buckets are
/// merged.
const BUCKETS_MAX: usize = 2_048;
/// Ratio of a bucket's ends, for values within 1 %: (1 + 0.01) / (1 - 0.01).
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

    /// Returns the count.
    pub fn count(&self) -> u64 {
        self.zeros + self.negative.values().chain(self.positive.values()).sum::<u64>()
    }

    /// Returns the value below which the share `q` of all numbers lies (0.5 is the median); `None` if empty.
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
