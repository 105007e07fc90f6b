//! DescribeProducers (61): the idempotent producers known to a partition. Memory: a few bytes per producer.

use super::{Api, first_of_each};
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;

pub(crate) struct Served;

messages! {
    DescribeProducersRequest {
        topics: Vec<ProducersTopic> [0..],
    }
    ProducersTopic {
        name: String [0..],
        partitions: Vec<i32> [0..],
    }
    DescribeProducersResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<DescribedTopic> [0..],
    }
    DescribedTopic {
        name: String [0..],
        partitions: Vec<DescribedPartition> [0..],
    }
    DescribedPartition {
        partition: i32 [0..],
        error: Code [0..],
        error_message: Option<String> [0..],
        active_producers: Vec<ActiveProducer> [0..],
    }
    ActiveProducer {
        producer_id: i64 [0..],
        producer_epoch: i32 [0..],
        last_sequence: i32 [0..] = -1,
        last_timestamp: i64 [0..] = -1,
        coordinator_epoch: i32 [0..],
        current_transaction_start: i64 [0..] = -1,
    }
}

impl Api for Served {
    const KEY: i16 = 61;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const FLEXIBLE: i16 = 0;
    type Request = DescribeProducersRequest;
    type Response = DescribeProducersResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        let broker = &session.node.broker;
        let mut response = DescribeProducersResponse::default();
        for topic in first_of_each(request.topics, |t| t.name.clone()) {
            let one = |partition: &i32| {
                let Some(producers) = broker.producers(&topic.name, *partition as u32) else {
                    return DescribedPartition {
                        partition: *partition,
                        error: Code::UnknownTopicOrPartition,
                        ..DescribedPartition::default()
                    };
                };
                let active = producers.into_iter().map(|p| ActiveProducer {
                    producer_id: p.id,
                    producer_epoch: i32::from(p.epoch),
                    last_sequence: p.last_sequence,
                    last_timestamp: p.last_ms,
                    // A producer without transactions has no coordinator.
                    coordinator_epoch: -1,
                    ..ActiveProducer::default()
                });
                DescribedPartition {
                    partition: *partition,
                    active_producers: active.collect(),
                    ..DescribedPartition::default()
                }
            };
            response.topics.push(DescribedTopic {
                partitions: first_of_each(topic.partitions, |p| *p).iter().map(one).collect(),
                name: topic.name,
            });
        }
        response
    }
}
