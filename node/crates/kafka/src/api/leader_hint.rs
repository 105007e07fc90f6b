//! The leader of a partition and its address, in the answer of a node that is not the leader (KIP-951). The
//! client saves a metadata request.

use crate::node::Session;
use crate::wire::messages;
use std::collections::BTreeSet;

messages! {
    LeaderHint {
        leader_id: i32 [0..] = -1,
        leader_epoch: i32 [0..] = -1,
    }
    NodeEndpoint {
        node_id: i32 [0..],
        host: String [0..],
        port: i32 [0..],
        rack: Option<String> [0..],
    }
}

impl LeaderHint {
    /// Returns the hint for a partition if this node knows another node as leader.
    pub(super) fn of(session: &Session, topic: &str, partition: i32) -> Self {
        match session.leader_of(topic, partition) {
            (leader_id, leader_epoch) if leader_id >= 0 && leader_id != session.node_id() => Self {
                leader_id,
                leader_epoch,
            },
            _ => Self::default(),
        }
    }
}

/// Returns the addresses of the nodes named in `hints`.
pub(super) fn endpoints<'a>(
    session: &Session,
    hints: impl Iterator<Item = &'a LeaderHint>,
) -> Vec<NodeEndpoint> {
    let named: BTreeSet<i32> = hints.map(|hint| hint.leader_id).filter(|id| *id >= 0).collect();
    if named.is_empty() {
        return Vec::new();
    }
    let found = session.brokers().into_iter().filter(|b| named.contains(&b.id));
    let endpoint = |b: crate::node::Address| NodeEndpoint {
        node_id: b.id,
        host: b.host,
        port: b.port,
        rack: b.rack,
    };
    found.map(endpoint).collect()
}
