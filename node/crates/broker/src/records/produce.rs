//! Producing records.

use crate::access::auth::{Operation, Principal, Resource, authorize};
use crate::access::quota::Direction;
use crate::core::Broker;
use crate::error::ProduceError;
use crate::hook::HookJob;
use crate::propose::request::{Append, Framing, PipelineEffects, Produced, Request, Room, row_op};
use crate::records::admit::ROOM_WITHIN;
use crate::state::rows::producer::CHANNELS;
use crate::topic::config::TimestampType;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_types::Batch;
use weir_types::level::LEVEL_OF_AGES;
use weir_types::limits::{PRODUCE_INFLIGHT_BYTES_MAX, PROPOSER_QUEUE_MAX};

impl Broker {
    /// Appends a batch to a partition. Waits for a share of the bytes in flight, and returns a future of the
    /// commit. Batches of a caller for a partition are stored in the order of the calls.
    ///
    /// # Errors
    /// When the batch is refused; then nothing was taken.
    ///
    /// # Cancel safety
    /// Cancel safe until this resolves: nothing was taken. If the returned future is dropped, the batch may
    /// or may not be committed.
    pub async fn produce(
        &self,
        who: &Principal,
        topic: &str,
        partition: u32,
        batch: Batch,
        framing: Framing,
    ) -> Result<Producing, ProduceError> {
        let metrics = &self.0.metrics;
        metrics.produce_requests.fetch_add(1, Ordering::Relaxed);
        let (count, bytes) = (batch.count(), batch.bytes().len());
        let result = self.submit(who, topic, partition, batch, framing).await;
        match &result {
            Ok(_) => {
                metrics.records_in.fetch_add(u64::from(count), Ordering::Relaxed);
                metrics.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Err(_) => {
                metrics.produce_errors.fetch_add(1, Ordering::Relaxed);
            }
        }
        result
    }

    pub(crate) async fn submit(
        &self,
        who: &Principal,
        topic: &str,
        partition: u32,
        mut batch: Batch,
        framing: Framing,
    ) -> Result<Producing, ProduceError> {
        let inner = &self.0;
        if !authorize(who, Operation::Write, Resource::Topic(topic)) {
            return Err(ProduceError::Denied(topic.to_owned()));
        }
        let Some(topic) = inner.applied.topic(topic) else {
            // The leader may know the topic.
            return Err(match self.is_serving() {
                true => ProduceError::NoTopic(topic.to_owned()),
                false => self.not_leader().into(),
            });
        };
        let Some(id) = topic.partition(partition) else {
            let partitions = topic.partitions.len() as u32;
            return Err(ProduceError::NoPartition {
                topic: topic.name.to_string(),
                partition,
                partitions,
            });
        };
        let replica = self.proposing_replica(id)?;
        let (bytes, limit) = (batch.bytes().len(), topic.config.max_message_bytes as usize);
        if bytes > limit {
            return Err(ProduceError::TooLarge { bytes, limit });
        }
        self.has_enough_copies(&topic, id)?;
        if let Some(producer) = batch.producer().filter(|p| p.id >= CHANNELS) {
            // Never allocated: the id would be taken for a channel.
            return Err(ProduceError::UnknownProducer(producer.id));
        }
        if let Some(producer) = batch.producer().filter(|_| who.address.is_some())
            && !self.has_given_out(producer.id).await
        {
            return Err(ProduceError::UnknownProducer(producer.id));
        }
        let mut append_time = None;
        if topic.config.timestamp_type == TimestampType::LogAppendTime {
            let now = inner.clock.now_ms();
            append_time = Some(now);
            batch = batch.stamped(now);
        }
        let seen = self.look_at(who, &batch).await?;
        if self.level() < LEVEL_OF_AGES && seen.is_beyond_first_release() {
            return Err(ProduceError::BeyondFirstRelease);
        }
        if let Some(record) = seen.keyless.filter(|_| topic.config.cleanup.is_by_key()) {
            let topic = topic.name.to_string();
            return Err(ProduceError::Keyless { topic, record });
        }
        if append_time.is_none() {
            self.check_times(&topic, seen)?;
        }
        if let Some((latest, _)) = seen.latest.filter(|(at, _)| *at != batch.max_timestamp()) {
            // Look-ups by time use the header, which must be right whoever wrote it.
            batch = batch.dated(latest);
        }
        let throttle = inner
            .quotas
            .charge(Direction::Produce, &who.account, bytes, Instant::now());
        // The floor covers the cost of a small request, and keeps requests below the length of the queue.
        let share = bytes.max(PRODUCE_INFLIGHT_BYTES_MAX / PROPOSER_QUEUE_MAX);
        let permit = inner.ledger.records.take(share, who.address, ROOM_WITHIN).await?;
        let permit = Room::Records(permit);
        let (reply, answer) = oneshot::channel();
        let account: Option<Arc<str>> = who.address.map(|_| who.account.as_str().into());
        let requests = replica.requests.clone();
        let send = move |append: Append| {
            if let Err(e) = requests.try_send(Request::Append(append))
                && let std::sync::mpsc::TrySendError::Full(Request::Append(append))
                | std::sync::mpsc::TrySendError::Disconnected(Request::Append(append)) = e
            {
                let _ = append.reply.send(Err(ProduceError::Closed));
            }
        };
        match inner.hook.get().filter(|h| h.intercepts(&topic.name)) {
            None => send(Append {
                topic,
                partition: id,
                kept: Some(batch),
                framing,
                made: None,
                reply,
                account,
                permit,
            }),
            Some(hook) => {
                let job = HookJob {
                    topic,
                    partition,
                    batch,
                };
                hook.submit(
                    job,
                    Box::new(move |job, result| match result {
                        Ok(p) => {
                            send(Append {
                                topic: job.topic,
                                partition: id,
                                kept: Some(p.kept),
                                framing,
                                made: Some(Box::new(PipelineEffects {
                                    outputs: p.outputs,
                                    rows: p.rows.into_iter().map(row_op).collect(),
                                    footing: p.footing,
                                })),
                                reply,
                                account,
                                permit,
                            });
                        }
                        Err(e) => {
                            let _ = reply.send(Err(e.into()));
                        }
                    }),
                );
            }
        }
        Ok(Producing {
            answer,
            throttle,
            append_time,
        })
    }
}

/// An accepted batch; resolves when the batch is committed, or never will be.
pub struct Producing {
    pub(crate) answer: oneshot::Receiver<Result<Produced, ProduceError>>,
    pub(crate) throttle: Duration,
    pub(crate) append_time: Option<i64>,
}

impl Producing {
    /// The time, in milliseconds, that the records got from the node instead of their own.
    pub fn append_time(&self) -> Option<i64> {
        self.append_time
    }

    /// Returns the delay of the client's next request, by its quota.
    pub fn throttle(&self) -> Duration {
        self.throttle
    }
}

impl Future for Producing {
    type Output = Result<Produced, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer)
            .poll(cx)
            .map(|r| r.unwrap_or(Err(ProduceError::Closed)))
    }
}
