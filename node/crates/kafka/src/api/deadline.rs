//! Until when a client waits for a change: a site without most of its nodes decides nothing, and says so in time.

use crate::error::Code;
use std::time::Duration;
use tokio::time::Instant;

/// Whoever waits for nothing waits at least so long here: a change takes a sync and a round trip.
const LEAST: Duration = Duration::from_secs(1);
/// And at most so long, whatever the request says.
const MOST: Duration = Duration::from_secs(60);

/// When a request is answered at the latest.
#[derive(Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// Of a request that came now.
    pub(super) fn after(timeout_ms: i32) -> Self {
        let wait = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        Self(Instant::now() + wait.clamp(LEAST, MOST))
    }

    /// The outcome of `work`, or that it is not known.
    pub(super) async fn within<T>(
        self,
        work: impl Future<Output = Result<T, (Code, String)>>,
    ) -> Result<T, (Code, String)> {
        let outcome = tokio::time::timeout_at(self.0, work).await;
        outcome.unwrap_or_else(|_| {
            let words = "it was not decided in time, and may be done all the same";
            Err((Code::RequestTimedOut, words.to_owned()))
        })
    }
}
