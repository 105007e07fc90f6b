//! Deadline of a change requested by a client. A site without a quorum decides nothing; the client gets an
//! error in time.

use crate::error::Code;
use std::time::Duration;
use tokio::time::Instant;

/// Minimum wait: a change takes a sync and a round trip, even if the client asks for no wait.
const LEAST: Duration = Duration::from_secs(1);
/// Maximum wait, whatever the request says.
const MOST: Duration = Duration::from_secs(60);

/// The latest time at which a request is answered.
#[derive(Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// Returns the deadline of a request that arrived now.
    pub(super) fn after(timeout_ms: i32) -> Self {
        let wait = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
        Self(Instant::now() + wait.clamp(LEAST, MOST))
    }

    /// Returns the result of `work`, or an unknown outcome once the deadline has passed.
    pub(super) async fn within<T>(
        self,
        work: impl Future<Output = Result<T, (Code, String)>>,
    ) -> Result<T, (Code, String)> {
        let outcome = tokio::time::timeout_at(self.0, work).await;
        outcome.unwrap_or_else(|_| {
            let words = "timed out before a decision; the change may still take effect";
            Err((Code::RequestTimedOut, words.to_owned()))
        })
    }
}
