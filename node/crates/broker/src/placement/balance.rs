//! Placement of replicas by load and failure domain. Pure: the same answer from the same state.

use crate::state::rows::replica_group::ReplicaGroup;
use std::collections::{BTreeMap, BTreeSet};
use weir_replica::NodeId;
use weir_types::GroupId;
use weir_types::limits::REPLICA_GROUPS_MAX;

/// Replica groups and their load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// Nodes that may have replicas, with their racks; empty for an unknown rack.
    pub(crate) nodes: BTreeMap<NodeId, String>,
    pub(crate) groups: BTreeMap<GroupId, ReplicaGroup>,
    /// Partitions of each group.
    pub(crate) partitions: BTreeMap<GroupId, usize>,
}

/// A replica that is to be elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaMove {
    pub(crate) group: GroupId,
    pub(crate) from: NodeId,
    pub(crate) to: Option<NodeId>,
}

impl Layout {
    pub(crate) fn carried(&self, group: GroupId) -> usize {
        self.partitions.get(&group).copied().unwrap_or(0)
    }

    /// Returns the load of `node`: its partition replicas, at least a replica per group. Led groups count
    /// twice.
    pub(crate) fn load(&self, node: NodeId) -> usize {
        let of = |(id, group): (&GroupId, &ReplicaGroup)| {
            let has = usize::from(group.replicas.contains(&node));
            let leads = usize::from(group.replicas.first() == Some(&node));
            (has + leads) * self.carried(*id).max(1)
        };
        self.groups.iter().map(of).sum()
    }

    /// Returns nodes to add to a group with `replicas`, best first: the fewest shared racks, then the least
    /// load.
    pub(crate) fn candidates(&self, replicas: &[NodeId]) -> Vec<NodeId> {
        let rack = |node: &NodeId| self.nodes.get(node).filter(|rack| !rack.is_empty());
        let shared = |node: &NodeId| {
            let own = rack(node);
            let same = |other: &&NodeId| own.is_some() && rack(other) == own;
            replicas.iter().filter(same).count()
        };
        let mut free: Vec<NodeId> = self.nodes.keys().copied().collect();
        free.retain(|node| !replicas.contains(node));
        free.sort_by_key(|node| (shared(node), self.load(*node), *node));
        free
    }

    /// Returns the group of `replicas` nodes that should carry the next partition. Creates a group, without
    /// founders, where a node leads none yet. `None` when there are too few nodes.
    pub(crate) fn place(&mut self, replicas: usize) -> Option<GroupId> {
        if replicas == 0 || replicas > self.nodes.len() {
            return None;
        }
        let of_size = |g: &&GroupId| self.groups.get(g).is_some_and(|g| g.size == replicas);
        let best = self
            .groups
            .keys()
            .filter(of_size)
            .min_by_key(|g| (self.carried(**g), **g));
        let best = best.copied();
        let leads = |node: &NodeId| {
            let of_size = self.groups.values().filter(|g| g.size == replicas);
            of_size.filter(|g| g.replicas.first() == Some(node)).count()
        };
        let idle = self.candidates(&[]).into_iter().find(|node| leads(node) == 0);
        let free = (1..=u16::try_from(REPLICA_GROUPS_MAX).unwrap_or(u16::MAX))
            .map(GroupId)
            .find(|id| !self.groups.contains_key(id));
        let begins = best.is_none_or(|g| self.carried(g) > 0);
        let group = match (idle, free, best) {
            (Some(leader), Some(id), _) if begins => {
                let mut chosen = vec![leader];
                while chosen.len() < replicas {
                    chosen.push(*self.candidates(&chosen).first()?);
                }
                let group = ReplicaGroup {
                    replicas: chosen,
                    size: replicas,
                    founders: BTreeMap::new(),
                    version: 0,
                };
                self.groups.insert(id, group);
                id
            }
            (_, _, best) => best?,
        };
        *self.partitions.entry(group).or_default() += 1;
        Some(group)
    }

    /// Removes `node` from all groups, with a replacement where possible. Returns the moves, or the group
    /// that would lose its last replica.
    pub(crate) fn vacate(&mut self, node: NodeId) -> Result<Vec<ReplicaMove>, GroupId> {
        self.nodes.remove(&node);
        let has = |(id, group): (&GroupId, &ReplicaGroup)| group.replicas.contains(&node).then_some(*id);
        let affected: Vec<GroupId> = self.groups.iter().filter_map(has).collect();
        let mut moves = Vec::new();
        for id in affected {
            let Some(group) = self.groups.get(&id) else {
                continue;
            };
            let mut others = group.replicas.clone();
            others.retain(|n| *n != node);
            let to = self.candidates(&others).first().copied();
            if others.is_empty() && to.is_none() {
                return Err(id);
            }
            moves.push(self.apply(ReplicaMove {
                group: id,
                from: node,
                to,
            }));
        }
        Ok(moves)
    }

