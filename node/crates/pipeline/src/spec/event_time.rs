//! Event time: how a pipeline dates its records.

use serde::{Deserialize, Serialize};
use weir_types::TimeUnit;

/// How a pipeline dates its records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventTime {
    /// Path of the field with the record's time, as a number or in RFC 3339. Dots lead into objects, and a
    /// path that begins with `/` is a JSON Pointer. Without a field, the record's timestamp counts.
    pub field: Option<String>,
    /// Unit of a number in that field. Default: milliseconds, and a number that is implausible as
    /// milliseconds counts as no time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<TimeUnit>,
    /// Treatment of a record whose field has no valid time.
    #[serde(skip_serializing_if = "OnBadTime::is_preset")]
    pub on_bad_time: OnBadTime,
    /// Allowed delay of a record behind the latest, in milliseconds. The watermark trails the latest time by
    /// this amount.
    pub lateness_ms: u32,
    /// Silence, in milliseconds, after which the watermark advances with the node's clock. 0: the watermark
    /// only follows records.
    pub idle_ms: u32,
    /// How far ahead of the node's time a record may be, in milliseconds.
    pub future_ms: u64,
    /// Treatment of a time that is further ahead.
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

/// Treatment of a record whose field has no valid time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBadTime {
    /// The record becomes a dead letter, and no module sees it.
    #[default]
    DeadLetter,
    /// The record gets the time at which the pipeline processes it.
    Now,
    /// The record keeps its timestamp.
    Record,
}

impl OnBadTime {
    pub(crate) fn is_preset(&self) -> bool {
        *self == Self::default()
    }
}

/// Treatment of a time that is too far in the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Future {
    /// The node's time replaces the record's, and the record is marked.
    Redate,
    /// The time is kept.
    Keep,
}
