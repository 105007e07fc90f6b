//! Plans from rows, and rows from plans.

use crate::placement::balance::{Layout, ReplicaMove};
use crate::state::rows::Row;
use crate::state::rows::replica_group::ReplicaGroup;
use crate::state::rows::site::Leaving;
use crate::state::tables::Tables;
use std::collections::{BTreeMap, BTreeSet};
use weir_log::Op;
use weir_replica::{Member, NodeId};
use weir_types::{GroupId, PartitionId};

/// Returns the configured replica groups.
pub(crate) fn decided(tables: &Tables) -> BTreeMap<GroupId, ReplicaGroup> {
    let rows = tables.others_of::<ReplicaGroup>();
    rows.filter_map(|(id, value)| Some((id, ReplicaGroup::decode(value).ok()?)))
        .collect()
}

/// Returns the rows of groups that differ between `before` and `after`. New groups get founders from
/// `members`.
pub(crate) fn changes(
    before: &BTreeMap<GroupId, ReplicaGroup>,
    after: Layout,
    members: &BTreeMap<NodeId, Member>,
) -> Vec<Op> {
    let mut ops = Vec::new();
    for (id, mut group) in after.groups {
        let was = before.get(&id);
        if was == Some(&group) {
            continue;
        }
        group.version = was.map_or(0, |was| was.version) + 1;
        if group.founders.is_empty() {
            let founder = |id: &NodeId| Some((*id, members.get(id).cloned()?));
            group.founders = group.replicas.iter().filter_map(founder).collect();
        }
        ops.push(group.put(&id));
    }
    ops
}

/// Returns true if `partition` belongs to no topic, no reassignment and no channel.
pub(crate) fn is_unused(tables: &Tables, partition: PartitionId) -> bool {
    let is_used = tables.partition_owner.contains_key(&partition) || tables.moves.contains_key(&partition);
    !is_used && !tables.is_channel(partition)
}

/// Partitions of each group.
pub(crate) fn carried(tables: &Tables) -> BTreeMap<GroupId, usize> {
    let mut partitions = BTreeMap::new();
    for partition in tables.partition_owner.keys().chain(tables.moves.keys()) {
        *partitions.entry(partition.group()).or_default() += 1;
    }
    partitions
}

/// Returns the nodes that are being drained.
pub(crate) fn leaving(tables: &Tables) -> impl Iterator<Item = NodeId> {
    tables.others_of::<Leaving>().map(|(node, _)| node)
}

/// Returns the current layout, with the nodes that may have replicas.
pub(crate) fn layout(tables: &Tables, members: &BTreeMap<NodeId, Member>) -> Layout {
    let gone: BTreeSet<NodeId> = leaving(tables).collect();
    let full = members.iter().filter(|(id, m)| !m.witness && !gone.contains(id));
    Layout {
        nodes: full.map(|(id, m)| (*id, m.rack.clone())).collect(),
        groups: decided(tables),
        partitions: carried(tables),
    }
}

pub(crate) fn describe_move(change: &ReplicaMove) -> String {
    let ReplicaMove { group, from, to } = change;
    match to {
        Some(to) => format!("group {group}: from node {from} to node {to}"),
        None => format!("group {group}: no more on node {from}"),
    }
}
