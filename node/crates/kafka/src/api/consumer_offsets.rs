//! `__consumer_offsets`: the topic in which Kafka keeps what groups commit. Here rows keep that, and the name is told to those who look for
//! it: as an internal topic with a partition that has nothing.

use super::metadata::{MetadataPartition, MetadataTopic};
use crate::node::Session;
use weir_types::GroupId;

/// Its name.
pub(super) const NAME: &str = "__consumer_offsets";

/// Whether there is a group that would have made it.
pub(super) fn is_there(session: &Session) -> bool {
    session.node.broker.topic(NAME).is_none() && session.node.broker.has_groups()
}

/// As metadata tells of it.
pub(super) fn found(session: &Session) -> MetadataTopic {
    let (leader_id, leader_epoch) = session.leader(GroupId::SITE);
    let replicas = session.replicas(GroupId::SITE);
    MetadataTopic {
        name: Some(NAME.to_owned()),
        is_internal: true,
        partitions: vec![MetadataPartition {
            leader_id,
            leader_epoch,
            replica_nodes: replicas.all,
            isr_nodes: replicas.in_sync,
            offline_replicas: replicas.offline,
            ..MetadataPartition::default()
        }],
        ..MetadataTopic::default()
    }
}
