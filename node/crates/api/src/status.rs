//! Status of a node.

use crate::cluster::ReplicaGroup;
use crate::pipeline::PipelineState;
use crate::scrub::NamedGap;
use crate::site::Site;
use crate::spec::Sources;
use serde::{Deserialize, Serialize};

/// Status of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// SHA-256 of the node's certificate in hexadecimal.
    pub identity: String,
    /// Identity of the site; null before the first entry.
    pub site: Option<String>,
    /// Feature level of the site.
    pub level: u32,
    /// The group of all nodes.
    pub group: Site,
    /// The other replica groups.
    pub groups: Vec<ReplicaGroup>,
    /// True while the node leads and reaches most voters.
    pub serving: bool,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Origin epoch of the log.
    pub epoch: u32,
    /// Number of topics.
    pub topics: usize,
    /// Number of partitions.
    pub partitions: usize,
    /// Topics whose records are acknowledged before they are synced.
    pub lazy_topics: Vec<String>,
    /// Bytes that the data takes on disk.
    pub disk_bytes: u64,
    /// Bytes free on the disk.
    pub disk_free_bytes: u64,
    /// Bytes that stay free.
    pub disk_reserve_bytes: u64,
    /// True while the node takes records: the log works, and the disk has room.
    pub accepting: bool,
    /// Records that retention has removed since the start.
    pub removed: Removed,
    /// Syncs of the log since the start.
    pub syncs: u64,
    /// Bytes written to the log since the start.
    pub written_bytes: u64,
    /// Shares of the node's memory, connections and files.
    pub shares: Vec<Share>,
    /// Pipelines.
    pub pipelines: Vec<PipelineSummary>,
    /// Ranges found damaged since the start.
    pub damaged: Vec<NamedGap>,
    /// Ranges found lost at the start.
    pub lost_at_start: Vec<NamedGap>,
    /// Remarks of opening the log at the start.
    pub notes_at_start: Vec<String>,
}

/// Records that retention has removed, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Removed {
    /// By `retention.ms`.
    pub age: u64,
    /// By `retention.bytes`.
    pub size: u64,
    /// By the node's disk budget.
    pub budget: u64,
}

/// A share of the node's memory, connections or files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Share {
    /// Name.
    pub share: String,
    /// Resource: `memory` (in bytes), `connections` or `files`.
    pub of: String,
    /// Amount in use.
    pub used: u64,
    /// Amount in all.
    pub max: u64,
    /// Requests refused because the share was used up.
    pub refused: u64,
}

/// A pipeline in the status of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PipelineSummary {
    /// Name.
    pub name: String,
    /// Topics that the pipeline reads.
    pub source: Sources,
    /// State.
    pub state: PipelineState,
    /// Records that entered since the start.
    pub records_in: u64,
}
