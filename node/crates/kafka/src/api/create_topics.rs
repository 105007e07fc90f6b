//! CreateTopics (19). Memory: the request.

use super::deadline::Deadline;
use super::{Api, consumer_offsets};
use crate::configs;
use crate::error::Code;
use crate::node::{NOT_PLACEABLE, Session};
use crate::wire::{Uuid, messages};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use weir_broker::{Topic, TopicConfig};
use weir_types::GroupId;

pub(crate) struct Served;

messages! {
    CreateTopicsRequest {
        topics: Vec<CreatableTopic> [0..],
        timeout_ms: i32 [0..],
        validate_only: bool [1..],
    }
    CreatableTopic {
        name: String [0..],
        num_partitions: i32 [0..],
        replication_factor: i16 [0..],
        assignments: Vec<Assignment> [0..],
        configs: Vec<CreatableConfig> [0..],
    }
    Assignment {
        partition_index: i32 [0..],
        broker_ids: Vec<i32> [0..],
    }
    CreatableConfig {
        name: String [0..],
        value: Option<String> [0..],
    }
    CreateTopicsResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<CreatedTopic> [0..],
    }
    CreatedTopic {
        name: String [0..],
        topic_id: Uuid [7..],
        error: Code [0..],
        error_message: Option<String> [1..],
        num_partitions: i32 [5..] = -1,
        replication_factor: i16 [5..] = -1,
        configs: Option<Vec<CreatedConfig>> [5..],
    }
    CreatedConfig {
        name: Cow<'static, str> [5..],
        value: Option<String> [5..],
        read_only: bool [5..],
        config_source: i8 [5..],
        is_sensitive: bool [5..],
    }
}

impl Api for Served {
    const KEY: i16 = 19;
    const VERSIONS: RangeInclusive<i16> = 0..=7;
    const FLEXIBLE: i16 = 5;
    type Request = CreateTopicsRequest;
    type Response = CreateTopicsResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        let mut response = CreateTopicsResponse::default();
        let deadline = Deadline::after(request.timeout_ms);
        let mut named: BTreeMap<String, u32> = BTreeMap::new();
        request
            .topics
            .iter()
            .for_each(|t| *named.entry(t.name.clone()).or_default() += 1);
        for topic in request.topics {
            // A request with many topics takes long: let other tasks run meanwhile.
            tokio::task::yield_now().await;
            let name = topic.name.clone();
            let broker = &session.node.broker;
            // A follower's view may be stale: the leader decides.
            let is_there = (broker.is_serving() && broker.topic(&name).is_some())
                || (name == consumer_offsets::NAME && consumer_offsets::is_there(session));
            let result = if named.get(&name).is_some_and(|n| *n > 1) {
                Err((
                    Code::InvalidRequest,
                    "the request names the topic twice".to_owned(),
                ))
            } else if is_there {
                // Checked first: a client that finds the topic does not care about its settings.
                Err((Code::TopicAlreadyExists, format!("topic `{name}` exists already")))
            } else {
                deadline
                    .within(create(session, topic, request.validate_only))
                    .await
            };
            response.topics.push(match result {
                Ok(made) => CreatedTopic {
                    name,
                    topic_id: made.id,
                    num_partitions: made.partitions as i32,
                    replication_factor: made.replicas as i16,
                    configs: Some(created_configs(&made.config)),
                    ..CreatedTopic::default()
                },
                Err((error, words)) => {
                    if !request.validate_only && is_for_good(error) {
                        broker.note_refused_anywhere(&session.who, &name).await;
                    }
                    CreatedTopic {
                        name,
                        error,
                        error_message: Some(words),
                        configs: Some(Vec::new()),
                        ..CreatedTopic::default()
                    }
                }
            });
        }
        response
    }
}

/// Returns true if the error is final: a retry of the request cannot succeed, and the topic does not exist.
fn is_for_good(error: Code) -> bool {
    matches!(
        error,
        Code::InvalidConfig
            | Code::InvalidPartitions
            | Code::InvalidReplicationFactor
            | Code::InvalidReplicaAssignment
            | Code::InvalidRequest
            | Code::PolicyViolation
    )
}

