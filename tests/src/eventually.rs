//! Waiting for a condition, with a deadline and the last state in the message.

use crate::DEADLINE;
use std::fmt::Display;
use std::time::{Duration, Instant};

/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// Outcome of an attempt: `bool`, `Option`, or `Result` whose error describes the state that was found.
pub trait Attempt {
    /// Value of a successful attempt.
    type Value;

    /// Returns the value, or a description of the state that was found instead.
    ///
    /// # Errors
    /// When the attempt was not successful.
    fn outcome(self) -> Result<Self::Value, String>;
}

impl Attempt for bool {
    type Value = ();

    fn outcome(self) -> Result<(), String> {
        self.then_some(()).ok_or_else(String::new)
    }
}

impl<T> Attempt for Option<T> {
    type Value = T;

    fn outcome(self) -> Result<T, String> {
        self.ok_or_else(String::new)
    }
}

impl<T, E: Display> Attempt for Result<T, E> {
    type Value = T;

    fn outcome(self) -> Result<T, String> {
        self.map_err(|found| format!("; found: {found}"))
    }
}

/// Repeats `attempt` until success, and returns its value.
///
/// # Panics
/// When `expected` is not the case within [`DEADLINE`]; with the last state that was found.
pub fn eventually<A: Attempt>(expected: &str, attempt: impl FnMut() -> A) -> A::Value {
    within(DEADLINE, expected, attempt)
}

/// Repeats `attempt` until success, as [`eventually`] does, but for at most `limit`.
///
/// # Panics
/// When `expected` is not the case within `limit`; with the last state that was found.
pub fn within<A: Attempt>(limit: Duration, expected: &str, mut attempt: impl FnMut() -> A) -> A::Value {
    let begun = Instant::now();
    loop {
        match attempt().outcome() {
            Ok(value) => return value,
            Err(found) => assert!(begun.elapsed() < limit, "not within {limit:?}: {expected}{found}"),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Repeats an asynchronous `attempt` until success, and returns its value.
///
/// # Panics
/// When `expected` is not the case within [`DEADLINE`]; with the last state that was found.
pub async fn eventually_async<A: Attempt>(expected: &str, mut attempt: impl AsyncFnMut() -> A) -> A::Value {
    let begun = Instant::now();
    loop {
        match attempt().await.outcome() {
            Ok(value) => return value,
            Err(found) => assert!(
                begun.elapsed() < DEADLINE,
                "not within {DEADLINE:?}: {expected}{found}"
            ),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
