//! Metadata (3): brokers, topics and partition leaders; creates topics if the node is configured to. Memory:
//! a few hundred bytes per partition.

use super::operations::{OF_CLUSTER, OF_TOPIC, if_asked};
use super::{Api, consumer_offsets, first_of_each};
use crate::error::Code;
use crate::node::Session;
use crate::wire::{Uuid, messages};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use weir_broker::{AdminError, Refusal, Topic};
use weir_types::{GroupId, PartitionId};

pub(crate) struct Served;

messages! {
    MetadataRequest {
        topics: Option<Vec<MetadataRequestTopic>> [0..],
        allow_auto_topic_creation: bool [4..] = true,
        include_cluster_authorized_operations: bool [8..=10],
        include_topic_authorized_operations: bool [8..],
    }
    MetadataRequestTopic {
        topic_id: Uuid [10..],
        name: Option<String> [0..],
    }
    MetadataResponse {
        throttle_time_ms: i32 [3..],
        brokers: Vec<MetadataBroker> [0..],
        cluster_id: Option<String> [2..],
        controller_id: i32 [1..],
        topics: Vec<MetadataTopic> [0..],
        cluster_authorized_operations: i32 [8..=10] = i32::MIN,
        error: Code [13..],
    }
    MetadataBroker {
        node_id: i32 [0..],
        host: String [0..],
        port: i32 [0..],
        rack: Option<String> [1..],
    }
    MetadataTopic {
        error: Code [0..],
        name: Option<String> [0..],
        topic_id: Uuid [10..],
        is_internal: bool [1..],
        partitions: Vec<MetadataPartition> [0..],
        topic_authorized_operations: i32 [8..] = i32::MIN,
    }
    MetadataPartition {
        error: Code [0..],
        partition: i32 [0..],
        leader_id: i32 [0..],
        leader_epoch: i32 [7..],
        replica_nodes: Vec<i32> [0..],
        isr_nodes: Vec<i32> [0..],
        offline_replicas: Vec<i32> [5..],
    }
}

impl Api for Served {
    const KEY: i16 = 3;
    const VERSIONS: RangeInclusive<i16> = 0..=13;
    const FLEXIBLE: i16 = 9;
    type Request = MetadataRequest;
    type Response = MetadataResponse;

    async fn handle(session: &Session, version: i16, request: Self::Request) -> Self::Response {
        let node = &session.node;
        // Null asks for all topics; in version 0, which has no null, an empty list does.
        let asked = request.topics.filter(|topics| version > 0 || !topics.is_empty());
        let mut topics: Vec<MetadataTopic> = match asked {
            None => {
                let topics = node.broker.topics();
                let own = consumer_offsets::is_there(session).then(|| of_groups(session));
                let found = topics.iter().map(|topic| found(session, topic));
                found.chain(own).collect()
            }
            Some(asked) => {
                let mut topics = Vec::with_capacity(asked.len());
                for topic in first_of_each(asked, |t| (t.name.clone(), t.topic_id.0)) {
                    topics.push(one(session, topic, request.allow_auto_topic_creation).await);
                }
                topics
            }
        };
        for topic in &mut topics {
            topic.topic_authorized_operations =
                if_asked(request.include_topic_authorized_operations, OF_TOPIC);
        }
        let brokers = session.brokers().into_iter().map(|b| MetadataBroker {
            node_id: b.id,
            host: b.host,
            port: b.port,
            rack: b.rack,
        });
        MetadataResponse {
            brokers: brokers.collect(),
            cluster_id: Some(node.settings.cluster_id.clone()),
            controller_id: session.controller_id(),
            topics,
            cluster_authorized_operations: if_asked(
                request.include_cluster_authorized_operations,
                OF_CLUSTER,
            ),
            ..MetadataResponse::default()
        }
    }
}

async fn one(session: &Session, asked: MetadataRequestTopic, create: bool) -> MetadataTopic {
    let node = &session.node;
    let Some(name) = asked.name else {
        return match session.topic_by_id(asked.topic_id) {
            Some(topic) => found(session, &topic),
            None => MetadataTopic {
                error: Code::UnknownTopicId,
                topic_id: asked.topic_id,
                ..MetadataTopic::default()
            },
        };
    };
    if let Some(topic) = node.broker.topic(&name) {
        return found(session, &topic);
    }
    if name == consumer_offsets::NAME && consumer_offsets::is_there(session) {
        return of_groups(session);
    }
    let mut error = Code::UnknownTopicOrPartition;
    if create && node.settings.auto_create {
        let partitions = node.settings.default_partitions;
        match node
            .broker
            .create_topic_unasked(&session.who, &name, partitions)
            .await
        {
            Ok(topic) => return found(session, &topic),
            Err(AdminError::Exists(_)) => {
                if let Some(topic) = node.broker.topic(&name) {
                    return found(session, &topic);
                }
            }
            // The next leader creates the topic when the client retries.
            Err(e) if e.kind() == weir_types::ErrorKind::Retry => error = Code::LeaderNotAvailable,
            Err(
                AdminError::There {
                    refusal: Refusal::NoTopic,
                    ..
                }
                | AdminError::NoTopic(_),
            ) => {}
            Err(e) => error = Code::from(&e),
        }
    } else if name.parse::<weir_types::TopicName>().is_err() {
        error = Code::InvalidTopic;
    }
    MetadataTopic {
        error,
        name: Some(name),
        ..MetadataTopic::default()
    }
}

fn found(session: &Session, topic: &Topic) -> MetadataTopic {
    let mut groups = BTreeMap::new();
    let mut partition = |(partition, id): (i32, &PartitionId)| {
        let group = id.group();
        let of_group = || (session.leader(group), session.replicas(group));
        let ((leader_id, leader_epoch), replicas) = groups.entry(group).or_insert_with(of_group);
        MetadataPartition {
            error: match leader_id {
                -1 => Code::LeaderNotAvailable,
                _ => Code::None,
            },
            partition,
            leader_id: *leader_id,
            leader_epoch: match *leader_epoch {
                -1 => -1,
                epoch => epoch.saturating_add(session.node.broker.epoch_base(*id)),
            },
            replica_nodes: replicas.all.clone(),
            isr_nodes: replicas.in_sync.clone(),
            offline_replicas: replicas.offline.clone(),
        }
    };
    MetadataTopic {
        name: Some(topic.name.to_string()),
        topic_id: session.topic_id(topic),
        partitions: (0..).zip(&topic.partitions).map(&mut partition).collect(),
        ..MetadataTopic::default()
    }
}

/// Returns the metadata of the offsets topic.
fn of_groups(session: &Session) -> MetadataTopic {
    let (leader_id, leader_epoch) = session.leader(GroupId::SITE);
    let replicas = session.replicas(GroupId::SITE);
    MetadataTopic {
        name: Some(consumer_offsets::NAME.to_owned()),
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
