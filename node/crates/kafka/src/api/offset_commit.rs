//! OffsetCommit (8): committed offsets are stored before the answer. Memory: the request.

use super::Api;
use crate::error::Code;
use crate::node::Session;
use crate::wire::{Uuid, messages};
use std::ops::RangeInclusive;
use weir_broker::{AdminError, Caller, Commit};
use weir_types::limits::OFFSET_METADATA_BYTES_MAX;

pub(crate) struct Served;

/// First version that names topics by id.
const BY_ID_FROM: i16 = 10;

messages! {
    OffsetCommitRequest {
        group_id: String [0..],
        generation_id: i32 [1..] = -1,
        member_id: String [1..],
        group_instance_id: Option<String> [7..],
        retention_time_ms: i64 [2..=4] = -1,
        topics: Vec<CommitTopic> [0..],
    }
    CommitTopic {
        name: String [0..=9],
        topic_id: Uuid [10..],
        partitions: Vec<CommitPartition> [0..],
    }
    CommitPartition {
        partition: i32 [0..],
        offset: i64 [0..],
        leader_epoch: i32 [6..] = -1,
        commit_timestamp: i64 [1..=1] = -1,
        metadata: Option<String> [0..],
    }
    OffsetCommitResponse {
        throttle_time_ms: i32 [3..],
        topics: Vec<CommittedTopic> [0..],
    }
    CommittedTopic {
        name: String [0..=9],
        topic_id: Uuid [10..],
        partitions: Vec<CommittedPartition> [0..],
    }
    CommittedPartition {
        partition: i32 [0..],
        error: Code [0..],
    }
}

impl Api for Served {
    const KEY: i16 = 8;
    const VERSIONS: RangeInclusive<i16> = 1..=10;
    const FLEXIBLE: i16 = 8;
    type Request = OffsetCommitRequest;
    type Response = OffsetCommitResponse;

    async fn handle(session: &Session, version: i16, request: Self::Request) -> Self::Response {
        let broker = &session.node.broker;
        let caller = Caller {
            group: &request.group_id,
            member: &request.member_id,
            instance: request.group_instance_id.as_deref(),
            generation: request.generation_id,
        };
        let refused = broker
            .may_commit(&session.who, caller)
            .err()
            .map(|e| Code::from(&e));
        let mut commits = Vec::new();
        let mut response = OffsetCommitResponse::default();
        for topic in request.topics {
            let is_by_id = version >= BY_ID_FROM;
            let mut answer = CommittedTopic {
                name: match is_by_id {
                    true => session.name_of(topic.topic_id),
                    false => topic.name,
                },
                topic_id: topic.topic_id,
                partitions: Vec::with_capacity(topic.partitions.len()),
            };
            let found = broker.topic(&answer.name);
            for p in topic.partitions {
                let exists = found
                    .as_ref()
                    .is_some_and(|t| t.partition(p.partition as u32).is_some());
                let metadata = p.metadata.unwrap_or_default();
                let error = match refused {
                    Some(code) => code,
                    None if is_by_id && found.is_none() => Code::UnknownTopicId,
                    None if !exists => Code::UnknownTopicOrPartition,
                    None if metadata.len() > OFFSET_METADATA_BYTES_MAX => Code::OffsetMetadataTooLarge,
                    None => Code::None,
                };
                if error == Code::None {
                    commits.push(Commit {
                        topic: answer.name.clone(),
                        partition: p.partition as u32,
                        offset: p.offset,
                        leader_epoch: p.leader_epoch,
                        metadata,
                    });
                }
                answer.partitions.push(CommittedPartition {
                    partition: p.partition,
                    error,
                });
            }
            response.topics.push(answer);
        }
        if let Err(e) = broker
            .commit_offsets(&session.who, &request.group_id, &commits)
            .await
        {
            let partitions = response.topics.iter_mut().flat_map(|t| &mut t.partitions);
            partitions
                .filter(|p| p.error == Code::None)
                .for_each(|p| p.error = refused_commit(&e));
        }
        response
    }
}

/// Maps a refused commit to a code. Clients retry if the coordinator is unavailable, but exit on most other
/// codes.
fn refused_commit(error: &AdminError) -> Code {
    match error {
        AdminError::Closed | AdminError::Propose(_) => Code::CoordinatorNotAvailable,
        AdminError::Limit { .. } => Code::InvalidCommitOffsetSize,
        other => Code::from(other),
    }
}
