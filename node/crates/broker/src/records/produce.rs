//! Producing records.

use crate::access::auth::{Operation, Principal, Resource, authorize};
use crate::access::quota::Direction;
use crate::core::Broker;
use crate::error::ProduceError;
use crate::hook::{HookError, HookJob, Processed};
use crate::propose::request::{Append, Framing, PipelineEffects, Produced, Queue, Request, Room, row_op};
use crate::records::admit::ROOM_WITHIN;
use crate::state::rows::producer::CHANNELS;
use crate::state::rows::topic::Topic;
use crate::topic::config::TimestampType;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::TrySendError;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_types::level::LEVEL_OF_AGES;
use weir_types::limits::{PRODUCE_INFLIGHT_BYTES_MAX, PROPOSER_QUEUE_MAX};
use weir_types::{Batch, PartitionId};

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

    async fn submit(
        &self,
        who: &Principal,
        topic: &str,
        partition: u32,
        batch: Batch,
        framing: Framing,
    ) -> Result<Producing, ProduceError> {
        let inner = &self.0;
        let (topic, id) = self.writable(who, topic, partition)?;
        let replica = self.proposing_replica(id)?;
        let bytes = batch.bytes().len();
        let (batch, append_time) = self.prepare(who, &topic, id, batch).await?;
        let throttle = inner
            .quotas
            .charge(Direction::Produce, &who.account, bytes, Instant::now());
        // The floor covers the cost of a small request, and keeps requests below the length of the queue.
        let share = bytes.max(PRODUCE_INFLIGHT_BYTES_MAX / PROPOSER_QUEUE_MAX);
        let permit = inner.ledger.records.take(share, who.address, ROOM_WITHIN).await?;
        let (reply, answer) = oneshot::channel();
        let pending = Pending {
            requests: replica.requests.clone(),
            partition: id,
            framing,
            account: who.address.map(|_| who.account.as_str().into()),
            permit: Room::Records(permit),
            reply,
        };
        match inner.hook.get().filter(|h| h.intercepts(&topic.name)) {
            None => pending.send(topic, batch, None),
            Some(hook) => {
                let job = HookJob {
                    topic,
                    partition,
                    batch,
                };
                hook.submit(job, Box::new(|job, result| pending.processed(job, result)));
            }
        }
        Ok(Producing {
            answer,
            throttle,
            append_time,
        })
    }

    /// Finds a partition that `who` may write to.
    fn writable(
        &self,
        who: &Principal,
        topic: &str,
        partition: u32,
    ) -> Result<(Arc<Topic>, PartitionId), ProduceError> {
        if !authorize(who, Operation::Write, Resource::Topic(topic)) {
            return Err(ProduceError::Denied(topic.to_owned()));
        }
        let Some(topic) = self.0.applied.topic(topic) else {
            // The leader may know the topic.
            return Err(if self.is_serving() {
                ProduceError::NoTopic(topic.to_owned())
            } else {
                self.not_leader().into()
            });
        };
        match topic.partition(partition) {
            Some(id) => Ok((topic, id)),
            None => Err(ProduceError::NoPartition {
                topic: topic.name.to_string(),
                partition,
                partitions: topic.partitions.len() as u32,
            }),
        }
    }

    /// Checks a batch, and corrects the timestamps in its header. Returns the node's time if the topic uses
    /// it for the records.
    async fn prepare(
        &self,
        who: &Principal,
        topic: &Topic,
        id: PartitionId,
        mut batch: Batch,
    ) -> Result<(Batch, Option<i64>), ProduceError> {
        let (bytes, limit) = (batch.bytes().len(), topic.config.max_message_bytes as usize);
        if bytes > limit {
            return Err(ProduceError::TooLarge { bytes, limit });
        }
        self.has_enough_copies(topic, id)?;
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
            let now = self.0.clock.now_ms();
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
            self.check_times(topic, seen)?;
        }
        if let Some((latest, _)) = seen.latest.filter(|(at, _)| *at != batch.max_timestamp()) {
            // Look-ups by time use the header, which must be right whoever wrote it.
            batch = batch.dated(latest);
        }
        Ok((batch, append_time))
    }
}

/// An accepted batch on its way to the proposer.
struct Pending {
    requests: Queue,
    partition: PartitionId,
    framing: Framing,
    account: Option<Arc<str>>,
    permit: Room,
    reply: oneshot::Sender<Result<Produced, ProduceError>>,
}

impl Pending {
    /// Continues with the result of an in-line pipeline.
    fn processed(self, job: HookJob, result: Result<Processed, HookError>) {
        match result {
            Ok(processed) => {
                let effects = PipelineEffects {
                    outputs: processed.outputs,
                    rows: processed.rows.into_iter().map(row_op).collect(),
                    footing: processed.footing,
                };
                self.send(job.topic, processed.kept, Some(Box::new(effects)));
            }
            Err(e) => {
                let _ = self.reply.send(Err(e.into()));
            }
        }
    }

    /// Hands the batch to the proposer, or answers that the node is shutting down.
    fn send(self, topic: Arc<Topic>, kept: Batch, made: Option<Box<PipelineEffects>>) {
        let append = Append {
            topic,
            partition: self.partition,
            kept: Some(kept),
            framing: self.framing,
            made,
            reply: self.reply,
            account: self.account,
            permit: self.permit,
        };
        if let Err(e) = self.requests.try_send(Request::Append(append))
            && let TrySendError::Full(Request::Append(append))
            | TrySendError::Disconnected(Request::Append(append)) = e
        {
            let _ = append.reply.send(Err(ProduceError::Closed));
        }
    }
}

/// An accepted batch; resolves when the batch is committed, or never will be.
pub struct Producing {
    pub(crate) answer: oneshot::Receiver<Result<Produced, ProduceError>>,
    pub(crate) throttle: Duration,
    pub(crate) append_time: Option<i64>,
}

impl Producing {
    /// Returns the node's time in milliseconds, if it has replaced the records' timestamps.
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
