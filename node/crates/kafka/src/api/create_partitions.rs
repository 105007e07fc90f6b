//! CreatePartitions (37): adds partitions to a topic. Memory: negligible.

use super::Api;
use super::deadline::Deadline;
use crate::error::Code;
use crate::node::{NOT_PLACEABLE, Session};
use crate::wire::messages;
use std::ops::RangeInclusive;

pub(crate) struct Served;

messages! {
    CreatePartitionsRequest {
        topics: Vec<GrowingTopic> [0..],
        timeout_ms: i32 [0..],
        validate_only: bool [0..],
    }
    GrowingTopic {
        name: String [0..],
        count: i32 [0..],
        assignments: Option<Vec<Assignment>> [0..],
    }
    Assignment {
        broker_ids: Vec<i32> [0..],
    }
    CreatePartitionsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<GrownTopic> [0..],
    }
    GrownTopic {
        name: String [0..],
        error: Code [0..],
        error_message: Option<String> [0..],
    }
}

impl Api for Served {
    const KEY: i16 = 37;
    const VERSIONS: RangeInclusive<i16> = 0..=3;
    const FLEXIBLE: i16 = 2;
    type Request = CreatePartitionsRequest;
    type Response = CreatePartitionsResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        let mut response = CreatePartitionsResponse::default();
        let deadline = Deadline::after(request.timeout_ms);
        for topic in request.topics {
            let result = deadline
                .within(grow(session, &topic, request.validate_only))
                .await;
            let (error, error_message) = match result {
                Ok(()) => (Code::None, None),
                Err((code, words)) => (code, Some(words)),
            };
            response.results.push(GrownTopic {
                name: topic.name,
                error,
                error_message,
            });
        }
        response
    }
}

async fn grow(session: &Session, topic: &GrowingTopic, validate_only: bool) -> Result<(), (Code, String)> {
    let broker = &session.node.broker;
    match broker.topic(&topic.name) {
        // Another node may already know the topic.
        None if validate_only || broker.is_serving() => {
            return Err((
                Code::UnknownTopicOrPartition,
                format!("no topic `{}`", topic.name),
            ));
        }
        Some(found) if topic.count <= found.partitions.len() as i32 => {
            let has = found.partitions.len();
            return Err((
                Code::InvalidPartitions,
                format!("the topic has {has} partitions, and the number can only grow"),
            ));
        }
        _ if topic.count <= 0 => {
            return Err((
                Code::InvalidPartitions,
                "a topic needs at least one partition".to_owned(),
            ));
        }
        _ => {}
    }
    if topic
        .assignments
        .iter()
        .flatten()
        .any(|a| !session.can_place(&a.broker_ids))
    {
        return Err((Code::InvalidReplicaAssignment, NOT_PLACEABLE.to_owned()));
    }
    if validate_only {
        let may = broker.may_have(&topic.name, topic.count as u32);
        return may.map_err(|e| (Code::from(&e), e.to_string()));
    }
    let grown = broker
        .alter_topic_anywhere(&session.who, &topic.name, Some(topic.count as u32), &[])
        .await;
    grown.map(drop).map_err(|e| (Code::from(&e), e.to_string()))
}