    /// Removes dead nodes from groups with other replicas, and fills groups that have too few.
    pub(crate) fn heal(&mut self) {
        let nodes = &self.nodes;
        for group in self.groups.values_mut() {
            if group.replicas.iter().any(|n| nodes.contains_key(n)) {
                group.replicas.retain(|n| nodes.contains_key(n));
            }
        }
        let few = |g: &ReplicaGroup| g.replicas.len() < g.size;
        let lacking = self.groups.iter().filter(|(_, g)| few(g));
        for id in lacking.map(|(id, _)| *id).collect::<Vec<_>>() {
            while let Some(replicas) = self
                .groups
                .get(&id)
                .filter(|g| few(g))
                .map(|g| g.replicas.clone())
                && let Some(next) = self.candidates(&replicas).first().copied()
                && let Some(group) = self.groups.get_mut(&id)
            {
                group.replicas.push(next);
            }
        }
    }

    /// Puts `new` in the place of `old` in every group.
    pub(crate) fn renumber(&mut self, old: NodeId, new: NodeId) {
        let replicas = self.groups.values_mut().flat_map(|g| &mut g.replicas);
        replicas.filter(|n| **n == old).for_each(|n| *n = new);
    }

    /// Moves replicas from nodes with many to nodes with few, and spreads leadership. Returns the moves.
    pub(crate) fn balance(&mut self) -> Vec<ReplicaMove> {
        let mut moves = Vec::new();
        // Each move makes the difference smaller, so the loop ends. The bound is a safeguard.
        for _ in 0..REPLICA_GROUPS_MAX * self.nodes.len() {
            let Some(next) = self.next_move() else { break };
            moves.push(self.apply(next));
        }
        for id in self.groups.keys().copied().collect::<Vec<_>>() {
            self.choose_leader(id);
        }
        moves
    }

    fn replicas_on(&self, node: NodeId) -> usize {
        self.groups
            .values()
            .filter(|g| g.replicas.contains(&node))
            .count()
    }

    fn next_move(&self) -> Option<ReplicaMove> {
        let most = self.nodes.keys().max_by_key(|n| self.replicas_on(**n)).copied()?;
        let least = self.nodes.keys().min_by_key(|n| self.replicas_on(**n)).copied()?;
        if self.replicas_on(most) <= self.replicas_on(least) + 1 {
            return None;
        }
        let spread = |replicas: &[NodeId]| {
            let racks = replicas
                .iter()
                .filter_map(|n| self.nodes.get(n))
                .filter(|r| !r.is_empty());
            racks.collect::<BTreeSet<_>>().len()
        };
        let may = |group: &&ReplicaGroup| {
            let after: Vec<NodeId> = group
                .replicas
                .iter()
                .map(|n| if *n == most { least } else { *n })
                .collect();
            spread(&after) >= spread(&group.replicas)
        };
        let fits = |(_, group): &(&GroupId, &ReplicaGroup)| {
            group.replicas.contains(&most) && !group.replicas.contains(&least) && may(group)
        };
        let (id, _) = self
            .groups
            .iter()
            .filter(fits)
            .min_by_key(|(id, _)| (self.carried(**id), **id))?;
        Some(ReplicaMove {
            group: *id,
            from: most,
            to: Some(least),
        })
    }

    pub(crate) fn apply(&mut self, change: ReplicaMove) -> ReplicaMove {
        if let Some(group) = self.groups.get_mut(&change.group) {
            match change.to {
                Some(to) => group
                    .replicas
                    .iter_mut()
                    .filter(|n| **n == change.from)
                    .for_each(|n| *n = to),
                None => group.replicas.retain(|n| *n != change.from),
            }
        }
        change
    }

