//! Produce (0): appends batches as the client encoded them. Memory: the request itself, held until it is
//! stored.
//!
//! Executed in two steps: [`begin`] hands the batches to the broker in the order of the requests,
//! [`Pending::finish`] waits until they are stored. Requests of a client that pipelines therefore share a
//! sync.

use super::leader_hint::{self, LeaderHint, NodeEndpoint};
use super::{Head, decode, encode};
use crate::error::Code;
use crate::node::Session;
use crate::wire::{Frame, Uuid, WireError, messages};
use bytes::Bytes;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};
use weir_broker::{Framing, ProduceError, Producing};
use weir_types::Batch;
use weir_types::limits::KAFKA_REQUEST_BYTES_MAX;

pub(crate) const KEY: i16 = 0;
pub(crate) const FLEXIBLE: i16 = 9;
/// librdkafka up to 2.10 takes a minimum above 0 for a broker without compression and silently sends
/// uncompressed (KAFKA-18659). As in Kafka 4, versions 0 to 2 are advertised and answered with an error.
pub(crate) const ADVERTISED: RangeInclusive<i16> = 0..=13;
/// First version that names topics by id.
const BY_ID_FROM: i16 = 13;
pub(crate) const SERVED: RangeInclusive<i16> = 3..=13;

messages! {
    ProduceRequest {
        transactional_id: Option<String> [3..],
        acks: i16 [0..],
        timeout_ms: i32 [0..],
        topics: Vec<TopicData> [0..],
    }
    TopicData {
        name: String [0..=12],
        topic_id: Uuid [13..],
        partitions: Vec<PartitionData> [0..],
    }
    PartitionData {
        index: i32 [0..],
        records: Option<Bytes> [0..],
    }
    ProduceResponse {
        topics: Vec<TopicResponse> [0..],
        throttle_time_ms: i32 [1..],
    } + {
        node_endpoints: Vec<NodeEndpoint> [10..] 0,
    }
    TopicResponse {
        name: String [0..=12],
        topic_id: Uuid [13..],
        partitions: Vec<PartitionResponse> [0..],
    }
    PartitionResponse {
        index: i32 [0..],
        error: Code [0..],
        base_offset: i64 [0..] = -1,
        log_append_time_ms: i64 [2..] = -1,
        log_start_offset: i64 [5..] = -1,
        record_errors: Vec<RecordError> [8..],
        error_message: Option<String> [8..],
    } + {
        current_leader: LeaderHint [10..] 0,
    }
    RecordError {
        batch_index: i32 [0..],
        message: Option<String> [0..],
    }
}

/// A request whose batches are with the broker.
pub(crate) struct Pending {
    head: Head,
    acks: i16,
    topics: Vec<PendingTopic>,
    /// Time until which the client's quota delays its requests.
    until: Option<Instant>,
}

struct PendingTopic {
    name: String,
    id: Uuid,
    partitions: Vec<(i32, Taken)>,
}

enum Taken {
    Producing(Producing),
    Refused(Refusal),
}

/// The reason why no record of a batch is stored.
struct Refusal {
    code: Code,
    words: String,
    /// Index of the offending record.
    record: Option<u32>,
}

impl Refusal {
    fn new(code: Code, words: impl Into<String>) -> Self {
        Self {
            code,
            words: words.into(),
            record: None,
        }
    }
}

impl From<&ProduceError> for Refusal {
    fn from(e: &ProduceError) -> Self {
        Self {
            record: e.record(),
            ..Self::new(Code::from(e), e.to_string())
        }
    }
}

