//! The outbox: records of pipelines for partitions of other replica groups, and their delivery.
//!
//! An entry changes a single group. Output for a partition elsewhere is therefore written, in the same entry
//! as all other effects, to a *channel*: a partition of the home group without a topic. There is a channel
//! for each pair of a home group and a destination.
//!
//! The leader of the home group delivers the batches of a channel in order, like an idempotent producer
//! (KIP-98): the channel is the producer, and the offset in the channel is the sequence. The destination
//! accepts a batch if the sequence is the next. Duplicates are detected by the window that is written in the
//! entry of the records. So each batch arrives exactly once, whoever leads and however often it is sent. A
//! batch is sent again in its stored form; recomputing would not do, since a module may have been replaced.
//!
//! A destination may move into the home group while records wait. The channel stays in use until it is empty,
//! which keeps the order.

use crate::core::{Broker, Inner};
use crate::error::{AdminError, ProduceError};
use crate::propose::request::{Append, Framing, Request, Room};
use crate::records::scan::validate;
use crate::rpc::message::{PeerRequest, PeerResponse};
use crate::state::rows::channel::{ChannelKey, ChannelRow};
use crate::state::rows::producer::CHANNELS;
use bytes::Bytes;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_log::{Op, Piece, Stop};
use weir_types::limits::{ENTRY_BYTES_TARGET, PRODUCE_INFLIGHT_BYTES_MAX, PROPOSER_QUEUE_MAX};
use weir_types::{Batch, GapReason, GroupId, Offset, PartitionId, Producer};

/// Delay before a failed delivery is retried.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Interval at which delivered records are trimmed: each trim costs an entry.
const TRIM_EVERY: Duration = Duration::from_secs(1);

/// Delivered bytes that trigger a trim before [`TRIM_EVERY`] has elapsed.
const TRIM_BYTES: u64 = 8 << 20;

/// Longest wait of a delivered batch for a share of the bytes in flight.
pub(crate) const ROOM_WITHIN: Duration = Duration::from_secs(3);

/// Grace period before a failing delivery is logged.
const WARN_AFTER: Duration = Duration::from_secs(30);

/// Interval at which an idle forwarder checks that this node still leads.
const LOOK_EVERY: Duration = Duration::from_secs(10);

impl Broker {
    /// Appends a batch from another group's outbox to the partition with the original id `to`. For the leader
    /// of the partition's group.
    pub(crate) async fn take_forwarded(
        &self,
        to: PartitionId,
        batch: Vec<u8>,
    ) -> Result<PeerResponse, ProduceError> {
        let not_yet = || ProduceError::from(weir_replica::ProposeError::NotLeader { leader: None });
        let (topic, at) = {
            let tables = self.0.applied.tables();
            let at = tables.current(to);
            let owner = tables.partition_owner.get(&at);
            let topic = owner.and_then(|name| tables.topics.get(name)).cloned();
            // The topic is not applied here yet, or deleted; the sender finds out.
            (topic.ok_or_else(not_yet)?, at)
        };
        let replica = self.serving_replica(at)?;
        if !self.serves(at) {
            return Err(not_yet());
        }
        let batch = Batch::parse(Bytes::from(batch))?;
        validate(&batch)?;
        let share = batch
            .bytes()
            .len()
            .max(PRODUCE_INFLIGHT_BYTES_MAX / PROPOSER_QUEUE_MAX);
        // The sender has a timeout, and retries.
        let permit = self.0.ledger.records.take(share, None, ROOM_WITHIN).await;
        let permit = permit.map(Room::Records).map_err(|_| not_yet())?;
        let (reply, answer) = oneshot::channel();
        let append = Append {
            topic,
            partition: at,
            kept: Some(batch),
            framing: Framing::AsSent,
            made: None,
            reply,
            account: None,
            permit,
        };
        if replica.requests.try_send(Request::Append(append)).is_err() {
            return Err(not_yet());
        }
        match answer.await.unwrap_or(Err(ProduceError::Closed)) {
            Ok(_) => Ok(PeerResponse::Forwarded),
            Err(ProduceError::OutOfOrder { expected, .. }) => Ok(PeerResponse::Expected(Some(expected))),
            Err(ProduceError::UnknownProducer(_)) => Ok(PeerResponse::Expected(None)),
            Err(e) => Err(e),
        }
    }

