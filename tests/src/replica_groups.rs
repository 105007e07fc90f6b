//! Replica groups in the status of a site.

use serde_json::Value;
use std::collections::BTreeSet;

/// Returns the replica groups of a site from its status.
pub fn groups(status: &Value) -> Vec<Value> {
    status["groups"].as_array().cloned().unwrap_or_default()
}

/// Returns a list of node ids.
pub fn ids(value: &Value) -> BTreeSet<u64> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_u64)
        .collect()
}

/// Tells whether each group is on its assigned nodes and led by its preferred leader.
pub fn in_place(status: &Value) -> bool {
    let all = groups(status);
    let settled = |g: &Value| ids(&g["replicas"]) == ids(&g["members"]) && g["leader"] == g["replicas"][0];
    !all.is_empty() && all.iter().all(settled)
}

/// Returns the number of the node that leads `group`.
///
/// # Panics
/// When the group is not in the status.
pub fn leader_of(status: &Value, group: u64) -> usize {
    let all = groups(status);
    let group = all.iter().find(|g| g["group"] == group).unwrap();
    group["leader"].as_u64().unwrap() as usize
}
