//! Pipelines at work.

use crate::spec::{At, Sources, Spec};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A pipeline with its counters since the node's start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Pipeline {
    /// Name.
    pub name: String,
    /// Topics that the pipeline reads.
    pub source: Sources,
    /// Position: before or behind the log.
    pub at: At,
    /// Revision, from 1.
    pub revision: u64,
    /// State.
    #[serde(flatten)]
    pub state: PipelineState,
    /// Specification, as applied.
    pub spec: Spec,
    /// SHA-256 of the stages' modules, in their order.
    pub digests: Vec<String>,
    /// Records that entered.
    pub records_in: u64,
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
    /// Records whose field of the event time has no time.
    #[serde(default)]
    pub bad_times: u64,
    /// Records that came after the watermark had passed their time.
    #[serde(default)]
    pub late: u64,
    /// Records too far ahead of the node's clock, which were given its time.
    #[serde(default)]
    pub redated: u64,
    /// Calls of modules that failed.
    pub failures: u64,
    /// Time spent in modules, in nanoseconds.
    pub wasm_ns: u64,
    /// Rows of state, of the partitions at work here.
    pub state_rows: u64,
    /// Timers that are set, of the partitions at work here.
    pub timers: u64,
    /// Memory of state and timers, in bytes.
    pub state_bytes: u64,
    /// Timers that fired.
    pub timers_fired: u64,
    /// Offsets stored in the sources that the pipeline has not read yet; 0 for an in-line pipeline.
    pub lag: u64,
    /// Offsets whose records were gone before the pipeline read them.
    pub missed: u64,
    /// Positions in the partitions that lag most, 64 at most.
    pub places: Vec<PipelinePlace>,
    /// Readings of the modules' instruments, by `stage.name`; null for a reading that is not finite.
    pub metrics: BTreeMap<String, Option<f64>>,
    /// Canary that runs on some partitions, with its own counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(no_recursion, nullable = false))]
    pub canary: Option<Box<Pipeline>>,
    /// Partitions of a canary.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub partitions: BTreeSet<u32>,
}

/// State of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase", tag = "state", content = "why")]
pub enum PipelineState {
    /// The pipeline works.
    Running,
    /// A client paused the pipeline. The source of an in-line pipeline refuses records.
    Paused,
    /// The pipeline stopped on a failure. The source of an in-line pipeline refuses records.
    Halted(String),
}

impl PipelineState {
    /// Returns the state's name as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Halted(_) => "halted",
        }
    }

    /// Returns the reason of a halt.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Running | Self::Paused => None,
            Self::Halted(why) => Some(why),
        }
    }
}

/// Position of a pipeline in a partition of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PipelinePlace {
    /// Source topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// Offset of the next record to read.
    pub next: u64,
    /// First offset that is not committed yet.
    pub end: u64,
}

/// Revision to go back to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct RollbackQuery {
    /// Revision; the last different one when not given.
    pub to: Option<u64>,
}

/// Partitions of a canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct CanaryQuery {
    /// Partition numbers, separated by commas.
    #[cfg_attr(feature = "openapi", param(example = "0"))]
    pub partitions: String,
}
