//! Specification of a pipeline. In requests it is TOML; answers tell it as JSON of the same names.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Specification of a pipeline: modules chained on topics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Spec {
    /// Name.
    pub name: String,
    /// Topics that the pipeline reads.
    pub source: Sources,
    /// Position: before or behind the log.
    #[serde(default)]
    pub at: At,
    /// First record to read, behind the log; the oldest when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub from: Option<Origin>,
    /// Number of threads, behind the log; derived from cores and partitions when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub threads: Option<usize>,
    /// Stages, first to last.
    pub stages: Vec<Stage>,
    /// Topics of the modules' named outputs.
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
    /// Handling of records that a module fails on.
    pub on_error: OnError,
    /// Time of records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub event_time: Option<EventTime>,
    /// Limits on each call of each module.
    pub limits: CallLimits,
    /// Bounds whose violation rolls the pipeline back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub guard: Option<Guard>,
}

impl Spec {
    /// Returns the name of the topic for dead letters.
    pub fn dead_letters(&self) -> String {
        let first = || self.source.topics().first().map_or("", String::as_str);
        let topic = self.on_error.topic.clone();
        topic.unwrap_or_else(|| format!("{}.dead", first()))
    }
}

/// Topics that a pipeline reads: a name, or a list of names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Sources {
    /// A single topic.
    Single(String),
    /// Several topics.
    Several(Vec<String>),
}

impl Sources {
    /// Returns the topics in their order.
    pub fn topics(&self) -> &[String] {
        match self {
            Self::Single(topic) => std::slice::from_ref(topic),
            Self::Several(topics) => topics,
        }
    }
}

impl FromIterator<String> for Sources {
    fn from_iter<I: IntoIterator<Item = String>>(topics: I) -> Self {
        let mut topics: Vec<String> = topics.into_iter().collect();
        match topics.len() {
            1 => Self::Single(topics.remove(0)),
            _ => Self::Several(topics),
        }
    }
}

impl std::fmt::Display for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.topics().join(","))
    }
}

/// Position of a pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum At {
    /// In-line: before a record is stored.
    #[default]
    Ingest,
    /// Behind the log: reads stored records.
    Log,
}

impl At {
    /// Returns the position's name as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Log => "log",
        }
    }
}

/// First record to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Origin {
    /// An offset, on each partition.
    Offset(u64),
    /// `start`, `end`, or a time in RFC 3339.
    Named(String),
}

/// A stage of a pipeline: a module with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stage {
    /// Module by `name`, `name@version` or SHA-256 digest.
    pub module: String,
    /// Values of the module's parameters.
    #[serde(default)]
    pub config: BTreeMap<String, Value>,
    /// Interfaces that the module may import beside `log` and `metrics`.
    #[serde(default)]
    pub grants: BTreeSet<Grant>,
}

/// An interface that a stage may be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// `weir:module/state`: rows that outlast a call.
    State,
    /// `weir:module/timers`: calls at a later time.
    Timers,
}

/// Handling of records that a module fails on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OnError {
    /// Policy; null in an old revision for the preset.
    pub policy: Option<Policy>,
    /// Topic for dead letters; `<first source>.dead` when null.
    pub topic: Option<String>,
    /// Attempts at a batch before it is halved.
    pub attempts: u32,
}

/// Policy for failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// The record goes to a topic of dead letters.
    DeadLetter,
    /// The pipeline stops until a client resumes it.
    Halt,
    /// The record is dropped and counted.
    Skip,
}

/// Time of records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventTime {
    /// Field of the JSON value that has the time; the record's timestamp when null.
    pub field: Option<String>,
    /// Unit of a number in that field; milliseconds when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub unit: Option<TimeUnit>,
    /// Handling of a record whose field has no time.
    #[serde(default, skip_serializing_if = "OnBadTime::is_preset")]
    pub on_bad_time: OnBadTime,
    /// Milliseconds that the watermark stays behind the latest time.
    pub lateness_ms: u32,
    /// Milliseconds of silence after which the watermark follows the node's clock; 0 for never.
    pub idle_ms: u32,
    /// Milliseconds that a record may be ahead of the node's clock.
    pub future_ms: u64,
    /// Handling of a time that is further ahead.
    pub future: Future,
}

/// Unit of a number that counts from 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

/// Handling of a record whose field has no time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OnBadTime {
    /// The record becomes a dead letter.
    #[default]
    DeadLetter,
    /// The record gets the node's time.
    Now,
    /// The record gets the time of its timestamp.
    Record,
}

impl OnBadTime {
    /// Tells whether this is the preset, which JSON leaves out.
    pub fn is_preset(&self) -> bool {
        *self == Self::default()
    }
}

/// Handling of a time too far in the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Future {
    /// The node's time replaces it, and the record is marked.
    Redate,
    /// It stays.
    Keep,
}

/// Limits on each call of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CallLimits {
    /// Milliseconds that a call may take, and as much again for each MiB of its batch.
    pub deadline_ms: u32,
    /// Bytes of linear memory.
    pub memory_bytes: usize,
    /// Bytes that a call may return or hand to the host.
    pub output_bytes: usize,
    /// Lines that a call may log.
    pub log_lines: u32,
    /// Bytes of memory for the state of all stages of a pipeline, on a node.
    pub state_bytes: usize,
}

/// Bounds that a revision keeps for a while, or the revision before it comes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Guard {
    /// Seconds of watching after the change.
    pub watch_s: u32,
    /// Records before which only a halt counts.
    pub min_records: u64,
    /// Largest share of records that become dead letters or are skipped.
    pub failed_max: Option<f64>,
    /// Longest average time in modules for a record, in nanoseconds.
    pub ns_max: Option<u64>,
    /// Fewest and most output records for each input record, on average.
    pub output: Option<[f64; 2]>,
}
