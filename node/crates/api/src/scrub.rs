//! Scrubbing: reading and checking all stored records.

use crate::topic::GapReason;
use serde::{Deserialize, Serialize};

/// Findings of a scrub.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScrubReport {
    /// Partitions read.
    pub partitions: u64,
    /// Intact batches.
    pub batches: u64,
    /// Records of these batches.
    pub records: u64,
    /// Bytes of these batches.
    pub bytes: u64,
    /// Ranges known before to have no records.
    pub gaps: Vec<NamedGap>,
    /// Ranges found damaged.
    pub damaged: Vec<NamedGap>,
    /// Faults of rows that hold no records: headers of entries, topics, groups.
    pub rows: Vec<String>,
    /// Ranges found damaged and replaced by another node's copy; of a running node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub mended: Option<Vec<NamedGap>>,
    /// Remarks of opening the log; of a stopped node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub notes: Option<Vec<String>>,
    /// Partitions after a repair; of a stopped node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub repaired: Option<Vec<RepairedPartition>>,
    /// Files that a repair could not read; of a stopped node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub unreadable: Option<Vec<String>>,
}

/// A range of a partition that has no records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NamedGap {
    /// Topic; null when no topic has the partition.
    pub topic: Option<String>,
    /// Number of the partition within the topic.
    pub index: Option<u32>,
    /// Identity of the partition in the log.
    pub partition: u32,
    /// First offset of the range.
    pub start: u64,
    /// First offset after the range.
    pub end: u64,
    /// Reason.
    pub reason: GapReason,
}

/// A partition after a repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RepairedPartition {
    /// Topic; null when no topic has the partition.
    pub topic: Option<String>,
    /// Number of the partition within the topic.
    pub partition: Option<u32>,
    /// Identity of the partition in the log.
    pub id: u32,
    /// Records that came back.
    pub records: u64,
    /// Bytes of record batches that came back.
    pub bytes: u64,
    /// Ranges whose records are lost.
    pub lost: Vec<LostRange>,
}

/// A range of offsets whose records are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LostRange {
    /// First offset of the range.
    pub start: u64,
    /// First offset after the range.
    pub end: u64,
}
