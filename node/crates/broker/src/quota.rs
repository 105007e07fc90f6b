//! Byte rates per account (see [`crate::Principal`]), as Kafka's quotas: whoever is over is answered late, not refused.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Rates in bytes a second for each account; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaConfig {
    /// What one account may produce.
    pub produce_bytes_per_s: Option<u64>,
    /// What one account may fetch.
    pub fetch_bytes_per_s: Option<u64>,
}

/// Accounts remembered: one beyond these pays with the last one's bucket.
const CLIENTS_MAX: usize = 10_000;
/// Longest time that one answer is held back: Kafka's quota window of a second times a few.
const THROTTLE_MAX: Duration = Duration::from_secs(10);

/// Which of the two quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// For what is written.
    Produce,
    /// For what is read.
    Fetch,
}

#[derive(Default)]
pub(crate) struct Quotas {
    config: QuotaConfig,
    /// When the bucket of each client is empty again.
    paid_until: Mutex<BTreeMap<(Direction, String), Instant>>,
}

impl Quotas {
    pub(crate) fn new(config: QuotaConfig) -> Self {
        Self {
            config,
            paid_until: Mutex::default(),
        }
    }

    /// Charges `client` and says how long its next request has to wait. A second's worth may be used at once.
    pub(crate) fn charge(&self, direction: Direction, client: &str, bytes: usize, now: Instant) -> Duration {
        let rate = match direction {
            Direction::Produce => self.config.produce_bytes_per_s,
            Direction::Fetch => self.config.fetch_bytes_per_s,
        };
        let Some(rate) = rate else { return Duration::ZERO };
        let mut paid = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        paid.retain(|_, until| *until > now);
        if paid.len() >= CLIENTS_MAX {
            paid.pop_last();
        }
        let until = paid.entry((direction, client.to_owned())).or_insert(now);
        *until += Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let over = until
            .saturating_duration_since(now)
            .saturating_sub(Duration::from_secs(1));
        over.min(THROTTLE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_over_its_rate_waits_and_another_does_not() {
        let quotas = Quotas::new(QuotaConfig {
            produce_bytes_per_s: Some(1_000),
            fetch_bytes_per_s: None,
        });
        let now = Instant::now();
        let charge = |client, bytes, at| quotas.charge(Direction::Produce, client, bytes, at);
        assert_eq!(charge("a", 1_000, now), Duration::ZERO);
        assert_eq!(charge("a", 2_000, now), Duration::from_secs(2));
        assert_eq!(charge("b", 500, now), Duration::ZERO);
        assert_eq!(charge("a", 0, now + Duration::from_secs(3)), Duration::ZERO);
        assert_eq!(quotas.charge(Direction::Fetch, "a", 1 << 30, now), Duration::ZERO);
    }
}
