//! Topics over HTTP.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A topic with its settings and partitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Topic {
    /// Name.
    pub name: String,
    /// Settings by name, presets included.
    pub config: BTreeMap<String, String>,
    /// Partitions in the order of their numbers.
    pub partitions: Vec<Partition>,
    /// Records that retention has removed on the node since its start, by reason: `age`, `size` or `budget`.
    /// Told of a single topic only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub removed: Option<BTreeMap<String, u64>>,
}

/// A partition. Of partitions that the node has no replica of, it tells only the placement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Partition {
    /// Number within the topic, from 0.
    pub partition: u32,
    /// Replica group that carries the partition; group 0 is on all nodes.
    pub group: u16,
    /// Node that leads the group, as far as the node knows.
    pub leader: Option<u64>,
    /// Nodes that have a replica.
    pub replicas: Vec<u64>,
    /// First offset that may still have a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub log_start: Option<u64>,
    /// First offset that is not committed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub committed_end: Option<u64>,
    /// Bytes of record batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub bytes: Option<u64>,
    /// Records lost or evicted, ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub lost: Option<u64>,
    /// Ranges without records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub gaps: Option<Vec<Gap>>,
}

/// A range of offsets that has no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gap {
    /// First offset of the range.
    pub start: u64,
    /// First offset after the range.
    pub end: u64,
    /// Reason.
    pub reason: GapReason,
}

/// Reason for a range of offsets without records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum GapReason {
    /// Older than the topic's retention allows.
    Expired,
    /// Removed to stay within the node's disk budget.
    Evicted,
    /// Damaged, or gone from the disk.
    Lost,
    /// Deleted by a client.
    Deleted,
}

impl std::fmt::Display for GapReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Lost => "lost",
            Self::Deleted => "deleted",
        })
    }
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewTopic {
    /// Name: 1 to 249 letters, digits, `.`, `_` or `-`.
    pub name: String,
    /// Number of partitions.
    #[serde(default = "single_partition")]
    pub partitions: u32,
    /// Nodes that keep each partition; all of the site's when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub replication: Option<u32>,
    /// Settings that differ from the presets.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
}

fn single_partition() -> u32 {
    1
}

/// A change of a topic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TopicChange {
    /// Number of partitions from now on; never fewer than now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub partitions: Option<u32>,
    /// Settings to change; an empty value restores the preset.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
}
