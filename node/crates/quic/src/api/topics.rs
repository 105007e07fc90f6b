//! Topics: list, create, alter, delete.

use crate::answer::Answer;
use crate::error::Refused;
use std::collections::BTreeMap;
use weir_admin::Services;
use weir_broker::{Principal, Topic};
use weir_peer::protocol::{PartitionInfo, Reply, TopicInfo};

/// Returns all topics.
pub(crate) fn list(node: &Services) -> Answer {
    let topics = node.broker.topics();
    Reply::Topics(topics.iter().map(|topic| topic_info(node, topic)).collect()).into()
}

/// Creates a topic, its partitions on so many `replicas`, or on all nodes.
pub(crate) async fn create(
    node: &Services,
    who: &Principal,
    name: &str,
    partitions: u32,
    replicas: Option<u32>,
    settings: &[(String, String)],
) -> Result<Answer, Refused> {
    let created = node
        .broker
        .create_topic_on(who, name, partitions, replicas, settings);
    let topic = created.await?;
    Ok(Reply::Topic(topic_info(node, &topic)).into())
}

/// Changes a topic: its placement (0 replicas stand for all nodes), its partitions and its settings.
pub(crate) async fn alter(
    node: &Services,
    who: &Principal,
    name: &str,
    partitions: Option<u32>,
    replicas: Option<u32>,
    settings: &[(String, String)],
) -> Result<Answer, Refused> {
    if let Some(replicas) = replicas {
        let replicas = (replicas > 0).then_some(replicas);
        node.broker.move_topic(who, name, replicas).await?;
    }
    let topic = node.broker.alter_topic(who, name, partitions, settings).await?;
    Ok(Reply::Topic(topic_info(node, &topic)).into())
}

/// Deletes a topic.
pub(crate) async fn delete(node: &Services, who: &Principal, name: &str) -> Result<Answer, Refused> {
    node.broker.delete_topic(who, name).await?;
    Ok(Reply::Done.into())
}

/// Converts a topic for the wire.
fn topic_info(node: &Services, topic: &Topic) -> TopicInfo {
    let mut groups = BTreeMap::new();
    let partitions = topic.partitions.iter().map(|id| {
        let group = id.group();
        let (leader, replicas, is_here) = groups.entry(group).or_insert_with(|| {
            let leader = node.broker.leader_of(group).map(|(id, ..)| id);
            let (replicas, _) = node.broker.replicas_of(group);
            (leader, replicas, node.broker.group_of(group).is_some())
        });
        let marks = node.broker.log().marks(*id).filter(|_| *is_here);
        PartitionInfo {
            group: group.0,
            leader: *leader,
            replicas: replicas.clone(),
            is_here: *is_here,
            log_start: marks.as_ref().map(|m| m.log_start()).unwrap_or_default(),
            committed_end: marks.as_ref().map(|m| m.committed_end()).unwrap_or_default(),
            bytes: marks.as_ref().map_or(0, |m| m.bytes()),
            lost: marks.as_ref().map_or(0, |m| m.lost()),
            gaps: marks.map_or_else(Vec::new, |m| m.unread()),
        }
    });
    let pipelines = node.pipelines.pipelines();
    TopicInfo {
        name: topic.name.to_string(),
        partitions: partitions.collect(),
        config: topic.config.shown(),
        pipeline: pipelines
            .into_iter()
            .find(|p| p.is_inline_of(topic.name.as_str()))
            .map(|p| p.name),
    }
}
