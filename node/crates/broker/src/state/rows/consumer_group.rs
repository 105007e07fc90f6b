//! Consumer groups.

use serde::{Deserialize, Serialize};
use weir_log::{StateKey, StateKind};

pub(crate) fn group_row_key(group: &str) -> StateKey {
    StateKey::new(StateKind::Group, group.as_bytes())
}

/// A group as its row keeps it: what a restart or another node needs to go on where it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupRow {
    pub(crate) generation: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) leader: String,
    pub(crate) members: Vec<MemberRow>,
    /// When the last member left, in milliseconds.
    pub(crate) empty_since_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberRow {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client: String,
    pub(crate) host: String,
    pub(crate) session_ms: u32,
    pub(crate) rebalance_ms: u32,
    pub(crate) protocols: Vec<(String, Vec<u8>)>,
    pub(crate) assignment: Vec<u8>,
}
