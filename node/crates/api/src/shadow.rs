//! Shadow runs: a pipeline tried out beside the live one, without writing anything.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Outcome of a shadow run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Shadow {
    /// Name of the pipeline.
    pub name: String,
    /// Duration in seconds.
    pub seconds: f64,
    /// Counters of the candidate.
    pub candidate: ShadowSide,
    /// Counters of the live pipeline of that name, if there is one.
    pub live: Option<ShadowSide>,
    /// Records from which the two make different output.
    pub differences: u64,
    /// The first of these records, with both outputs.
    pub examples: Vec<ShadowExample>,
    /// True if the output of timers differs, which is compared as a whole and not listed.
    pub timers_differ: bool,
}

/// Counters of one side of a shadow run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShadowSide {
    /// Revision; null for the candidate.
    pub revision: Option<u64>,
    /// Records read.
    pub records: u64,
    /// Records kept as they came.
    pub kept: u64,
    /// Records dropped.
    pub dropped: u64,
    /// Records made anew.
    pub emitted: u64,
    /// Records sent to a named output, by output.
    pub routed: BTreeMap<String, u64>,
    /// Records that became dead letters.
    pub dead_letters: u64,
    /// Records dropped because a module failed on them.
    pub skipped: u64,
    /// Calls of modules that failed.
    pub failures: u64,
    /// Timers that fired.
    pub timers_fired: u64,
    /// Time spent in modules, in nanoseconds.
    pub wasm_ns: u64,
    /// Reason of a stop before the end.
    pub halted: Option<String>,
}

/// A record from which the two sides make different output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShadowExample {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// Offset.
    pub offset: u64,
    /// Output of the live pipeline.
    pub live: Vec<ShadowRecord>,
    /// Output of the candidate.
    pub candidate: Vec<ShadowRecord>,
}

/// An output record for people: text where its bytes are text, cut where they are long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShadowRecord {
    /// Output; `dead` for dead letters.
    pub output: String,
    /// Key; null for a record kept as it came.
    pub key: Option<String>,
    /// Value, or the reason of a dead letter; null for a record kept as it came.
    pub value: Option<String>,
}

/// Records of a shadow run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct ShadowQuery {
    /// First record: `start` (the preset), `end`, an offset, or a time in RFC 3339.
    pub from: Option<String>,
    /// Milliseconds to go on with new records.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", param(maximum = 60_000))]
    pub wait_ms: u64,
}
