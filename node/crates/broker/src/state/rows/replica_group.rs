//! Replica groups.

use crate::state::tables::Tables;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use weir_log::{Op, StateKey, StateKind, encode};
use weir_replica::{Member, NodeId};
use weir_types::GroupId;

pub(crate) fn group_key_of(kind: StateKind, group: GroupId) -> StateKey {
    StateKey::new(kind, &group.0.to_be_bytes())
}

pub(crate) fn group_row<T: for<'a> Deserialize<'a>>(
    tables: &Tables,
    kind: StateKind,
    group: GroupId,
) -> Option<T> {
    let value = tables.others.get(&(kind as u8, group.0.to_be_bytes().to_vec()))?;
    postcard::from_bytes(value).ok()
}

pub(crate) fn put_group<T: Serialize>(kind: StateKind, group: GroupId, row: &T) -> Op {
    Op::Put {
        key: group_key_of(kind, group),
        value: encode(row),
    }
}

/// The nodes that have a replica group, as decided: the group's own members follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplicaGroup {
    /// Who has it. The first is to lead when it can.
    pub(crate) replicas: Vec<NodeId>,
    /// How many should, as soon as there are so many nodes.
    pub(crate) size: usize,
    /// Those who begin it, as they were then: on each of them it begins with the same entry.
    pub(crate) founders: BTreeMap<NodeId, Member>,
    /// Counts changes, so that a leader can say which it has heard of.
    pub(crate) version: u64,
}
