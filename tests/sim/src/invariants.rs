//! Raft's invariants (Ongaro and Ousterhout: In Search of an Understandable Consensus Algorithm, 2014, figure
//! 3), and Weir's own.

use crate::node::{Node, View};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use weir_broker::NodeId;
use weir_log::{EntryHeader, StateKey, StateKind};
use weir_types::GroupId;

/// Term, node, and whether that node was elected: as the replica stores the vote.
type Vote = (u64, NodeId, bool);

/// Greatest age of a node's view, several times over.
const TOLD_WITHIN: Duration = Duration::from_millis(50);

/// Of all replica groups.
#[derive(Default)]
pub(crate) struct Invariants(BTreeMap<u16, OfGroup>);

impl Invariants {
    /// Checks `node`, now as in `view` and formerly as in `before`; returns the violations.
    pub(crate) fn check(&mut self, node: &Node, view: &View, before: &View) -> Vec<String> {
        let mut wrong = self.of(0).check(node, view, before);
        for (id, view) in &view.groups {
            let absent = View::default();
            let before = before.groups.get(id).filter(|_| before.up).unwrap_or(&absent);
            let found = self.of(*id).check(node, view, before);
            wrong.extend(found.into_iter().map(|what| format!("group {id}: {what}")));
        }
        wrong
    }

    /// Checks that at most a single node serves a group at a time: the lease of an isolated leader ends
    /// before another is elected. `views` are those of all nodes at `now`, each with its number.
    pub(crate) fn serves_alone(&mut self, now: Duration, views: &[(NodeId, &View)]) -> Vec<String> {
        let others = views.iter().flat_map(|(_, view)| view.groups.keys().copied());
        let groups: BTreeSet<u16> = others.chain([GroupId::SITE.0]).collect();
        let mut wrong = Vec::new();
        for id in groups {
            let serves = |view: &View| match id {
                0 => view.serving,
                _ => view.groups.get(&id).is_some_and(|group| group.serving),
            };
            let serving = views.iter().filter(|(_, view)| view.up && serves(view));
            let serving: Vec<NodeId> = serving.map(|(node, _)| *node).collect();
            let of = self.of(id);
            if serving.len() < 2 {
                of.shared = None;
            } else if now - *of.shared.get_or_insert(now) > TOLD_WITHIN {
                wrong.push(format!("group {id}: nodes {serving:?} serve at the same time"));
            }
        }
        wrong
    }

    fn of(&mut self, id: u16) -> &mut OfGroup {
        self.0.entry(id).or_insert_with(|| OfGroup {
            group: GroupId(id),
            ..OfGroup::default()
        })
    }
}

struct OfGroup {
    group: GroupId,
    /// Leader of each term.
    leaders: BTreeMap<u64, NodeId>,
    /// Entry of each index, as first applied.
    committed: BTreeMap<u64, EntryHeader>,
    /// Up to where each node's applied entries were compared.
    compared: BTreeMap<NodeId, u64>,
    /// Stored vote of each node.
    votes: BTreeMap<NodeId, Vote>,
    /// Begin of the time in which several nodes claim to serve.
    shared: Option<Duration>,
}

impl Default for OfGroup {
    fn default() -> Self {
        Self {
            group: GroupId::SITE,
            leaders: BTreeMap::new(),
            committed: BTreeMap::new(),
            compared: BTreeMap::new(),
            votes: BTreeMap::new(),
            shared: None,
        }
    }
}

impl OfGroup {
    fn check(&mut self, node: &Node, view: &View, before: &View) -> Vec<String> {
        let mut wrong = Vec::new();
        if !view.up {
            return wrong;
        }
        let id = node.id();
        if view.leader == Some(id) {
            let other = *self.leaders.entry(view.term).or_insert(id);
            if other != id {
                wrong.push(format!(
                    "nodes {other} and {id} lead in the same term {}",
                    view.term
                ));
            }
        }
        if node.witness && view.leader == Some(id) {
            wrong.push(format!("node {id} leads, and is a witness: it has no records"));
        }
        if before.up && view.term < before.term {
            wrong.push(format!(
                "the term of node {id} goes back from {} to {}",
                before.term, view.term
            ));
        }
        if before.up && view.applied < before.applied {
            wrong.push(format!(
                "what node {id} has applied goes back from {} to {}",
                before.applied, view.applied
            ));
        }
        if !(view.purged <= view.applied && view.applied <= view.last) {
            wrong.push(format!(
                "node {id} has purged, applied and last in disorder: {view:?}"
            ));
        }
        wrong.extend(self.votes(node));
        let voted = self.votes.get(&id).map_or(0, |vote| vote.0);
        if view.leader == Some(id) && voted < view.term {
            wrong.push(format!(
                "node {id} leads in term {}, and the last vote on its disk is of term {voted}",
                view.term
            ));
        }
        wrong.extend(self.entries(node, view));
        wrong
    }

    /// Checks that a node votes once per term, and stores its vote before any other node learns of the vote.
    /// A candidate that learns of an elected leader stores that leader instead.
    fn votes(&mut self, node: &Node) -> Option<String> {
        let key = StateKey::new(StateKind::Vote, &self.group.0.to_be_bytes());
        let row = node.disk.durable_state(&key)?;
        let now: Vote = postcard::from_bytes(&row).ok()?;
        let was = self.votes.insert(node.id(), now)?;
        let again = now.0 == was.0 && now.1 != was.1 && (was.2 || !now.2);
        if now.0 < was.0 || again {
            return Some(format!(
                "the vote of node {} was {was:?} and is now {now:?}",
                node.id()
            ));
        }
        None
    }

    /// Checks that an applied entry is the same on every node.
    fn entries(&mut self, node: &Node, view: &View) -> Option<String> {
        let compared = self.compared.entry(node.id()).or_default();
        let from = (*compared).min(view.applied) + 1;
        *compared = view.applied;
        for index in from..=view.applied {
            // Purged, or overtaken by a snapshot.
            let Some(header) = node.disk.header(self.group, index) else {
                continue;
            };
            let known = self.committed.entry(index).or_insert_with(|| header.clone());
            if *known != header {
                return Some(format!(
                    "entry {index} is {header:?} on node {} and was {known:?} on another",
                    node.id(),
                ));
            }
        }
        None
    }
}
