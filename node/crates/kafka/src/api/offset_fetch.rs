//! OffsetFetch (9): what groups committed; -1 and no error where they did not. Memory: some bytes a partition.

use super::{Api, first_of_each};
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use weir_broker::{Broker, CommittedOffset};

pub(crate) struct Served;

messages! {
    OffsetFetchRequest {
        group_id: String [0..=7],
        topics: Option<Vec<OffsetTopic>> [0..=7],
        groups: Vec<OffsetGroup> [8..],
        require_stable: bool [7..],
    }
    OffsetTopic {
        name: String [0..],
        partitions: Vec<i32> [0..],
    }
    OffsetGroup {
        group_id: String [8..],
        topics: Option<Vec<OffsetTopic>> [8..],
    }
    OffsetFetchResponse {
        throttle_time_ms: i32 [3..],
        topics: Vec<FetchedTopic> [0..=7],
        error: Code [2..=7],
        groups: Vec<FetchedGroup> [8..],
    }
    FetchedTopic {
        name: String [0..],
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
    const VERSIONS: RangeInclusive<i16> = 1..=8;
    const FLEXIBLE: i16 = 6;
    type Request = OffsetFetchRequest;
    type Response = OffsetFetchResponse;

    async fn handle(session: &Session, version: i16, request: Self::Request) -> Self::Response {
        let broker = &session.node.broker;
        let mut response = OffsetFetchResponse::default();
        if version < 8 {
            (response.error, response.topics) = fetch(broker, &request.group_id, request.topics);
            return response;
        }
        for group in first_of_each(request.groups, |g| g.group_id.clone()) {
            let (error, topics) = fetch(broker, &group.group_id, group.topics);
            response.groups.push(FetchedGroup {
                group_id: group.group_id,
                topics,
                error,
            });
        }
        response
    }
}

fn fetch(broker: &Broker, group: &str, topics: Option<Vec<OffsetTopic>>) -> (Code, Vec<FetchedTopic>) {
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
        let topics = all
            .into_iter()
            .map(|(name, partitions)| FetchedTopic { name, partitions });
        return (Code::None, topics.collect());
    };
    let topics = first_of_each(topics, |t| t.name.clone())
        .into_iter()
        .map(|topic| {
            let one = |p: &i32| answer(*p, broker.committed_offset(group, &topic.name, *p as u32));
            FetchedTopic {
                partitions: first_of_each(topic.partitions, |p| *p).iter().map(one).collect(),
                name: topic.name,
            }
        });
    (Code::None, topics.collect())
}

fn answer(partition: i32, committed: Option<CommittedOffset>) -> FetchedOffset {
    match committed {
        Some(c) => FetchedOffset {
            partition,
            offset: c.offset.get() as i64,
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
