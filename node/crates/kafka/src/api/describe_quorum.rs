//! DescribeQuorum (55): the voters of the site, under the name of Kafka's metadata topic. Memory: a few bytes
//! per node.

use super::Api;
use crate::error::Code;
use crate::node::Session;
use crate::wire::{Uuid, messages};
use std::ops::RangeInclusive;
use weir_types::GroupId;

pub(crate) struct Served;

/// Kafka's metadata topic (KIP-595): the only topic that clients ask for.
const METADATA_TOPIC: &str = "__cluster_metadata";

messages! {
    DescribeQuorumRequest {
        topics: Vec<AskedTopic> [0..],
    }
    AskedTopic {
        name: String [0..],
        partitions: Vec<AskedPartition> [0..],
    }
    AskedPartition {
        index: i32 [0..],
    }
    DescribeQuorumResponse {
        error: Code [0..],
        error_message: Option<String> [2..],
        topics: Vec<DescribedTopic> [0..],
        nodes: Vec<QuorumNode> [2..],
    }
    DescribedTopic {
        name: String [0..],
        partitions: Vec<DescribedPartition> [0..],
    }
    DescribedPartition {
        index: i32 [0..],
        error: Code [0..],
        error_message: Option<String> [2..],
        leader_id: i32 [0..] = -1,
        leader_epoch: i32 [0..] = -1,
        high_watermark: i64 [0..] = -1,
        voters: Vec<Replica> [0..],
        observers: Vec<Replica> [0..],
    }
    Replica {
        replica_id: i32 [0..],
        directory_id: Uuid [2..],
        log_end_offset: i64 [0..] = -1,
        last_fetch_timestamp: i64 [1..] = -1,
        last_caught_up_timestamp: i64 [1..] = -1,
    }
    QuorumNode {
        node_id: i32 [2..],
        listeners: Vec<Listener> [2..],
    }
    Listener {
        name: String [2..],
        host: String [2..],
        // Unsigned on the wire.
        port: i16 [2..],
    }
}

impl Api for Served {
    const KEY: i16 = 55;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const FLEXIBLE: i16 = 0;
    type Request = DescribeQuorumRequest;
    type Response = DescribeQuorumResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        let topics = request.topics.into_iter().map(|asked| DescribedTopic {
            partitions: asked
                .partitions
                .iter()
                .map(|partition| describe(session, &asked.name, partition.index))
                .collect(),
            name: asked.name,
        });
        let node = |b: crate::node::Address| QuorumNode {
            node_id: b.id,
            listeners: vec![Listener {
                name: "PLAINTEXT".to_owned(),
                host: b.host,
                port: b.port as i16,
            }],
        };
        DescribeQuorumResponse {
            topics: topics.collect(),
            nodes: session.brokers().into_iter().map(node).collect(),
            ..DescribeQuorumResponse::default()
        }
    }
}

fn describe(session: &Session, topic: &str, index: i32) -> DescribedPartition {
    if (topic, index) != (METADATA_TOPIC, 0) {
        return DescribedPartition {
            index,
            error: Code::UnknownTopicOrPartition,
            error_message: Some(format!("only partition 0 of {METADATA_TOPIC} has a quorum")),
            ..DescribedPartition::default()
        };
    }
    let (leader_id, leader_epoch) = session.leader(GroupId::SITE);
    let status = session.node.broker.group().status();
    let committed = i64::try_from(status.applied).unwrap_or(-1);
    // Only the leader knows the progress of its followers.
    let end = |id: i32| {
        let member = status
            .members
            .iter()
            .find(|member| i32::try_from(member.id) == Ok(id))?;
        let lag = match id == session.node_id() {
            true => 0,
            false => member.lag?,
        };
        i64::try_from(status.last.saturating_sub(lag)).ok()
    };
    let now = session.node.broker.now_ms();
    let heard = |id: i32| {
        let member = status
            .members
            .iter()
            .find(|member| i32::try_from(member.id) == Ok(id))?;
        let ago = match id == session.node_id() {
            true => 0,
            false => member.heard_ms_ago?,
        };
        Some(now.saturating_sub_unsigned(ago))
    };
    let replica = |id: i32| {
        let (end, heard) = (end(id).unwrap_or(-1), heard(id).unwrap_or(-1));
        Replica {
            replica_id: id,
            log_end_offset: end,
            last_fetch_timestamp: heard,
            last_caught_up_timestamp: if end >= committed { heard } else { -1 },
            ..Replica::default()
        }
    };
    let replicas = session.replicas(GroupId::SITE);
    DescribedPartition {
        index,
        leader_id,
        leader_epoch,
        high_watermark: committed,
        observers: replicas
            .all
            .iter()
            .filter(|id| !replicas.voters.contains(id))
            .map(|id| replica(*id))
            .collect(),
        voters: replicas.voters.iter().map(|id| replica(*id)).collect(),
        ..DescribedPartition::default()
    }
}
