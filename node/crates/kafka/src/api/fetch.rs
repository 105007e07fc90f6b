//! Fetch (1): whole batches, with a long poll. Memory: [`FETCH_BYTES_MAX`] and a batch, within a node-wide
//! limit; beyond that limit answers are short.
//!
//! Fetch sessions (KIP-227) are declined: every answer has session id 0 and contains all requested
//! partitions.

use super::leader_hint::{self, LeaderHint, NodeEndpoint};
use super::{Api, consumer_offsets};
use crate::error::Code;
use crate::node::Session;
use crate::wire::{Records, Uuid, messages};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};
use weir_broker::{Fetch, Piece};
use weir_types::Offset;
use weir_types::limits::{FETCH_BYTES_MAX, FETCH_WAIT_MS_MAX};

pub(crate) struct Served;

/// First version that names topics by id.
const BY_ID_FROM: i16 = 13;
/// If an answer has fewer bytes left, further partitions wait for the next answer.
const HARDLY_BYTES: usize = 16 << 10;

messages! {
    FetchRequest {
        replica_id: i32 [0..=14] = -1,
        max_wait_ms: i32 [0..],
        min_bytes: i32 [0..],
        max_bytes: i32 [3..] = i32::MAX,
        isolation_level: i8 [4..],
        session_id: i32 [7..],
        session_epoch: i32 [7..] = -1,
        topics: Vec<FetchTopic> [0..],
        forgotten: Vec<ForgottenTopic> [7..],
        rack_id: String [11..],
    }
    FetchTopic {
        name: String [0..=12],
        topic_id: Uuid [13..],
        partitions: Vec<FetchPartition> [0..],
    }
    FetchPartition {
        partition: i32 [0..],
        current_leader_epoch: i32 [9..] = -1,
        fetch_offset: i64 [0..],
        last_fetched_epoch: i32 [12..] = -1,
        log_start_offset: i64 [5..] = -1,
        partition_max_bytes: i32 [0..],
    }
    ForgottenTopic {
        name: String [7..=12],
        topic_id: Uuid [13..],
        partitions: Vec<i32> [7..],
    }
    FetchResponse {
        throttle_time_ms: i32 [1..],
        error: Code [7..],
        session_id: i32 [7..],
        topics: Vec<FetchedTopic> [0..],
    } + {
        node_endpoints: Vec<NodeEndpoint> [16..] 0,
    }
    FetchedTopic {
        name: String [0..=12],
        topic_id: Uuid [13..],
        partitions: Vec<FetchedPartition> [0..],
    }
    FetchedPartition {
        partition: i32 [0..],
        error: Code [0..],
        high_watermark: i64 [0..] = -1,
        last_stable_offset: i64 [4..] = -1,
        log_start_offset: i64 [5..] = -1,
        aborted_transactions: Option<Vec<AbortedTransaction>> [4..],
        preferred_read_replica: i32 [11..] = -1,
        records: Records [0..],
    } + {
        current_leader: LeaderHint [12..] 1,
    }
    AbortedTransaction {
        producer_id: i64 [4..],
        first_offset: i64 [4..],
    }
}

impl Api for Served {
    const KEY: i16 = 1;
    const VERSIONS: RangeInclusive<i16> = 4..=18;
    const FLEXIBLE: i16 = 12;
    type Request = FetchRequest;
    type Response = FetchResponse;

