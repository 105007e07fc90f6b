//! DeleteTopics (20). Memory: negligible.

use super::deadline::Deadline;
use super::{Api, consumer_offsets};
use crate::error::Code;
use crate::node::Session;
use crate::wire::{Uuid, messages};
use std::ops::RangeInclusive;

pub(crate) struct Served;

messages! {
    DeleteTopicsRequest {
        topics: Vec<DeleteTopic> [6..],
        topic_names: Vec<String> [0..=5],
        timeout_ms: i32 [0..],
    }
    DeleteTopic {
        name: Option<String> [6..],
        topic_id: Uuid [6..],
    }
    DeleteTopicsResponse {
        throttle_time_ms: i32 [1..],
        topics: Vec<DeletedTopic> [0..],
    }
    DeletedTopic {
        name: Option<String> [0..],
        topic_id: Uuid [6..],
        error: Code [0..],
        error_message: Option<String> [5..],
    }
}

impl Api for Served {
    const KEY: i16 = 20;
    const VERSIONS: RangeInclusive<i16> = 0..=6;
    const FLEXIBLE: i16 = 4;
    type Request = DeleteTopicsRequest;
    type Response = DeleteTopicsResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        let mut response = DeleteTopicsResponse::default();
        let deadline = Deadline::after(request.timeout_ms);
        let names = request.topic_names.into_iter().map(|name| DeleteTopic {
            name: Some(name),
            topic_id: Uuid::default(),
        });
        for topic in request.topics.into_iter().chain(names) {
            let mut deleted = DeletedTopic {
                topic_id: topic.topic_id,
                ..DeletedTopic::default()
            };
            if topic.name.is_some() && topic.topic_id != Uuid::default() {
                deleted.error = Code::InvalidRequest;
                deleted.error_message = Some("set either the name or the id of a topic".to_owned());
                deleted.name = topic.name;
                response.topics.push(deleted);
                continue;
            }
            let (name, first) = match topic.name {
                None => {
                    let found = session.topic_by_id(topic.topic_id);
                    let first = found.as_ref().and_then(|topic| topic.partition(0));
                    let first = first.map(|id| session.node.broker.identity(id));
                    (found.map(|topic| topic.name.to_string()), first)
                }
                name => (name, None),
            };
            match &name {
                None => deleted.error = Code::UnknownTopicId,
                Some(name) if consumer_offsets::is(session, name) => {
                    deleted.error = Code::PolicyViolation;
                    deleted.error_message = Some("committed offsets are not stored in a topic".to_owned());
                }
                Some(name) => {
                    let delete = async {
                        let broker = &session.node.broker;
                        let deleted = broker.delete_topic_anywhere(&session.who, name, first).await;
                        deleted.map_err(|e| (Code::from(&e), e.to_string()))
                    };
                    if let Err((error, words)) = deadline.within(delete).await {
                        (deleted.error, deleted.error_message) = (error, Some(words));
                    }
                }
            }
            deleted.name = name;
            response.topics.push(deleted);
        }
        response
    }
}
