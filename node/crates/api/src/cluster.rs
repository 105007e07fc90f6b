//! The nodes of a site, its replica groups, and the partitions that move between them.

use crate::site::Site;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A site, as the answering node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cluster {
    /// The group of all nodes.
    #[serde(flatten)]
    pub site: Site,
    /// The other replica groups.
    pub groups: Vec<ReplicaGroup>,
    /// Partitions that move from one group to another.
    pub moves: Vec<Move>,
    /// Output of pipelines that waits for partitions of other groups, as far as this node leads the groups it
    /// waits in.
    pub outbox: Vec<OutboxEntry>,
}

/// A replica group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReplicaGroup {
    /// Number.
    pub group: u16,
    /// Nodes that should have a replica; the first is the preferred leader.
    pub replicas: Vec<u64>,
    /// Nodes that have a replica.
    pub members: BTreeSet<u64>,
    /// Node that leads, as far as the answering node knows.
    pub leader: Option<u64>,
    /// Number of partitions.
    pub partitions: usize,
}

/// A partition that moves between replica groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Move {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// Group that has the partition.
    pub from: u16,
    /// Group that will have the partition.
    pub to: u16,
}

/// Output of pipelines that waits for a partition of another group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutboxEntry {
    /// Topic of the partition.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// Group that keeps the output until then.
    pub home: u16,
    /// Offsets that the output spans.
    pub records: u64,
    /// Bytes of record batches.
    pub bytes: u64,
}

/// Moves that a rebalance starts, each in words.
pub type Rebalance = Vec<String>;