    /// Puts the replica first that leads the least partitions in other groups.
    fn choose_leader(&mut self, id: GroupId) {
        let led_by = |node: NodeId| -> usize {
            let others = self.groups.iter().filter(|(other, _)| **other != id);
            let led = others.filter(|(_, g)| g.replicas.first() == Some(&node));
            led.map(|(other, _)| self.carried(*other).max(1)).sum()
        };
        let Some(group) = self.groups.get(&id) else { return };
        let best = group
            .replicas
            .iter()
            .copied()
            .min_by_key(|n| (led_by(*n), Some(n) != group.replicas.first()));
        let Some(best) = best else { return };
        if let Some(group) = self.groups.get_mut(&id)
            && let Some(at) = group.replicas.iter().position(|n| *n == best)
        {
            group.replicas.swap(0, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout(racks: &[&str]) -> Layout {
        let nodes = racks.iter().zip(1..).map(|(rack, id)| (id, (*rack).to_owned()));
        Layout {
            nodes: nodes.collect(),
            ..Layout::default()
        }
    }

    fn leaders(layout: &Layout) -> BTreeMap<NodeId, usize> {
        let mut led = BTreeMap::new();
        for (id, group) in &layout.groups {
            *led.entry(group.replicas[0]).or_default() += layout.carried(*id);
        }
        led
    }

    #[test]
    fn every_node_leads_its_share() {
        let mut layout = layout(&["", "", "", ""]);
        (0..12).for_each(|_| assert!(layout.place(3).is_some()));
        assert_eq!(layout.groups.len(), 4);
        assert!(leaders(&layout).values().all(|n| *n == 3), "{layout:?}");
        assert!(layout.place(5).is_none() && layout.place(0).is_none());
    }

    #[test]
    fn replicas_are_not_in_one_rack() {
        let mut layout = layout(&["a", "a", "b", "b"]);
        (0..8).for_each(|_| assert!(layout.place(2).is_some()));
        for group in layout.groups.values() {
            let racks: BTreeSet<_> = group.replicas.iter().map(|n| &layout.nodes[n]).collect();
            assert_eq!(racks.len(), 2, "{group:?}");
        }
        let moves = layout.vacate(1).unwrap();
        assert!(!moves.is_empty() && layout.groups.values().all(|g| !g.replicas.contains(&1)));
        assert!(layout.groups.values().all(|g| g.replicas.len() == 2));
    }

    #[test]
    fn a_group_is_not_left_without_anybody() {
        let mut one = layout(&[""]);
        let group = one.place(1).unwrap();
        assert_eq!(one.vacate(1), Err(group));
        let mut two = layout(&["", ""]);
        two.place(2).unwrap();
        assert_eq!(two.vacate(2).unwrap()[0].to, None);
        assert_eq!(two.groups.values().next().unwrap().replicas, [1]);
    }

    #[test]
    fn what_was_lost_is_made_up_for() {
        let mut layout = layout(&["", "", ""]);
        (0..3).for_each(|_| assert!(layout.place(3).is_some()));
        layout.nodes.remove(&2);
        layout.heal();
        assert!(
            layout
                .groups
                .values()
                .all(|g| g.replicas.len() == 2 && !g.replicas.contains(&2))
        );
        let before = layout.groups.clone();
        layout.heal();
        assert_eq!(before, layout.groups);
        layout.nodes.insert(4, String::new());
        layout.heal();
        assert!(
            layout
                .groups
                .values()
                .all(|g| g.replicas.len() == 3 && g.replicas.contains(&4))
        );
        // A group without any live replica stays as it is: its nodes may return.
        layout.nodes.clear();
        layout.heal();
        assert!(layout.groups.values().all(|g| g.replicas.len() == 3));
    }

    #[test]
    fn a_new_node_gets_its_share() {
        let mut layout = layout(&["", "", ""]);
        (0..9).for_each(|_| assert!(layout.place(3).is_some()));
        layout.nodes.insert(4, String::new());
        let moves = layout.balance();
        assert!(!moves.is_empty() && moves.iter().all(|m| m.to == Some(4)));
        assert_eq!(layout.replicas_on(4), 2);
        assert!(layout.balance().is_empty());
    }

    proptest! {
        #[test]
        fn a_group_has_as_many_as_it_should_and_none_twice(
            racks in proptest::collection::vec("[ab]?", 1..8),
            asked in proptest::collection::vec(1usize..6, 1..30),
            gone in 1u64..8,
        ) {
            let racks: Vec<&str> = racks.iter().map(String::as_str).collect();
            let mut layout = layout(&racks);
            for replicas in asked {
                let placed = layout.place(replicas);
                prop_assert_eq!(placed.is_some(), replicas <= layout.nodes.len());
                if let Some(id) = placed {
                    prop_assert_eq!(layout.groups[&id].replicas.len(), replicas);
                }
            }
            layout.balance();
            let whole = layout.vacate(gone).is_ok();
            for group in layout.groups.values() {
                let set: BTreeSet<_> = group.replicas.iter().collect();
                prop_assert_eq!(set.len(), group.replicas.len());
                prop_assert!(!group.replicas.is_empty());
                prop_assert!(!whole || !group.replicas.contains(&gone));
            }
        }
    }
}
