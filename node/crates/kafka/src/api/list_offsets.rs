//! ListOffsets (2): offsets of the start, the end, a time, or the largest timestamp. Memory: a few bytes per
//! partition.

use super::{Api, consumer_offsets};
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;
use weir_broker::{At, FetchError};

pub(crate) struct Served;

/// Special values of a timestamp.
pub(crate) const LATEST: i64 = -1;
pub(crate) const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// Since version 8: the first record on the node's own disk (KIP-405).
const EARLIEST_LOCAL: i64 = -4;
/// Since version 9: the last record in tiered storage (KIP-1005).
const LATEST_TIERED: i64 = -5;
/// Since version 11: the first record that waits for tiered storage (KIP-1023).
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// Returns true if `version` defines the special timestamp `time`.
fn is_known(time: i64, version: i16) -> bool {
    let since = match time {
        LATEST | EARLIEST => 1,
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        EARLIEST_PENDING_UPLOAD => 11,
        _ => return false,
    };
    version >= since
}

messages! {
    ListOffsetsRequest {
        replica_id: i32 [0..],
        isolation_level: i8 [2..],
        topics: Vec<ListTopic> [0..],
        timeout_ms: i32 [10..],
    }
    ListTopic {
        name: String [0..],
        partitions: Vec<ListPartition> [0..],
    }
    ListPartition {
        partition: i32 [0..],
        current_leader_epoch: i32 [4..] = -1,
        timestamp: i64 [0..],
    }
    ListOffsetsResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<ListedTopic> [0..],
    }
    ListedTopic {
        name: String [0..],
        partitions: Vec<ListedPartition> [0..],
    }
    ListedPartition {
        partition: i32 [0..],
        error: Code [0..],
        timestamp: i64 [1..] = -1,
        offset: i64 [1..] = -1,
        leader_epoch: i32 [4..] = -1,
    }
}

impl Api for Served {
    const KEY: i16 = 2;
    const VERSIONS: RangeInclusive<i16> = 1..=11;
    const FLEXIBLE: i16 = 6;
    type Request = ListOffsetsRequest;
    type Response = ListOffsetsResponse;

    async fn handle(session: &Session, version: i16, request: Self::Request) -> Self::Response {
        let mut response = ListOffsetsResponse::default();
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in topic.partitions {
                partitions.push(partition(session, version, &topic.name, &asked).await);
            }
            response.topics.push(ListedTopic {
                name: topic.name,
                partitions,
            });
        }
        response
    }
}

async fn partition(session: &Session, version: i16, topic: &str, asked: &ListPartition) -> ListedPartition {
    let mut listed = ListedPartition {
        partition: asked.partition,
        ..ListedPartition::default()
    };
    let epoch = session.check_epoch(topic, asked.partition, asked.current_leader_epoch);
    if epoch != Code::None {
        listed.error = epoch;
        return listed;
    }
    if asked.timestamp < 0 && !is_known(asked.timestamp, version) {
        listed.error = Code::UnsupportedVersion;
        return listed;
    }
    if asked.partition == 0 && consumer_offsets::is(session, topic) {
        if matches!(asked.timestamp, LATEST | EARLIEST | EARLIEST_LOCAL) {
            listed.offset = 0;
        }
        return listed;
    }
    match place(session, topic, asked).await {
        Ok(Some((offset, timestamp))) => {
            (listed.offset, listed.timestamp) = (offset, timestamp);
            listed.leader_epoch = session.leader_epoch(topic, asked.partition);
        }
        Ok(None) => {}
        Err(e) => listed.error = Code::from(&e),
    }
    listed
}

async fn place(
    session: &Session,
    topic: &str,
    asked: &ListPartition,
) -> Result<Option<(i64, i64)>, FetchError> {
    let (broker, who) = (&session.node.broker, &session.who);
    let partition = asked.partition as u32;
    let found = match asked.timestamp {
        LATEST => Some((broker.offset_at(who, topic, partition, At::End).await?, -1)),
        EARLIEST | EARLIEST_LOCAL => Some((broker.offset_at(who, topic, partition, At::Start).await?, -1)),
        // There is no tiered storage.
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => {
            broker.offset_at(who, topic, partition, At::Start).await?;
            None
        }
        MAX_TIMESTAMP => broker.offset_of_max_timestamp(who, topic, partition).await?,
        timestamp => broker.record_at_time(who, topic, partition, timestamp).await?,
    };
    Ok(found.map(|(offset, timestamp)| (offset.get() as i64, timestamp)))
}
