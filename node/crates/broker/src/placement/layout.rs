//! Plans from rows, and rows from plans.

use crate::placement::balance::{Layout, Move};
use crate::state::rows::replica_group::{ReplicaGroup, put_group};
use crate::state::rows::site::{LEAVING, leaving_key};
use crate::state::tables::Tables;
use std::collections::{BTreeMap, BTreeSet};
use weir_log::{Op, StateKey, StateKind};
use weir_replica::{Member, NodeId};
use weir_types::{GroupId, PartitionId};

/// The groups that rows tell of.
pub(crate) fn decided(tables: &Tables) -> BTreeMap<GroupId, ReplicaGroup> {
    let kind = StateKind::ReplicaGroup as u8;
    let rows = tables.others.range((kind, Vec::new())..(kind + 1, Vec::new()));
    let read = |((_, key), value): (&(u8, Vec<u8>), &Vec<u8>)| {
        let id = GroupId(u16::from_be_bytes(*key.first_chunk()?));
        Some((id, postcard::from_bytes(value).ok()?))
    };
    rows.filter_map(read).collect()
}

/// Rows for groups that are not in `before` as they are in `after`. New ones begin with those of `members` that are to
/// have them.
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
        ops.push(put_group(StateKind::ReplicaGroup, id, &group));
    }
    ops
}

/// Whether `partition` belongs to no topic, is not on its way to one, and holds nothing that waits for one.
pub(crate) fn is_nobodys(tables: &Tables, partition: PartitionId) -> bool {
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

/// Rows of nodes that are on their way out of the site.
pub(crate) fn leaving(tables: &Tables) -> impl Iterator<Item = (NodeId, StateKey)> + '_ {
    let rows = tables.others.range((StateKind::Site as u8, LEAVING.to_vec())..);
    let keys = rows.map_while(|((kind, key), _)| (*kind == StateKind::Site as u8).then_some(key));
    let nodes = keys.map_while(|key| key.strip_prefix(LEAVING)?.first_chunk().copied());
    nodes
        .map(u64::from_be_bytes)
        .map(|node| (node, leaving_key(node)))
}

/// What there is, and the nodes that may have replicas.
pub(crate) fn layout(tables: &Tables, members: &BTreeMap<NodeId, Member>) -> Layout {
    let gone: BTreeSet<NodeId> = leaving(tables).map(|(node, _)| node).collect();
    let full = members.iter().filter(|(id, m)| !m.witness && !gone.contains(id));
    Layout {
        nodes: full.map(|(id, m)| (*id, m.rack.clone())).collect(),
        groups: decided(tables),
        partitions: carried(tables),
    }
}

pub(crate) fn say(change: &Move) -> String {
    let Move { group, from, to } = change;
    match to {
        Some(to) => format!("group {group}: from node {from} to node {to}"),
        None => format!("group {group}: no more on node {from}"),
    }
}
