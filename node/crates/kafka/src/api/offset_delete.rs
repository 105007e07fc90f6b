//! OffsetDelete (47). Memory: negligible.

use super::Api;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;
use weir_broker::GroupError;

pub(crate) struct Served;

messages! {
    OffsetDeleteRequest {
        group_id: String [0..],
        topics: Vec<DeleteTopic> [0..],
    }
    DeleteTopic {
        name: String [0..],
        partitions: Vec<DeletePartition> [0..],
    }
    DeletePartition {
        partition: i32 [0..],
    }
    OffsetDeleteResponse {
        error: Code [0..],
        throttle_time_ms: i32 [0..],
        topics: Vec<DeletedTopic> [0..],
    }
    DeletedTopic {
        name: String [0..],
        partitions: Vec<DeletedPartition> [0..],
    }
    DeletedPartition {
        partition: i32 [0..],
        error: Code [0..],
    }
}

impl Api for Served {
    const KEY: i16 = 47;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const FLEXIBLE: i16 = i16::MAX;
    type Request = OffsetDeleteRequest;
    type Response = OffsetDeleteResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        let broker = &session.node.broker;
        let error = match broker.describe_group(&session.who, &request.group_id) {
            Ok(group) if group.state == "Dead" => Code::GroupIdNotFound,
            Ok(_) => Code::None,
            Err(e) => Code::from(&e),
        };
        let mut response = OffsetDeleteResponse {
            error,
            ..OffsetDeleteResponse::default()
        };
        if response.error != Code::None {
            return response;
        }
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for p in topic.partitions {
                let deleted =
                    broker.delete_offset(&session.who, &request.group_id, &topic.name, p.partition as u32);
                let error = match deleted.await {
                    Ok(()) => Code::None,
                    Err(GroupError::NotFound) => Code::UnknownTopicOrPartition,
                    Err(e) => Code::from(&e),
                };
                partitions.push(DeletedPartition {
                    partition: p.partition,
                    error,
                });
            }
            response.topics.push(DeletedTopic {
                name: topic.name,
                partitions,
            });
        }
        response
    }
}
