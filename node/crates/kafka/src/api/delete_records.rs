//! DeleteRecords (21): deletes the records before an offset. Memory: negligible.

use super::Api;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;
use weir_types::{GapReason, Offset};

pub(crate) struct Served;

/// Offset that stands for the end of the partition.
const ALL: i64 = -1;

messages! {
    DeleteRecordsRequest {
        topics: Vec<DeleteTopic> [0..],
        timeout_ms: i32 [0..],
    }
    DeleteTopic {
        name: String [0..],
        partitions: Vec<DeletePartition> [0..],
    }
    DeletePartition {
        partition: i32 [0..],
        offset: i64 [0..],
    }
    DeleteRecordsResponse {
        throttle_time_ms: i32 [0..],
        topics: Vec<DeletedTopic> [0..],
    }
    DeletedTopic {
        name: String [0..],
        partitions: Vec<DeletedPartition> [0..],
    }
    DeletedPartition {
        partition: i32 [0..],
        low_watermark: i64 [0..] = -1,
        error: Code [0..],
    }
}

impl Api for Served {
    const KEY: i16 = 21;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const FLEXIBLE: i16 = 2;
    type Request = DeleteRecordsRequest;
    type Response = DeleteRecordsResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        let mut response = DeleteRecordsResponse::default();
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in topic.partitions {
                let mut answer = DeletedPartition {
                    partition: asked.partition,
                    ..DeletedPartition::default()
                };
                match delete(session, &topic.name, &asked).await {
                    Ok(low) => answer.low_watermark = low.get() as i64,
                    Err(code) => answer.error = code,
                }
                partitions.push(answer);
            }
            response.topics.push(DeletedTopic {
                name: topic.name,
                partitions,
            });
        }
        response
    }
}

async fn delete(session: &Session, topic: &str, asked: &DeletePartition) -> Result<Offset, Code> {
    let broker = &session.node.broker;
    let partition = asked.partition as u32;
    let found = broker.topic(topic).and_then(|t| t.partition(partition));
    found.ok_or(Code::UnknownTopicOrPartition)?;
    let end = broker
        .marks(topic, partition)
        .map_or(Offset::ZERO, |m| m.committed_end());
    let to = match asked.offset {
        ALL => end,
        offset => u64::try_from(offset)
            .map(Offset::new)
            .map_err(|_| Code::OffsetOutOfRange)?,
    };
    let trimmed = broker
        .trim(&session.who, topic, partition, to, GapReason::Deleted)
        .await;
    trimmed.map_err(|e| Code::from(&e))?;
    Ok(broker
        .marks(topic, partition)
        .map_or(Offset::ZERO, |m| m.log_start()))
}
