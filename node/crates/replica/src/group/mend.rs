//! Repair of unreadable batches from other members: a bad sector is no loss while there is a copy.

use crate::group::Group;
use crate::types::{Member, NodeId};
use crate::wire::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::io;
use std::time::Duration;
use tokio::time::Instant;
use weir_log::{Chunk, Log, Piece};
use weir_types::limits::SNAPSHOT_CHUNK_BYTES;
use weir_types::planted::{Bug, planted};
use weir_types::{Batch, GapReason, Offset, PartitionId};

/// Pause after a repair that found no copy: readers come back often.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Attempts per silent member: the first may only reveal its restart.
const ATTEMPTS: u32 = 2;

/// Result of a repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mended {
    /// The batches can be read now.
    Whole,
    /// No member has a copy.
    Lost,
    /// Some members could not be asked, and the others have no copy.
    Unknown,
}

impl Group {
    /// Replaces the unreadable batches of `[from, end)` of a partition by other members' copies. One repair
    /// at a time.
    ///
    /// # Cancel safety
    /// Safe: batches replaced so far stay.
    pub fn mend(&self, partition: PartitionId, from: Offset, end: Offset) -> BoxFuture<'_, Mended> {
        Box::pin(async move {
            let others: Vec<(NodeId, Member)> = self
                .members()
                .into_iter()
                .filter(|(id, m)| *id != self.node() && !m.witness)
                .collect();
            if others.is_empty() || self.is_witness() || planted(Bug::NeverMend) {
                return Mended::Lost;
            }
            let mut last_failed_repair = self.last_failed_repair().lock().await;
            if last_failed_repair
                .is_some_and(|(p, o, at)| (p, o) == (partition, from) && at.elapsed() < ASK_AGAIN)
            {
                return Mended::Lost;
            }
            let mut all_answered = true;
            for (node, member) in others {
                let mut at = from;
                while at < end {
                    let Some(batches) = self.ask(node, &member, partition, (at, end)).await else {
                        all_answered = false;
                        break;
                    };
                    if batches.is_empty() {
                        break;
                    }
                    at = batches.last().map_or(end, |b| b.end_offset()).max(at);
                    let bytes = batches.iter().map(|b| b.bytes().len() as u64).sum();
                    if let Err(error) = self.log().room_for(bytes, true) {
                        tracing::warn!(%error, %partition, %from, "a damaged batch cannot be replaced");
                        return Mended::Unknown;
                    }
                    let (done, mended) = tokio::sync::oneshot::channel();
                    let sent = self.log().mend(partition, batches, move |n| drop(done.send(n)));
                    if sent.is_err() || !mended.await.is_ok_and(|mended| mended.is_ok()) {
                        return Mended::Unknown;
                    }
                }
                // Also true when another call repaired the range meanwhile.
                if is_whole(self.log(), partition, from, end).await {
                    return Mended::Whole;
                }
            }
            if !all_answered {
                tracing::warn!(%partition, %from, %end, "not all members can be asked for what cannot be read here");
                return Mended::Unknown;
            }
            *last_failed_repair = Some((partition, from, Instant::now()));
            tracing::error!(%partition, %from, %end, "no other member has what cannot be read here");
            Mended::Lost
        })
    }

    /// Asks a member for the batches of a range; `None` without an answer.
    async fn ask(
        &self,
        node: NodeId,
        member: &Member,
        partition: PartitionId,
        range: (Offset, Offset),
    ) -> Option<Vec<Batch>> {
        for _ in 0..ATTEMPTS {
            match crate::group::client::batches(self, node, member.clone(), partition, range).await {
                Ok(batches) => return Some(batches),
                Err(error) => tracing::debug!(%node, %error, "not told what a member has"),
            }
        }
        None
    }

    /// Returns the committed batches of this node in a range, or the first of them.
    pub(crate) async fn own_batches(
        &self,
        partition: PartitionId,
        from: Offset,
        end: Offset,
    ) -> (Response, Vec<Bytes>) {
        let committed = self.log().marks(partition).map(|m| m.committed_end());
        let end = end.min(committed.unwrap_or_default());
        if from >= end {
            return (Response::Batches(Vec::new()), Vec::new());
        }
        match read(self.log(), partition, from, end).await {
            Ok(chunk) => {
                let batches = chunk.pieces.into_iter().filter_map(|piece| match piece {
                    Piece::Batch(batch) => Some(batch.into_bytes()),
                    Piece::Gap(_) => None,
                });
                let payload: Vec<Bytes> = batches.collect();
                let lengths = payload.iter().map(|b| b.len() as u32).collect();
                (Response::Batches(lengths), payload)
            }
            Err(e) => (Response::Unable(e.to_string()), Vec::new()),
        }
    }
}

async fn read(log: &Log, partition: PartitionId, from: Offset, end: Offset) -> io::Result<Chunk> {
    let (done, answer) = tokio::sync::oneshot::channel();
    let reply = move |r| drop(done.send(r));
    log.read(partition, from, end, SNAPSHOT_CHUNK_BYTES, reply)
        .map_err(io::Error::other)?;
    answer.await.map_err(io::Error::other)?.map_err(io::Error::other)
}

/// Returns true when nothing that another member could have is missing in `[from, end)`.
async fn is_whole(log: &Log, partition: PartitionId, mut from: Offset, end: Offset) -> bool {
    let lost = |piece: &Piece| matches!(piece, Piece::Gap(gap) if gap.reason == GapReason::Lost);
    while from < end {
        match read(log, partition, from, end).await {
            Ok(chunk) if chunk.next > from && !chunk.pieces.iter().any(lost) => from = chunk.next,
            _ => return false,
        }
    }
    true
}
