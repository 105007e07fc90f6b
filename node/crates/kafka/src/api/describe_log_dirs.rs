//! DescribeLogDirs (35): bytes of each partition in the node's only directory. Memory: a few bytes per
//! partition.

use super::Api;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;

pub(crate) struct Served;

messages! {
    DescribeLogDirsRequest {
        topics: Option<Vec<LogDirTopic>> [0..],
    }
    LogDirTopic {
        topic: String [0..],
        partitions: Vec<i32> [0..],
    }
    DescribeLogDirsResponse {
        throttle_time_ms: i32 [0..],
        error: Code [3..],
        results: Vec<LogDir> [0..],
    }
    LogDir {
        error: Code [0..],
        log_dir: String [0..],
        topics: Vec<DescribedTopic> [0..],
        total_bytes: i64 [4..] = -1,
        usable_bytes: i64 [4..] = -1,
        is_cordoned: bool [5..],
    }
    DescribedTopic {
        name: String [0..],
        partitions: Vec<DescribedPartition> [0..],
    }
    DescribedPartition {
        partition: i32 [0..],
        size: i64 [0..],
        offset_lag: i64 [0..],
        is_future: bool [0..],
    }
}

impl Api for Served {
    const KEY: i16 = 35;
    const VERSIONS: RangeInclusive<i16> = 1..=5;
    const FLEXIBLE: i16 = 2;
    type Request = DescribeLogDirsRequest;
    type Response = DescribeLogDirsResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        let broker = &session.node.broker;
        let asked = |topic: &str, partition: u32| {
            request.topics.as_ref().is_none_or(|topics| {
                topics
                    .iter()
                    .any(|t| t.topic == topic && t.partitions.contains(&(partition as i32)))
            })
        };
        let describe = |topic: &weir_broker::Topic| {
            let name = topic.name.as_str();
            let wanted = (0..topic.partitions.len() as u32).filter(|p| asked(name, *p));
            let partitions = wanted.map(|p| DescribedPartition {
                partition: p as i32,
                size: broker.marks(name, p).map_or(0, |m| m.bytes() as i64),
                ..DescribedPartition::default()
            });
            DescribedTopic {
                name: name.to_owned(),
                partitions: partitions.collect(),
            }
        };
        let usage = broker.log().usage();
        let topics = broker
            .topics()
            .iter()
            .map(|t| describe(t))
            .filter(|t| !t.partitions.is_empty())
            .collect();
        DescribeLogDirsResponse {
            results: vec![LogDir {
                log_dir: session.node.settings.data_dir.clone(),
                topics,
                total_bytes: (usage.disk_bytes + usage.free_bytes) as i64,
                usable_bytes: usage.free_bytes as i64,
                ..LogDir::default()
            }],
            ..DescribeLogDirsResponse::default()
        }
    }
}
