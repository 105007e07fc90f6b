//! ElectLeaders (43): leaders are not elected on demand: replicas elect a leader when the old leader fails.
//! Memory: the request.

use super::Api;
use super::first_of_each;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;

pub(crate) struct Served;

messages! {
    ElectLeadersRequest {
        election_type: i8 [1..],
        topic_partitions: Option<Vec<TopicPartitions>> [0..],
        timeout_ms: i32 [0..],
    }
    TopicPartitions {
        topic: String [0..],
        partitions: Vec<i32> [0..],
    }
    ElectLeadersResponse {
        throttle_time_ms: i32 [0..],
        error: Code [1..],
        results: Vec<ElectionResult> [0..],
    }
    ElectionResult {
        topic: String [0..],
        partitions: Vec<PartitionResult> [0..],
    }
    PartitionResult {
        partition: i32 [0..],
        error: Code [0..],
        error_message: Option<String> [0..],
    }
}

impl Api for Served {
    const KEY: i16 = 43;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const FLEXIBLE: i16 = 2;
    type Request = ElectLeadersRequest;
    type Response = ElectLeadersResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        // A request for all partitions expects only those with a new leader in the answer: there are none.
        let asked = request.topic_partitions.unwrap_or_default();
        let results = first_of_each(asked, |t| t.topic.clone())
            .into_iter()
            .map(|asked| {
                let topic = session.node.broker.topic(&asked.topic);
                let result = |partition: i32| {
                    let found = topic
                        .as_ref()
                        .zip(u32::try_from(partition).ok())
                        .and_then(|(t, p)| t.partition(p));
                    let (error, words) = match found {
                        Some(_) => (
                            Code::ElectionNotNeeded,
                            "replicas elect a new leader only when their leader fails",
                        ),
                        None => (Code::UnknownTopicOrPartition, "no such partition"),
                    };
                    PartitionResult {
                        partition,
                        error,
                        error_message: Some(words.to_owned()),
                    }
                };
                ElectionResult {
                    partitions: first_of_each(asked.partitions, |p| *p)
                        .into_iter()
                        .map(result)
                        .collect(),
                    topic: asked.topic,
                }
            });
        ElectLeadersResponse {
            results: results.collect(),
            ..ElectLeadersResponse::default()
        }
    }
}