/// A topic as created, or as it would be.
struct Made {
    /// Zero if the topic was not created.
    id: Uuid,
    partitions: u32,
    replicas: usize,
    config: TopicConfig,
}

async fn create(
    session: &Session,
    topic: CreatableTopic,
    validate_only: bool,
) -> Result<Made, (Code, String)> {
    let refuse = |code: Code, words: &str| Err((code, words.to_owned()));
    let broker = &session.node.broker;
    let partitions = match (topic.assignments.len(), topic.num_partitions) {
        (0, -1) => session.node.settings.default_partitions,
        (0, n) if n > 0 => n as u32,
        (0, _) => return refuse(Code::InvalidPartitions, "a topic needs at least one partition"),
        (n, -1) => n as u32,
        _ => return refuse(Code::InvalidRequest, "set either partitions or assignments"),
    };
    if topic
        .assignments
        .iter()
        .any(|a| !session.can_place(&a.broker_ids))
    {
        return refuse(Code::InvalidReplicaAssignment, NOT_PLACEABLE);
    }
    if !topic.assignments.is_empty() && topic.replication_factor != -1 {
        return refuse(
            Code::InvalidRequest,
            "set either a replication factor or assignments",
        );
    }
    let replicas = session.replicas(GroupId::SITE).all;
    let factor = usize::try_from(topic.replication_factor);
    if topic.assignments.is_empty()
        && topic.replication_factor != -1
        && !factor.is_ok_and(|n| (1..=replicas.len()).contains(&n))
    {
        let words = format!(
            "the site has {} nodes that store records: the replication factor must be 1 to {0}, or -1 for all of them",
            replicas.len()
        );
        return refuse(Code::InvalidReplicationFactor, &words);
    }
    let mut config = TopicConfig::default();
    let mut settings = Vec::with_capacity(topic.configs.len());
    for set in topic.configs {
        let value = set.value.unwrap_or_default();
        config
            .set(&set.name, &value)
            .map_err(|e| (Code::InvalidConfig, e.to_string()))?;
        settings.push((set.name, value));
    }
    // A topic without the setting is on all nodes.
    let fewer = factor
        .ok()
        .filter(|n| topic.assignments.is_empty() && *n < replicas.len());
    let fewer = fewer.and_then(|n| u32::try_from(n).ok());
    if validate_only {
        topic
            .name
            .parse::<weir_types::TopicName>()
            .map_err(|e| (Code::InvalidTopic, e.to_string()))?;
        broker
            .has_copies(&config, fewer)
            .map_err(|e| (Code::from(&e), e.to_string()))?;
        if broker.topic(&topic.name).is_some() {
            return refuse(Code::TopicAlreadyExists, "the topic exists already");
        }
        return Ok(Made {
            id: Uuid::default(),
            partitions,
            replicas: fewer.map_or(replicas.len(), |n| n as usize),
            config,
        });
    }
    let made = broker
        .create_topic_anywhere(&session.who, &topic.name, partitions, fewer, &settings)
        .await;
    let made: std::sync::Arc<Topic> = made.map_err(|e| (Code::from(&e), e.to_string()))?;
    let group = made.partition(0).map_or(GroupId::SITE, |id| id.group());
    let replicas = session.replicas(group).all;
    Ok(Made {
        id: session.topic_id(&made),
        partitions: made.partitions.len() as u32,
        replicas: fewer.map_or(replicas.len(), |n| n as usize),
        config: made.config.clone(),
    })
}

fn created_configs(config: &TopicConfig) -> Vec<CreatedConfig> {
    let described = configs::of_topic(config).into_iter().map(|c| CreatedConfig {
        name: c.name.into(),
        value: Some(c.value),
        read_only: c.read_only,
        config_source: c.source as i8,
        is_sensitive: false,
    });
    described.collect()
}
