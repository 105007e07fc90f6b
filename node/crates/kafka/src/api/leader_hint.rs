//! Who leads a partition and where he is found, in the answer to whoever asked another (KIP-951): a client need not ask for metadata first.

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
    /// Of a partition, if this node knows another that leads it.
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

/// Where those are that `hints` name.
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