    /// Starts a forwarder for each channel that this node leads, and removes channels without a destination.
    pub(crate) async fn begin_forwarding(&self) {
        let (channels, lost): (Vec<_>, Vec<_>) = {
            let tables = self.0.applied.tables();
            let all = tables.channels.iter().map(|(key, row)| (*key, *row));
            all.partition(|((_, to), _)| tables.partition_owner.contains_key(&tables.current(*to)))
        };
        if !lost.is_empty() && self.is_serving() {
            self.forget_channels(lost).await;
        }
        for (key, row) in channels.into_iter().filter(|(_, row)| self.serves(row.at)) {
            let mut forwarding = self.0.forwarding.lock();
            if forwarding.insert(row.at) {
                tokio::spawn(forward(Arc::downgrade(&self.0), key, row.at));
            }
        }
    }
}

/// Delivers the batches of a channel while this node leads the home group.
pub(crate) async fn forward(inner: Weak<Inner>, key: ChannelKey, at: PartitionId) {
    let mut forwarder = Forwarder {
        key,
        at,
        arrived: Offset::ZERO,
        lost: None,
        trimmed: Instant::now(),
        failing: None,
        last_warning: String::new(),
    };
    loop {
        let Some(broker) = inner.upgrade().map(Broker) else {
            return;
        };
        let row = broker.0.applied.tables().channels.get(&key).copied();
        let Some(row) = row.filter(|row| row.at == at && broker.serves(at)) else {
            let mut forwarding = broker.0.forwarding.lock();
            forwarding.remove(&at);
            return;
        };
        match forwarder.step(&broker, row).await {
            Ok(Next::AtOnce) => forwarder.failing = None,
            Ok(Next::Wait { from, patience }) => {
                forwarder.failing = None;
                let (growth, marks) = (broker.0.applied.growth.of(at), broker.0.log.marks_or_new(at));
                drop(broker);
                let mut grown = std::pin::pin!(growth.notified());
                // Asked for before looking, so that growth in between is not missed.
                grown.as_mut().enable();
                if marks.committed_end() <= from {
                    let _ = tokio::time::timeout(patience, grown).await;
                }
            }
            Err(error) => {
                let why = error.to_string();
                let since = *forwarder.failing.get_or_insert_with(Instant::now);
                let is_told = why == forwarder.last_warning;
                let is_passing = error.kind() == weir_types::ErrorKind::Retry && since.elapsed() < WARN_AFTER;
                if !is_passing && !is_told {
                    tracing::warn!(%at, %why, "cannot deliver outbox records to another group");
                    forwarder.last_warning = why;
                }
                drop(broker);
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// Action after a step.
pub(crate) enum Next {
    AtOnce,
    /// Wait until the channel grows beyond `from`, or `patience` has elapsed.
    Wait {
        from: Offset,
        patience: Duration,
    },
}

struct Forwarder {
    pub(crate) key: ChannelKey,
    pub(crate) at: PartitionId,
    /// End of the records that are known to be delivered.
    pub(crate) arrived: Offset,
    /// Range that no node could read.
    pub(crate) lost: Option<Range<Offset>>,
    /// Time of the last trim.
    pub(crate) trimmed: Instant,
    /// Time since which deliveries fail.
    pub(crate) failing: Option<Instant>,
    pub(crate) last_warning: String,
}

impl Forwarder {
    /// Delivers the next batches.
    pub(crate) async fn step(&mut self, broker: &Broker, row: ChannelRow) -> Result<Next, AdminError> {
        let marks = broker.0.log.marks_or_new(self.at);
        let (start, end) = (marks.log_start(), marks.committed_end());
        // Records before the base were sent under an earlier epoch.
        let from = self.arrived.max(start).max(row.base);
        let since = self.trimmed.elapsed();
        let is_much = marks.bytes() >= TRIM_BYTES && since >= RETRY_AFTER;
        if start < from && (is_much || since >= TRIM_EVERY) {
            self.trim(broker, from).await;
        }
        if from >= end {
            let patience = if start < from { TRIM_EVERY } else { LOOK_EVERY };
            return Ok(Next::Wait { from, patience });
        }
        let read = broker.read_repaired(self.at, from..end, ENTRY_BYTES_TARGET, &marks);
        let read = read.await.map_err(|e| AdminError::Refused(e.to_string()));
        let (chunk, _) = read?;
        for piece in chunk.pieces {
            match piece {
                Piece::Batch(batch) if batch.base_offset() < self.arrived => {}
                Piece::Batch(batch) => {
                    if !self.send(broker, row, batch, (start, end)).await? {
                        break;
                    }
                }
                Piece::Gap(gap) if gap.end <= self.arrived => {}
                // The range may have been delivered long ago: the next batch shows.
                Piece::Gap(gap) => {
                    tracing::warn!(at = %self.at, %gap.start, %gap.end, "an outbox range cannot be read");
                    self.lost = Some(gap.start..gap.end);
                    self.arrived = gap.end;
                }
            }
        }
        Ok(Next::AtOnce)
    }

    /// Delivers a batch. Returns true if the next batch may follow.
    pub(crate) async fn send(
        &mut self,
        broker: &Broker,
        row: ChannelRow,
        batch: Batch,
        (start, end): (Offset, Offset),
    ) -> Result<bool, AdminError> {
        let (home, to) = self.key;
        let (base, behind) = (batch.base_offset(), batch.end_offset());
        let producer = Producer {
            id: CHANNELS + i64::from(home.0),
            epoch: row.epoch,
            sequence: row.sequence(base),
        };
        let group = broker.0.applied.tables().current(to).group();
        let batch = batch.by(producer).bytes().to_vec();
        Stop::Sending.here();
        match broker
            .ask_group(group, PeerRequest::Forward { to, batch })
            .await?
        {
            PeerResponse::Forwarded => {
                Stop::Sent.here();
                self.arrived = behind;
                Ok(true)
            }
            PeerResponse::Expected(expected) => {
                let at = expected.map(|sequence| row.find(sequence, base));
                match at.filter(|at| *at >= start.max(row.base)) {
                    // A new leader has delivered records that this node does not have.
                    Some(at) if at > end => return Err(broker.not_leader().into()),
                    // Skips the lost records, since later records must not wait for ever.
                    Some(at) if self.lost.as_ref().is_some_and(|lost| lost.contains(&at)) => {
                        tracing::error!(%at, behind = %base, "outbox records are lost");
                        self.renew(broker, row, base).await?;
                    }
                    // Delivered by an earlier leader; or accepted by the destination and lost there.
                    Some(at) => self.arrived = at,
                    None => {
                        tracing::warn!(at = %self.at, ?expected, "the destination has forgotten the channel: continuing with a new epoch");
                        self.renew(broker, row, base).await?;
                    }
                }
                Ok(false)
            }
            _ => Err(AdminError::Closed),
        }
    }

    async fn renew(&self, broker: &Broker, row: ChannelRow, base: Offset) -> Result<(), AdminError> {
        let (home, to) = self.key;
        let epoch = row.epoch;
        let ask = PeerRequest::RenewChannel {
            home,
            to,
            epoch,
            base,
        };
        broker.ask_group(GroupId::SITE, ask).await.map(drop)
    }

    /// Trims the delivered records before `to`. A failed trim is retried later.
    pub(crate) async fn trim(&mut self, broker: &Broker, to: Offset) {
        let trim = Op::Trim {
            partition: self.at,
            to,
            reason: GapReason::Expired,
        };
        let (home, _) = self.key;
        Stop::Trimming.here();
        self.trimmed = Instant::now();
        let trimmed = match broker.put_in(home, vec![trim.clone()]).await {
            // A change may use a part of the disk's reserve.
            Err(_) => broker.change_in(home, move |_, _| Ok(vec![trim])).await,
            done => done,
        };
        if let Err(error) = trimmed {
            tracing::debug!(at = %self.at, %error, "cannot trim delivered outbox records yet");
        }
    }
}
