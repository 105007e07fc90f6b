//! Records that a pipeline makes for partitions of other replica groups: the home group's outbox, and how it gets empty.
//!
//! An entry changes one group alone. So what is made for a partition of another group goes, in the entry that holds all else
//! that was made, to a *channel*: a partition of the home group that belongs to no topic, one for each pair of a home group
//! and a partition elsewhere. The node that leads the home group sends a channel's batches on, one after the other and in
//! order, as an idempotent producer would (KIP-98): the channel is the producer, an offset in it the sequence. The partition's
//! group takes a batch if it is the next and knows again what it has, with the window in the entry of the records themselves;
//! so each arrives once, whoever leads where, and however often it is sent. A batch is sent again as it was stored: computing
//! it anew would not do, since a module may have been swapped in between.
//!
//! A partition may move into the home group while records for it wait. Then the channel is used until it is empty, so that
//! those that come later stay behind those that came before.

use crate::core::{Broker, Inner};
use crate::error::{AdminError, ProduceError};
use crate::propose::request::{Append, Framing, Request, Room};
use crate::records::read::{new_gap, unknown};
use crate::records::scan::validate;
use crate::rpc::message::{PeerRequest, PeerResponse};
use crate::state::rows::channel::{ChannelKey, ChannelRow};
use crate::state::rows::producer::CHANNELS;
use bytes::Bytes;
use std::ops::Range;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_log::{Op, Piece, Stop};
use weir_replica::Mended;
use weir_types::limits::{ENTRY_BYTES_TARGET, PRODUCE_INFLIGHT_BYTES_MAX, PROPOSER_QUEUE_MAX};
use weir_types::{Batch, GapReason, GroupId, Offset, PartitionId, Producer};

/// How long a channel that cannot be emptied now waits.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What has arrived is removed so often: each time costs an entry.
const TRIM_EVERY: Duration = Duration::from_secs(1);

/// Or when it is so much.
const TRIM_BYTES: u64 = 8 << 20;

/// For so long a batch of another group's outbox waits for its share of the bytes in flight.
pub(crate) const ROOM_WITHIN: Duration = Duration::from_secs(3);

/// For so long it is nothing to tell anybody of that a partition's leader is away.
const WARN_AFTER: Duration = Duration::from_secs(30);

/// How soon a node that does not lead any more stops looking after a channel to which nothing comes.
const LOOK_EVERY: Duration = Duration::from_secs(10);

impl Broker {
    /// Takes a batch that another group's outbox has for the partition that was made as `to`. Of the leader of its group.
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
            // Nobody sends to what is gone: it is not known here yet, or any more.
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
        // Whoever asks does not wait for ever, and asks again.
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

    /// Begins to empty channels of groups that this node leads and that are not being emptied yet, and has those forgotten
    /// that lead nowhere any more.
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
            let mut forwarding = self.0.forwarding.lock().unwrap_or_else(PoisonError::into_inner);
            if forwarding.insert(row.at) {
                tokio::spawn(forward(Arc::downgrade(&self.0), key, row.at));
            }
        }
    }
}

/// Empties a channel for as long as this node leads its group.
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
            let mut forwarding = broker.0.forwarding.lock().unwrap_or_else(PoisonError::into_inner);
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
                    tracing::warn!(%at, %why, "what waits for a partition of another group cannot be sent on");
                    forwarder.last_warning = why;
                }
                drop(broker);
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// What comes after a step.
pub(crate) enum Next {
    AtOnce,
    /// Nothing, until something comes behind `from` or so much time is over.
    Wait {
        from: Offset,
        patience: Duration,
    },
}

struct Forwarder {
    pub(crate) key: ChannelKey,
    pub(crate) at: PartitionId,
    /// All before it is known to have arrived.
    pub(crate) arrived: Offset,
    /// What no node has, as this one found when it read.
    pub(crate) lost: Option<Range<Offset>>,
    /// When that was last removed.
    pub(crate) trimmed: Instant,
    /// Since when nothing gets through.
    pub(crate) failing: Option<Instant>,
    pub(crate) last_warning: String,
}

impl Forwarder {
    /// Sends on what is next.
    pub(crate) async fn step(&mut self, broker: &Broker, row: ChannelRow) -> Result<Next, AdminError> {
        let marks = broker.0.log.marks_or_new(self.at);
        let (start, end) = (marks.log_start(), marks.committed_end());
        // What is before its base was sent under another epoch.
        let from = self.arrived.max(start).max(row.base);
        let since = self.trimmed.elapsed();
        let is_much = marks.bytes() >= TRIM_BYTES && since >= RETRY_AFTER;
        if start < from && (is_much || since >= TRIM_EVERY) {
            self.trim(broker, from).await;
        }
        if from >= end {
            let patience = match start < from {
                true => TRIM_EVERY,
                false => LOOK_EVERY,
            };
            return Ok(Next::Wait { from, patience });
        }
        let unread = |e: weir_log::ReadError| AdminError::Refused(e.to_string());
        let mut chunk = broker
            .read(self.at, from, end, ENTRY_BYTES_TARGET)
            .await
            .map_err(unread)?;
        while let Some(gap) = new_gap(&chunk, &marks) {
            match broker.mend(self.at, gap).await {
                Mended::Whole => {}
                Mended::Lost => break,
                Mended::Unknown => return Err(unread(unknown(gap))),
            }
            chunk = broker
                .read(self.at, from, end, ENTRY_BYTES_TARGET)
                .await
                .map_err(unread)?;
            if new_gap(&chunk, &marks) == Some(gap) {
                break;
            }
        }
        for piece in chunk.pieces {
            match piece {
                Piece::Batch(batch) if batch.base_offset() < self.arrived => {}
                Piece::Batch(batch) => {
                    if !self.send(broker, row, batch, (start, end)).await? {
                        break;
                    }
                }
                Piece::Gap(gap) if gap.end <= self.arrived => {}
                // No node has it. It may have arrived long ago: what is sent next tells.
                Piece::Gap(gap) => {
                    tracing::warn!(at = %self.at, %gap.start, %gap.end, "a piece of an outbox cannot be read");
                    self.lost = Some(gap.start..gap.end);
                    self.arrived = gap.end;
                }
            }
        }
        Ok(Next::AtOnce)
    }

    /// Sends a batch; whether the next may follow it.
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
                    // Another leads by now, and has sent what this node does not know of.
                    Some(at) if at > end => return Err(broker.not_leader().into()),
                    // What is behind it must not wait for ever.
                    Some(at) if self.lost.as_ref().is_some_and(|lost| lost.contains(&at)) => {
                        tracing::error!(%at, behind = %base, "records on their way to another group are lost");
                        self.renew(broker, row, base).await?;
                    }
                    // Sent by a leader before this one; or, of what is still here, taken and lost.
                    Some(at) => self.arrived = at,
                    None => {
                        tracing::warn!(at = %self.at, ?expected, "a partition knows nothing of what it was sent: sending on from here");
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

    /// Removes what is before `to`: it has arrived. What cannot be removed is tried again when it would be next.
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
            // As a change it may use some of the disk's reserve.
            Err(_) => broker.change_in(home, move |_, _| Ok(vec![trim])).await,
            done => done,
        };
        if let Err(error) = trimmed {
            tracing::debug!(at = %self.at, %error, "what has arrived is not removed yet");
        }
    }
}