/// Hands all batches of a request to the broker.
pub(crate) async fn begin(session: &Session, head: Head, body: Bytes) -> Result<Pending, WireError> {
    let request: ProduceRequest = decode(body, head.version, FLEXIBLE)?;
    let refused = if !SERVED.contains(&head.version) {
        Some((
            Code::UnsupportedForMessageFormat,
            "use record batches: Produce version 3 or later",
        ))
    } else if !(-1..=1).contains(&request.acks) {
        Some((Code::InvalidRequiredAcks, "acks is -1, 0 or 1"))
    } else if request.transactional_id.is_some() {
        // Clients give up at this code instead of retrying.
        Some((
            Code::TransactionalIdAuthorizationFailed,
            "transactions are not supported",
        ))
    } else {
        None
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut until = None;
    for mut topic in request.topics {
        if head.version >= BY_ID_FROM {
            topic.name = session.name_of(topic.topic_id);
        }
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for data in topic.partitions {
            let taken = match refused {
                Some((code, words)) => Taken::Refused(Refusal::new(code, words)),
                None => take(session, &topic.name, data.index, data.records).await,
            };
            if let Taken::Producing(producing) = &taken
                && !producing.throttle().is_zero()
            {
                until = until.max(Some(Instant::now() + producing.throttle()));
            }
            partitions.push((data.index, taken));
        }
        topics.push(PendingTopic {
            name: topic.name,
            id: topic.topic_id,
            partitions,
        });
    }
    Ok(Pending {
        head,
        acks: request.acks,
        topics,
        until,
    })
}

async fn take(session: &Session, topic: &str, index: i32, records: Option<Bytes>) -> Taken {
    let refused = |code, words: &str| Taken::Refused(Refusal::new(code, words));
    if topic.is_empty() {
        return refused(
            Code::UnknownTopicId,
            "unknown topic id; the topic may have been deleted",
        );
    }
    let Some(bytes) = records.filter(|b| !b.is_empty()) else {
        return refused(Code::InvalidRecord, "no records");
    };
    let batch = match Batch::parse(bytes) {
        Ok(batch) => batch,
        Err(e) => return Taken::Refused(Refusal::new(Code::from(&e), e.to_string())),
    };
    if batch.is_log_append_time() {
        return refused(Code::InvalidTimestamp, "only the broker sets log-append time");
    }
    if batch.is_transactional() {
        return refused(Code::InvalidRecord, "transactions are not supported");
    }
    if batch.count() != batch.span() {
        return refused(
            Code::InvalidRecord,
            "a batch of a producer must have a record for each offset",
        );
    }
    let Ok(partition) = u32::try_from(index) else {
        return refused(Code::UnknownTopicOrPartition, "no such partition");
    };
    let batch = batch.led_in(session.leader_epoch(topic, index).max(0));
    let broker = &session.node.broker;
    match broker
        .produce(&session.who, topic, partition, batch, Framing::AsSent)
        .await
    {
        Ok(producing) => Taken::Producing(producing),
        Err(e) => Taken::Refused(Refusal::from(&e)),
    }
}

impl PartitionResponse {
    fn refuse(&mut self, refusal: Refusal) {
        let blamed = refusal.record.map(|index| RecordError {
            batch_index: i32::try_from(index).unwrap_or(i32::MAX),
            message: Some(refusal.words.clone()),
        });
        self.record_errors = blamed.into_iter().collect();
        (self.error, self.error_message) = (refusal.code, Some(refusal.words));
    }
}

impl Pending {
    /// Waits until every batch is stored or refused, and returns the answer; `None` if the client wants none.
    ///
    /// # Errors
    /// The reason for a refusal, if the client wants no answer.
    pub(crate) async fn finish(self, session: &Session) -> Result<Option<Frame>, String> {
        let mut throttle = Duration::ZERO;
        let mut response = ProduceResponse::default();
        for PendingTopic { name, id, partitions } in self.topics {
            let mut answers = Vec::with_capacity(partitions.len());
            for (index, taken) in partitions {
                let mut answer = PartitionResponse {
                    index,
                    ..PartitionResponse::default()
                };
                match taken {
                    Taken::Refused(refusal) => answer.refuse(refusal),
                    Taken::Producing(producing) => {
                        throttle = throttle.max(producing.throttle());
                        let append_time = producing.append_time();
                        match producing.await {
                            Ok(produced) => {
                                answer.base_offset = produced.base.get() as i64;
                                answer.log_append_time_ms = append_time.unwrap_or(-1);
                            }
                            Err(e) => {
                                report(session, &name, index, &e);
                                answer.refuse(Refusal::from(&e));
                            }
                        }
                    }
                }
                // Read after the batches are stored, and also sent with an error: clients use it to detect
                // whether a forgotten producer lost records.
                answer.log_start_offset = session.log_start(&name, index);
                if answer.error == Code::NotLeaderOrFollower {
                    answer.current_leader = LeaderHint::of(session, &name, index);
                }
                answers.push(answer);
            }
            response.topics.push(TopicResponse {
                name,
                topic_id: id,
                partitions: answers,
            });
        }
        let answers = response.topics.iter().flat_map(|t| &t.partitions);
        response.node_endpoints = leader_hint::endpoints(session, answers.map(|p| &p.current_leader));
        response.throttle_time_ms = throttle.as_millis() as i32;
        session.hold_back(self.until);
        if self.acks != 0 {
            return Ok(Some(encode(&response, self.head, FLEXIBLE, KEY)));
        }
        let mut partitions = response.topics.iter_mut().flat_map(|t| &mut t.partitions);
        match partitions.find(|p| p.error != Code::None) {
            Some(refused) => Err(refused.error_message.take().unwrap_or_default()),
            None => Ok(None),
        }
    }
}

/// A request too large to be received: topics by name or id, with their partitions.
pub(crate) struct Refused {
    pub(crate) acks: i16,
    pub(crate) topics: Vec<(String, [u8; 16], Vec<i32>)>,
}

/// Returns the first version that names topics by id.
pub(crate) fn by_id_from() -> i16 {
    BY_ID_FROM
}

impl Refused {
    /// Returns the approximate memory of the queued request, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let of =
            |(name, _, partitions): &(String, [u8; 16], Vec<i32>)| 64 + name.len() + 4 * partitions.len();
        self.topics.iter().map(of).sum()
    }

    /// Builds an answer that refuses each partition; `None` if the client wants no answer.
    pub(crate) fn answer(self, session: &Session, head: Head) -> Option<Frame> {
        let partition = |topic: &str, index: i32| PartitionResponse {
            index,
            log_start_offset: session.log_start(topic, index),
            error: Code::MessageTooLarge,
            error_message: Some(format!(
                "the request exceeds {KAFKA_REQUEST_BYTES_MAX} bytes: send smaller requests"
            )),
            ..PartitionResponse::default()
        };
        let topic = |(name, id, partitions): (String, [u8; 16], Vec<i32>)| {
            let id = Uuid(id);
            let known = match name.is_empty() {
                true => session.name_of(id),
                false => name.clone(),
            };
            TopicResponse {
                partitions: partitions.iter().map(|index| partition(&known, *index)).collect(),
                topic_id: id,
                name,
            }
        };
        let topics = self.topics.into_iter().map(topic);
        let response = ProduceResponse {
            topics: topics.collect(),
            ..ProduceResponse::default()
        };
        (self.acks != 0).then(|| encode(&response, head, FLEXIBLE, KEY))
    }
}

fn report(session: &Session, topic: &str, partition: i32, error: &ProduceError) {
    tracing::debug!(peer = %session.peer, topic, partition, %error, "records refused");
}
