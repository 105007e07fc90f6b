//! The times of records.

use serde::{Deserialize, Serialize};
use weir_types::TimeUnit;

/// What time records are from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventTime {
    /// Field of the JSON value that says it, as a number or in RFC 3339; dots lead into objects, and a path that begins with `/` is a
    /// JSON Pointer. The record's timestamp when none is given.
    pub field: Option<String>,
    /// What a number there counts; when it is not said, milliseconds, and a number that is hardly one of them is no time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<TimeUnit>,
    /// What becomes of a record whose field says no time.
    #[serde(skip_serializing_if = "OnBadTime::is_preset")]
    pub on_bad_time: OnBadTime,
    /// How much later than the latest a record may come and not be late: the watermark stays so far behind.
    pub lateness_ms: u32,
    /// Silence after which the watermark goes on by itself, at the speed of the node's clock; 0: it waits for records.
    pub idle_ms: u32,
    /// How far ahead of the node's time a record may be.
    pub future_ms: u64,
    /// What becomes of the time of one that is further ahead.
    pub future: Future,
}

impl Default for EventTime {
    fn default() -> Self {
        Self {
            field: None,
            unit: None,
            on_bad_time: OnBadTime::DeadLetter,
            lateness_ms: 0,
            idle_ms: 0,
            // Clocks that are set by hand are off by minutes, and by an hour twice a year.
            future_ms: 2 * 3_600_000,
            future: Future::Redate,
        }
    }
}

/// What becomes of a record whose field says no time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBadTime {
    /// It is a dead letter; no module sees it.
    #[default]
    DeadLetter,
    /// It is from when the pipeline works on it.
    Now,
    /// It is from the time that its timestamp says.
    Record,
}

impl OnBadTime {
    pub(crate) fn is_preset(&self) -> bool {
        *self == Self::default()
    }
}

/// What becomes of a time that is too far in the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Future {
    /// The node's time stands for it, and the record is marked.
    Redate,
    /// It stays.
    Keep,
}
