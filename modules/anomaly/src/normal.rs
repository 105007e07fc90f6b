//! The normal range of a key.

use serde::{Deserialize, Serialize};

/// Maximum readings for a median: they are stored with each batch.
pub(crate) const MEDIAN_OF_MAX: usize = 256;
/// Deviations at which a reading's influence on the normal range is capped.
const BOUND: f64 = 3.0;
/// Factor from the median distance from the median to the standard deviation, for normally distributed
/// readings.
const OF_MEDIAN: f64 = 1.4826;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Averages,
    Median,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) method: Method,
    pub(crate) smooth: u32,
    pub(crate) baseline: u32,
    pub(crate) threshold: f64,
    /// Minimum deviation.
    pub(crate) least: f64,
    pub(crate) rearm: f64,
    pub(crate) warm_up: u32,
}

/// Statistics of a key.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Normal {
    readings: u32,
    smoothed: f64,
    mean: f64,
    variance: f64,
    /// The latest readings, as a ring, for a median.
    last: Vec<f64>,
    is_raised: bool,
}

/// The distance of a reading from the normal range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Alert {
    pub(crate) smoothed: f64,
    pub(crate) normal: f64,
    pub(crate) deviation: f64,
    pub(crate) score: f64,
}

impl Normal {
    /// Adds a reading and returns the alert that it raises, if any.
    pub(crate) fn add(&mut self, value: f64, settings: &Settings) -> Option<Alert> {
        if self.readings == 0 {
            (self.smoothed, self.mean) = (value, value);
        }
        self.smoothed += weight(settings.smooth) * (value - self.smoothed);
        let (normal, deviation) = match settings.method {
            Method::Averages => (self.mean, self.variance.sqrt()),
            Method::Median => median(&self.last),
        };
        let apart = (self.smoothed - normal).abs();
        // Without any movement before, there is no noise that could explain the change.
        let is_flat = deviation <= noise(normal);
        let deviation = deviation.max(settings.least).max(noise(normal));
        let score = apart / deviation;
        let is_warm = self.readings >= settings.warm_up;
        self.readings = self.readings.saturating_add(1);
        match settings.method {
            Method::Averages => self.average(
                value,
                settings.baseline,
                (is_warm && !is_flat).then_some(deviation),
            ),
            Method::Median => self.remember(value, settings.baseline as usize),
        }
        if score < settings.threshold * settings.rearm {
            self.is_raised = false;
        }
        if !is_warm || self.is_raised || score <= settings.threshold {
            return None;
        }
        self.is_raised = true;
        Some(Alert {
            smoothed: self.smoothed,
            normal,
            deviation,
            score,
        })
    }

    /// Updates mean and variance, after Finch, "Incremental calculation of weighted mean and variance"
    /// (2009).
    fn average(&mut self, value: f64, of: u32, bound: Option<f64>) {
        let bound = bound.map_or(f64::INFINITY, |deviation| BOUND * deviation);
        let (weight, apart) = (weight(of), (value - self.mean).clamp(-bound, bound));
        self.mean += weight * apart;
        self.variance = (1.0 - weight) * (self.variance + weight * apart * apart);
    }

    fn remember(&mut self, value: f64, of: usize) {
        let at = (self.readings as usize - 1) % of;
        match self.last.get_mut(at) {
            Some(slot) => *slot = value,
            None => self.last.push(value),
        }
        self.last.truncate(of);
    }
}

/// Returns the rounding error of sums of readings of this size.
fn noise(normal: f64) -> f64 {
    (normal.abs() * 16.0 * f64::EPSILON).max(f64::MIN_POSITIVE)
}

/// Returns the weight of a reading in a moving average of `readings`.
fn weight(readings: u32) -> f64 {
    2.0 / (f64::from(readings) + 1.0)
}

/// Returns the median of `values`, and the standard deviation estimated from the distances to the median.
fn median(values: &[f64]) -> (f64, f64) {
    let middle = |values: &mut Vec<f64>| {
        values.sort_unstable_by(f64::total_cmp);
        let half = values.len() / 2;
        let at = |i: usize| values.get(i).copied().unwrap_or(0.0);
        match values.len() % 2 {
            1 => at(half),
            _ => (at(half.saturating_sub(1)) + at(half)) / 2.0,
        }
    };
    let median = middle(&mut values.to_vec());
    let mut distances = values.iter().map(|v| (v - median).abs()).collect();
    (median, OF_MEDIAN * middle(&mut distances))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_does_not_become_normal_while_it_lasts() {
        let settings = Settings {
            method: Method::Averages,
            smooth: 1,
            baseline: 200,
            threshold: 4.0,
            least: 0.0,
            rearm: 0.5,
            warm_up: 100,
        };
        let mut normal = Normal::default();
        let calm = |n: u32| 50.0 + f64::from(n % 7);
        let raised: usize = (0..500).filter_map(|n| normal.add(calm(n), &settings)).count();
        assert_eq!(raised, 0);
        let raised: usize = (0..20)
            .filter_map(|n| normal.add(90.0 + f64::from(n), &settings))
            .count();
        assert_eq!(raised, 1, "one alert for one failure");
        assert!(normal.mean < 60.0, "{normal:?}");
        // Back to normal, and gone again.
        (0..50).for_each(|n| assert_eq!(normal.add(calm(n), &settings), None));
        assert!(normal.add(90.0, &settings).is_some());
    }

    #[test]
    fn what_never_moved_is_told_when_it_moves_and_learnt_when_it_stays() {
        for method in [Method::Averages, Method::Median] {
            let mut settings = Settings {
                method,
                smooth: 1,
                baseline: 100,
                threshold: 3.0,
                least: 0.0,
                rearm: 0.5,
                warm_up: 100,
            };
            let mut normal = Normal::default();
            assert!(
                (0..200).all(|_| normal.add(20.1, &settings).is_none()),
                "{method:?}"
            );
            let alert = normal.add(1_000.0, &settings).unwrap();
            assert!(alert.score.is_finite() && alert.score > 3.0, "{alert:?}");
            // A level that stays becomes normal, and then changes again.
            (0..2_000).for_each(|_| _ = normal.add(1_000.0, &settings));
            assert!(normal.add(20.1, &settings).is_some(), "{method:?}");
            // With a minimum deviation, the sensor's own steps are no alert.
            settings.least = 0.5;
            let mut normal = Normal::default();
            assert!((0..200).all(|_| normal.add(20.0, &settings).is_none()));
            assert_eq!(normal.add(20.5, &settings), None);
            assert!(normal.add(22.0, &settings).is_some());
        }
    }

    #[test]
    fn the_ring_has_the_last() {
        let mut normal = Normal::default();
        for n in 0..8 {
            normal.readings += 1;
            normal.remember(f64::from(n), 3);
        }
        normal.last.sort_by(f64::total_cmp);
        assert_eq!(normal.last, [5.0, 6.0, 7.0]);
        assert_eq!(median(&[1.0, 2.0, 9.0]), (2.0, 1.4826));
        assert_eq!(median(&[]), (0.0, 0.0));
    }
}
