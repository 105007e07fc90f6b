//! OffsetFetch (9): committed offsets of groups; -1 without an error for partitions without a commit. Memory:
//! a few bytes per partition.

use super::{Api, first_of_each};
use crate::error::Code;
use crate::node::Session;
use crate::wire::{Uuid, messages};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use weir_broker::{Broker, CommittedOffset};

pub(crate) struct Served;

/// First version that names topics by id.
const BY_ID_FROM: i16 = 10;

messages! {
    OffsetFetchRequest {
        group_id: String [0..=7],
        topics: Option<Vec<OffsetTopic>> [0..=7],
        groups: Vec<OffsetGroup> [8..],
        require_stable: bool [7..],
    }
    OffsetTopic {
        name: String [0..=9],
        topic_id: Uuid [10..],
        partitions: Vec<i32> [0..],
    }
    OffsetGroup {
        group_id: String [8..],
        member_id: Option<String> [9..],
        member_epoch: i32 [9..] = -1,
        topics: Option<Vec<OffsetTopic>> [8..],
    }
    OffsetFetchResponse {
        throttle_time_ms: i32 [3..],
        topics: Vec<FetchedTopic> [0..=7],
        error: Code [2..=7],
        groups: Vec<FetchedGroup> [8..],
    }
    FetchedTopic {
        name: String [0..=9],
        topic_id: Uuid [10..],
        partitions: Vec<FetchedOffset> [0..],
    }
    FetchedOffset {
        partition: i32 [0..],
        offset: i64 [0..] = -1,
        leader_epoch: i32 [5..] = -1,
        metadata: Option<String> [0..],
        error: Code [0..],
    }
    FetchedGroup {
        group_id: String [8..],
        topics: Vec<FetchedTopic> [8..],
        error: Code [8..],
    }
}

impl Api for Served {
    const KEY: i16 = 9;
    const VERSIONS: RangeInclusive<i16> = 1..=10;
    const FLEXIBLE: i16 = 6;
    type Request = OffsetFetchRequest;
    type Response = OffsetFetchResponse;

    async fn handle(session: &Session, version: i16, request: Self::Request) -> Self::Response {
        let mut response = OffsetFetchResponse::default();
        if version < 8 {
            (response.error, response.topics) = fetch(session, version, &request.group_id, request.topics);
            return response;
        }
        for group in first_of_each(request.groups, |g| g.group_id.clone()) {
            let (error, topics) = fetch(session, version, &group.group_id, group.topics);
            response.groups.push(FetchedGroup {
                group_id: group.group_id,
                topics,
                error,
            });
        }
        response
    }
}

fn fetch(
    session: &Session,
    version: i16,
    group: &str,
    topics: Option<Vec<OffsetTopic>>,
) -> (Code, Vec<FetchedTopic>) {
    let broker = &session.node.broker;
    if !Broker::is_group_name(group) {
        return (Code::InvalidGroupId, Vec::new());
    }
    if !broker.is_serving() {
        return (Code::NotCoordinator, Vec::new());
    }
    let Some(topics) = topics else {
        let mut all: BTreeMap<String, Vec<FetchedOffset>> = BTreeMap::new();
        for (topic, partition, committed) in broker.committed_offsets(group) {
            all.entry(topic)
                .or_default()
                .push(answer(partition as i32, Some(committed)));
        }
        let topics = all.into_iter().map(|(name, partitions)| FetchedTopic {
            topic_id: broker
                .topic(&name)
                .map(|topic| session.topic_id(&topic))
                .unwrap_or_default(),
            name,
            partitions,
        });
        return (Code::None, topics.collect());
    };
    let topics = first_of_each(topics, |t| (t.name.clone(), t.topic_id.0))
        .into_iter()
        .map(|mut topic| {
            let is_by_id = version >= BY_ID_FROM;
            if is_by_id {
                topic.name = session.name_of(topic.topic_id);
            }
            let one = |p: &i32| match is_by_id && topic.name.is_empty() {
                true => FetchedOffset {
                    error: Code::UnknownTopicId,
                    ..answer(*p, None)
                },
                false => answer(*p, broker.committed_offset(group, &topic.name, *p as u32)),
            };
            FetchedTopic {
                partitions: first_of_each(topic.partitions, |p| *p).iter().map(one).collect(),
                topic_id: topic.topic_id,
                name: topic.name,
            }
        });
    (Code::None, topics.collect())
}

fn answer(partition: i32, committed: Option<CommittedOffset>) -> FetchedOffset {
    match committed {
        Some(c) => FetchedOffset {
            partition,
            offset: c.number(),
            leader_epoch: c.leader_epoch,
            metadata: Some(c.metadata),
            error: Code::None,
        },
        None => FetchedOffset {
            partition,
            metadata: Some(String::new()),
            ..FetchedOffset::default()
        },
    }
}
