//! Consumer groups.

use serde::{Deserialize, Serialize};

/// A consumer group in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupSummary {
    /// Name.
    pub name: String,
    /// State in Kafka's words: `Empty`, `PreparingRebalance`, `CompletingRebalance` or `Stable`.
    pub state: String,
    /// Type of the members' protocol, `consumer` for consumers; empty without members.
    pub protocol: String,
    /// Number of partitions with a committed offset.
    pub offsets: usize,
}

/// A consumer group with its members and committed offsets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Group {
    /// Name.
    pub name: String,
    /// State in Kafka's words: `Empty`, `PreparingRebalance`, `CompletingRebalance` or `Stable`.
    pub state: String,
    /// Assignment protocol that the members agreed on; empty without members.
    pub protocol: String,
    /// Members.
    pub members: Vec<GroupMember>,
    /// Committed offsets, a partition each.
    pub offsets: Vec<GroupOffset>,
}

/// A member of a consumer group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupMember {
    /// Member id that the node gave.
    pub id: String,
    /// Static instance id of the client, if it has one.
    pub instance: Option<String>,
    /// Client id.
    pub client: String,
    /// Address of the client.
    pub host: String,
}

/// A committed offset of a consumer group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupOffset {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// Offset of the next record to read; a number below zero is no position, and its meaning is the
    /// client's.
    pub offset: i64,
    /// Time of the commit in milliseconds since 1970.
    pub committed_ms: i64,
}
