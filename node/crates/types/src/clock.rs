//! Time as a component, so that tests and the simulation own it.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// Returns milliseconds since 1970-01-01 UTC; may jump either way, as a gateway's clock does.
    fn now_ms(&self) -> i64;
    /// Returns milliseconds since an earlier moment, steadily rising.
    fn steady_ms(&self) -> u64;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the time of day"
    )]
    fn now_ms(&self) -> i64 {
        // A clock before 1970 reads as 1970: timestamps of records are not negative.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
    }

    fn steady_ms(&self) -> u64 {
        static BEGUN: OnceLock<Instant> = OnceLock::new();
        BEGUN.get_or_init(Instant::now).elapsed().as_millis() as u64
    }
}
