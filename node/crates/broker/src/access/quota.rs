//! Byte rates per account (see `Principal`), like Kafka's quotas: above the rate, answers are
//! delayed, not refused.

use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use weir_types::sync::Mutex;

/// Rates in bytes a second for each account; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaConfig {
    /// Bytes per second that an account can produce.
    pub produce_bytes_per_s: Option<u64>,
    /// Bytes per second that an account can fetch.
    pub fetch_bytes_per_s: Option<u64>,
}

/// Accounts remembered. Beyond that number, a new account replaces the last in order.
const CLIENTS_MAX: usize = 10_000;

/// Longest delay of an answer: a few of Kafka's quota windows.
const THROTTLE_MAX: Duration = Duration::from_secs(10);

/// Burst: rate times this duration can be used at once.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The direction of traffic that a quota limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Produced bytes.
    Produce,
    /// Fetched bytes.
    Fetch,
}

#[derive(Default)]
pub(crate) struct Quotas {
    config: QuotaConfig,
    /// Time at which the bucket of each account is empty again.
    paid_until: Mutex<BTreeMap<(Direction, String), Instant>>,
}

impl Quotas {
    pub(crate) fn new(config: QuotaConfig) -> Self {
        Self {
            config,
            paid_until: Mutex::default(),
        }
    }

    /// Charges `client`, and returns the delay of its next request. A burst of a second is free.
    pub(crate) fn charge(&self, direction: Direction, client: &str, bytes: usize, now: Instant) -> Duration {
        let rate = match direction {
            Direction::Produce => self.config.produce_bytes_per_s,
            Direction::Fetch => self.config.fetch_bytes_per_s,
        };
        let Some(rate) = rate else { return Duration::ZERO };
        let mut paid = self.paid_until.lock();
        paid.retain(|_, until| *until > now);
        let key = (direction, client.to_owned());
        if bytes > 0 && paid.len() >= CLIENTS_MAX && !paid.contains_key(&key) {
            paid.pop_last();
        }
        let mut asked = now;
        let until = match bytes {
            0 => paid.get_mut(&key).unwrap_or(&mut asked),
            _ => paid.entry(key).or_insert(now),
        };
        let cost = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        // Older debt is forgotten, like in Kafka, whose quotas cover eleven seconds: clients that share an
        // account with a greedy client do not pay for hours.
        *until = (*until + cost).min(now + AT_ONCE + THROTTLE_MAX);
        let over = until.saturating_duration_since(now).saturating_sub(AT_ONCE);
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
        // A debt of any size is forgotten in the end.
        assert_eq!(charge("c", 1 << 30, now), THROTTLE_MAX);
        assert_eq!(charge("c", 0, now + THROTTLE_MAX), Duration::ZERO);
    }

    #[test]
    fn whoever_only_asks_takes_nobodys_place() {
        let quotas = Quotas::new(QuotaConfig {
            produce_bytes_per_s: Some(1_000),
            fetch_bytes_per_s: None,
        });
        let now = Instant::now();
        let charge = |client: &str, bytes| quotas.charge(Direction::Produce, client, bytes, now);
        for n in 0..CLIENTS_MAX {
            charge(&format!("{n:05}"), 2_000);
        }
        let last = format!("{:05}", CLIENTS_MAX - 1);
        charge("new", 0);
        assert_eq!(charge(&last, 0), Duration::from_secs(1));
    }
}
