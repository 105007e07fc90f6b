//! Answers, and how each is written to its stream.

use crate::error::{Refused, elsewhere, refusal, wire};
use bytes::Bytes;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use weir_admin::Services;
use weir_broker::{Fetch, FetchError, Fetched, Piece, Principal, ProduceError, Producing, ProposeError};
use weir_peer::protocol::{PieceHead, Reply};
use weir_peer::{PeerError, SendStream, write_frame};
use weir_types::GroupId;

/// Replies of a long job, in their order.
pub(crate) type Replies = mpsc::Receiver<(Reply, Bytes)>;

/// Time for a client to take an answer with records: a minute, and a second more for each such number of
/// bytes, as for Kafka clients.
const SEND_WITHIN: Duration = Duration::from_secs(60);
const SEND_BYTES_PER_S: usize = 16 << 10;

/// An answer: known now, known after its records are committed, or known bit by bit.
pub(crate) enum Answer {
    Now(Reply, Bytes),
    /// Read only when its turn to be written has come: a slow client pins a single answer a stream, not a
    /// queue of answers.
    Fetch(Arc<Services>, GroupId, Principal, Fetch),
    Producing(Arc<Services>, GroupId, Producing),
    Long(Replies),
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self::Now(reply, Bytes::new())
    }
}

impl Answer {
    /// Returns an answer of the admin API.
    pub(crate) fn json(value: &impl Serialize) -> Result<Self, Refused> {
        Ok(Self::Now(Reply::Json, serde_json::to_vec(value)?.into()))
    }

    /// Waits for the answer and writes it.
    pub(crate) async fn write(self, tx: &mut SendStream) -> Result<(), PeerError> {
        match self {
            Self::Now(reply, payload) => write_frame(tx, &reply, &[payload]).await,
            Self::Producing(node, group, producing) => {
                let throttle_ms = millis(producing.throttle());
                let reply = match producing.await {
                    Ok(p) => Reply::Produced {
                        base: p.base,
                        span: p.span,
                        throttle_ms,
                    },
                    // Nothing was wrong with the records: their client sends them again, here or elsewhere.
                    Err(ProduceError::Propose(ProposeError::NotLeader { .. }) | ProduceError::Overtaken) => {
                        elsewhere(&node, group)
                    }
                    Err(e) => refusal(&node, group, wire(e.kind(), &e)),
                };
                write_frame(tx, &reply, &[]).await
            }
            Self::Fetch(node, group, who, fetch) => match node.broker.fetch(&who, fetch).await {
                Ok(fetched) => {
                    throttle(fetched.throttle).await;
                    let share = fetched.share.clone();
                    let (reply, payload) = fetched_reply(fetched);
                    let bytes: usize = payload.iter().map(Bytes::len).sum();
                    let within = SEND_WITHIN + Duration::from_secs((bytes / SEND_BYTES_PER_S) as u64);
                    let sent = tokio::time::timeout(within, write_frame(tx, &reply, &payload)).await;
                    drop(share);
                    sent.unwrap_or(Err(PeerError::Timeout))
                }
                Err(FetchError::NotLeader(_)) => write_frame(tx, &elsewhere(&node, group), &[]).await,
                Err(e) => write_frame(tx, &refusal(&node, group, wire(e.kind(), &e)), &[]).await,
            },
            Self::Long(mut replies) => {
                while let Some((reply, payload)) = replies.recv().await {
                    write_frame(tx, &reply, &[payload]).await?;
                }
                Ok(())
            }
        }
    }
}

/// Returns the head of an answer with records, and its batches.
fn fetched_reply(fetched: Fetched) -> (Reply, Vec<Bytes>) {
    let mut payload = Vec::new();
    let pieces = fetched.pieces.into_iter().map(|piece| match piece {
        Piece::Gap(gap) => PieceHead::Gap(gap),
        Piece::Batch(batch) => {
            let bytes = batch.into_bytes();
            let len = bytes.len() as u32;
            payload.push(bytes);
            PieceHead::Batch(len)
        }
    });
    let reply = Reply::Fetched {
        pieces: pieces.collect(),
        next: fetched.next,
        log_start: fetched.log_start,
        committed_end: fetched.committed_end,
        throttle_ms: millis(fetched.throttle),
    };
    (reply, payload)
}

/// Returns a duration in milliseconds, for the wire.
fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Waits while a client is over its quota.
pub(crate) async fn throttle(by: Duration) {
    if !by.is_zero() {
        tokio::time::sleep(by).await;
    }
}
