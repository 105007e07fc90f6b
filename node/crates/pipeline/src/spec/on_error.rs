//! The policy for records that a module fails on.

use serde::{Deserialize, Serialize};
use weir_types::TopicName;

/// What becomes of records that a module fails on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OnError {
    /// The policy; when none is given, `dead-letter`, and `halt` for a pipeline that remembers: a record that is set aside
    /// is missing in what comes after it.
    pub policy: Option<Policy>,
    /// Topic for dead letters; `<first source>.dead` when none is given.
    pub topic: Option<TopicName>,
    /// How often a batch is tried, each time on a fresh instance, before it is halved.
    pub attempts: u32,
}

impl Default for OnError {
    fn default() -> Self {
        // Once more tells a passing fault from a lasting one; a third time has never told more.
        Self {
            policy: None,
            topic: None,
            attempts: 2,
        }
    }
}

/// Policy for failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// They go to a topic of their own, with what happened in their headers.
    DeadLetter,
    /// The pipeline stops and refuses records until it is resumed.
    Halt,
    /// They are dropped, and counted.
    Skip,
}
