//! `__consumer_offsets`: the topic in which Kafka keeps what groups commit. Here rows keep that, and the name is told to those who look for
//! it: as an internal topic with a partition that has nothing.

use super::metadata::{MetadataPartition, MetadataTopic};
use crate::error::Code;
use crate::node::Session;
use weir_broker::{Cleanup, TopicConfig};
use weir_types::GroupId;

/// Its name.
pub(super) const NAME: &str = "__consumer_offsets";

/// Whether there is a group that would have made it.
pub(super) fn is_there(session: &Session) -> bool {
    session.node.broker.topic(NAME).is_none() && session.node.broker.has_groups()
}

/// Whether `topic` is this one.
pub(super) fn is(session: &Session, topic: &str) -> bool {
    topic == NAME && is_there(session)
}

/// As metadata tells of it.
pub(super) fn found(session: &Session) -> MetadataTopic {
    let (leader_id, leader_epoch) = session.leader(GroupId::SITE);
    let replicas = session.replicas(GroupId::SITE);
    MetadataTopic {
        name: Some(NAME.to_owned()),
        is_internal: true,
        partitions: vec![MetadataPartition {
            error: match leader_id {
                -1 => Code::LeaderNotAvailable,
                _ => Code::None,
            },
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

/// Its settings, as Kafka makes it.
pub(super) fn config() -> TopicConfig {
    let mut config = TopicConfig::default();
    config.cleanup = Cleanup::Compact;
    config
}