    async fn handle(session: &Session, version: i16, request: Self::Request) -> Self::Response {
        // An epoch above 0 continues a session, but no session was ever opened.
        if request.session_id != 0 && request.session_epoch > 0 {
            return FetchResponse {
                error: Code::FetchSessionIdNotFound,
                ..FetchResponse::default()
            };
        }
        let wait = Duration::from_millis((request.max_wait_ms.max(0) as u64).min(FETCH_WAIT_MS_MAX));
        let deadline = session.node.end_of_wait(Instant::now(), wait);
        // No answer exceeds this limit.
        let most = usize::try_from(request.max_bytes)
            .unwrap_or(0)
            .min(FETCH_BYTES_MAX);
        let min_bytes = (request.min_bytes.max(0) as usize).min(most);
        let mut request = request;
        loop {
            if version >= BY_ID_FROM {
                // Resolved on every pass: the name may belong to another topic by now.
                for topic in &mut request.topics {
                    topic.name = session.name_of(topic.topic_id);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let places = places(&request);
            let mut waited = false;
            if min_bytes > 0 && !left.is_zero() && !places.is_empty() {
                waited = session.node.broker.wait_for_any(&places, left).await;
            }
            let (mut response, got) = read(session, &mut request).await;
            let left = deadline.saturating_duration_since(Instant::now());
            if got.bytes >= min_bytes || got.failed || left.is_zero() {
                // Charges only delivered bytes, not bytes of reads that were too small to deliver.
                let throttle = session
                    .node
                    .broker
                    .delivered(&session.who, got.bytes, got.records);
                response.throttle_time_ms = throttle.as_millis() as i32;
                session.keep_records(got.bytes);
                session.hold_back((!throttle.is_zero()).then(|| Instant::now() + throttle));
                return response;
            }
            let _ = session.take_answer();
            // Some data, but too little, or only a gap: wait for more.
            if !waited {
                tokio::time::sleep(left.min((wait / 8).max(Duration::from_millis(5)))).await;
            }
        }
    }
}

fn places(request: &FetchRequest) -> Vec<(String, u32, Offset)> {
    let mut places = Vec::new();
    for topic in request.topics.iter().filter(|t| t.name != consumer_offsets::NAME) {
        for p in &topic.partitions {
            let offset = Offset::new(p.fetch_offset.max(0) as u64);
            places.push((topic.name.clone(), p.partition as u32, offset));
        }
    }
    places
}

#[derive(Default)]
struct Got {
    bytes: usize,
    share: Option<bool>,
    /// A failure that must reach the client without delay.
    failed: bool,
    records: u64,
}

async fn read(session: &Session, request: &mut FetchRequest) -> (FetchResponse, Got) {
    let mut got = Got::default();
    let mut left = usize::try_from(request.max_bytes)
        .unwrap_or(0)
        .min(FETCH_BYTES_MAX);
    let mut topics = Vec::with_capacity(request.topics.len());
    let turn = session.turn();
    let all: usize = request.topics.iter().map(|t| t.partitions.len()).sum();
    // Each answer starts with the partition after the previous answer's first, so a full partition cannot
    // starve the others.
    let first = if all == 0 { 0 } else { turn % all };
    let mut answers: BTreeMap<usize, FetchedPartition> = BTreeMap::new();
    let flat: Vec<(String, FetchPartition)> = request
        .topics
        .iter()
        .flat_map(|t| t.partitions.iter().map(|p| (t.name.clone(), p.clone())))
        .collect();
    for i in (first..all).chain(0..first) {
        let Some((topic, asked)) = flat.get(i) else {
            continue;
        };
        let answer = partition(session, topic, asked, &mut left, &mut got).await;
        answers.insert(i, answer);
    }
    let mut answers = answers.into_values();
    for topic in &request.topics {
        topics.push(FetchedTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: answers.by_ref().take(topic.partitions.len()).collect(),
        });
    }
    let answers = topics.iter().flat_map(|t| &t.partitions);
    let response = FetchResponse {
        node_endpoints: leader_hint::endpoints(session, answers.map(|p| &p.current_leader)),
        topics,
        ..FetchResponse::default()
    };
    (response, got)
}

impl FetchedPartition {
    /// Notes the offset range with records.
    fn has(&mut self, start: i64, end: i64) {
        self.log_start_offset = start;
        (self.high_watermark, self.last_stable_offset) = (end, end);
    }
}

async fn partition(
    session: &Session,
    topic: &str,
    asked: &FetchPartition,
    left: &mut usize,
    got: &mut Got,
) -> FetchedPartition {
    let mut answer = FetchedPartition {
        partition: asked.partition,
        ..FetchedPartition::default()
    };
    let fail = |mut answer: FetchedPartition, got: &mut Got, error: Code| {
        got.failed = true;
        answer.error = error;
        if matches!(error, Code::NotLeaderOrFollower | Code::FencedLeaderEpoch) {
            answer.current_leader = LeaderHint::of(session, topic, asked.partition);
        }
        answer
    };
    if topic.is_empty() {
        return fail(answer, got, Code::UnknownTopicId);
    }
    if asked.partition == 0 && consumer_offsets::is(session, topic) {
        if asked.fetch_offset != 0 {
            return fail(answer, got, Code::OffsetOutOfRange);
        }
        answer.has(0, 0);
        return answer;
    }
    let broker = &session.node.broker;
    let epoch = session.check_epoch(topic, asked.partition, asked.current_leader_epoch);
    if epoch != Code::None {
        return fail(answer, got, epoch);
    }
    let id = broker.topic(topic).zip(u32::try_from(asked.partition).ok());
    let id = id.and_then(|(topic, partition)| topic.partition(partition));
    if id.is_some_and(|id| !broker.serves(id)) {
        // This node's view of the partition may be stale.
        return fail(answer, got, Code::NotLeaderOrFollower);
    }
    let Some(marks) = u32::try_from(asked.partition)
        .ok()
        .and_then(|p| broker.marks(topic, p))
    else {
        let exists = broker
            .topic(topic)
            .is_some_and(|t| (asked.partition as usize) < t.partitions.len());
        if !exists || asked.partition < 0 {
            return fail(answer, got, Code::UnknownTopicOrPartition);
        }
        // The partition was never written to.
        if asked.fetch_offset != 0 {
            return fail(answer, got, Code::OffsetOutOfRange);
        }
        answer.has(0, 0);
        return answer;
    };
    let (start, end) = (marks.log_start().get() as i64, marks.committed_end().get() as i64);
    if asked.fetch_offset < start || asked.fetch_offset > end {
        return fail(answer, got, Code::OffsetOutOfRange);
    }
    answer.has(start, end);
    if asked.fetch_offset < end && got.share.is_none() {
        got.share = Some(session.reserve_records().await);
    }
    if got.share == Some(false) {
        // The client retries.
        return answer;
    }
    let mut from = Offset::new(asked.fetch_offset as u64);
    // The first batch of an answer is delivered whole whatever its size (KIP-74); later batches must fit the
    // remaining bytes.
    let max_bytes = usize::try_from(asked.partition_max_bytes).unwrap_or(0).min(*left);
    // Skip the read if the batch would hardly fit.
    if got.bytes > 0 && *left < HARDLY_BYTES {
        return answer;
    }
    while (from.get() as i64) < end && answer.records.0.is_empty() {
        let fetch = Fetch {
            topic: topic.to_owned(),
            partition: asked.partition as u32,
            from,
            max_bytes,
            wait: Duration::ZERO,
        };
        let fetched = match broker.peek(&session.who, fetch).await {
            Ok(fetched) => fetched,
            Err(e) => return fail(answer, got, Code::from(&e)),
        };
        for piece in fetched.pieces {
            // The protocol cannot express a gap: clients continue at the next existing offset.
            if let Piece::Batch(batch) = piece {
                let bytes = batch.bytes().len();
                if got.bytes > 0 && bytes > *left {
                    return answer;
                }
                *left = left.saturating_sub(bytes);
                got.bytes += bytes;
                got.records += u64::from(batch.count());
                answer.records.0.push(batch.into_bytes());
            }
        }
        if fetched.next <= from {
            break;
        }
        from = fetched.next;
    }
    answer
}
