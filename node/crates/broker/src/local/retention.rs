//! Memory of retention: the clocks of groups, and the counts of removed records.

use crate::local::age::{Ageing, Watch};
use serde::Serialize;
use std::collections::BTreeMap;
use weir_types::{GroupId, TopicName};

/// Why retention removes records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// `retention.ms`.
    Age,
    /// `retention.bytes`.
    Size,
    /// The node's disk budget.
    Budget,
}

/// Memory of retention on this node.
#[derive(Default)]
pub(crate) struct Retention {
    pub(crate) watch: Watch,
    pub(crate) ageing: BTreeMap<GroupId, Ageing>,
    pub(crate) removed: BTreeMap<TopicName, Removed>,
    /// Time of the last warning about compacted topics that exceed the budget.
    pub(crate) over_told_at: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Removed {
    pub(crate) counts: BTreeMap<Why, u64>,
    pub(crate) told_at: Option<u64>,
}
