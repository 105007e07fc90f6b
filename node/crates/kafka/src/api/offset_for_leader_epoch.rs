//! OffsetForLeaderEpoch (23): the end offset of an epoch (KIP-320). A single node has one epoch that never
//! ends. Memory: a few bytes per partition.

use super::Api;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;
use weir_broker::At;

pub(crate) struct Served;

messages! {
    OffsetForLeaderEpochRequest {
        replica_id: i32 [3..] = -2,
        topics: Vec<EpochTopic> [0..],
    }
    EpochTopic {
        name: String [0..],
        partitions: Vec<EpochPartition> [0..],
    }
    EpochPartition {
        partition: i32 [0..],
        current_leader_epoch: i32 [2..] = -1,
        leader_epoch: i32 [0..],
    }
    OffsetForLeaderEpochResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<EndTopic> [0..],
    }
    EndTopic {
        name: String [0..],
        partitions: Vec<EndPartition> [0..],
    }
    EndPartition {
        error: Code [0..],
        partition: i32 [0..],
        leader_epoch: i32 [1..] = -1,
        end_offset: i64 [0..] = -1,
    }
}

impl Api for Served {
    const KEY: i16 = 23;
    const VERSIONS: RangeInclusive<i16> = 2..=4;
    const FLEXIBLE: i16 = 4;
    type Request = OffsetForLeaderEpochRequest;
    type Response = OffsetForLeaderEpochResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        let mut response = OffsetForLeaderEpochResponse::default();
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in topic.partitions {
                let mut answer = EndPartition {
                    partition: asked.partition,
                    error: session.check_epoch(&topic.name, asked.partition, asked.current_leader_epoch),
                    ..EndPartition::default()
                };
                let broker = &session.node.broker;
                let end = broker
                    .offset_at(&session.who, &topic.name, asked.partition as u32, At::End)
                    .await;
                match end {
                    Err(e) => answer.error = Code::from(&e),
                    Ok(_) if answer.error != Code::None => {}
                    // Committed records are never truncated: a past epoch ended at the first record of its
                    // successor.
                    Ok(end)
                        if (0..=session.leader_epoch(&topic.name, asked.partition))
                            .contains(&asked.leader_epoch) =>
                    {
                        answer.leader_epoch = asked.leader_epoch;
                        answer.end_offset = end.get() as i64;
                    }
                    // An epoch that never existed has no end.
                    Ok(_) => {}
                }
                partitions.push(answer);
            }
            response.topics.push(EndTopic {
                name: topic.name,
                partitions,
            });
        }
        response
    }
}
