//! The policy for records that a module fails on.

use serde::{Deserialize, Serialize};
use weir_types::TopicName;

/// Error policy of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OnError {
    /// The policy. Default: `dead-letter`, and `halt` for a stateful pipeline, since later results would lack
    /// a record that was set aside.
    pub policy: Option<Policy>,
    /// Topic for dead letters. Default: `<first source>.dead`.
    pub topic: Option<TopicName>,
    /// Attempts for a batch, each on a fresh instance, before the batch is split. 1 to 10.
    pub attempts: u32,
}

impl Default for OnError {
    fn default() -> Self {
        // A second attempt tells a passing fault from a lasting fault. A third attempt has never helped.
        Self {
            policy: None,
            topic: None,
            attempts: 2,
        }
    }
}

/// Treatment of records that a module fails on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Records go to a topic of their own, with the error in their headers.
    DeadLetter,
    /// The pipeline stops. In-line, the source refuses records until the pipeline is resumed.
    Halt,
    /// Records are dropped and counted.
    Skip,
}
