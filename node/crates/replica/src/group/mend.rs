//! Batches that cannot be read here, from members that have them: a bad sector is no loss while there is a copy.

use crate::group::Group;
use crate::types::{Member, NodeId};
use crate::wire::Response;
use bytes::Bytes;
use std::io;
use std::time::Duration;
use tokio::time::Instant;
use weir_log::{Chunk, Log, Piece};
use weir_types::limits::SNAPSHOT_CHUNK_BYTES;
use weir_types::planted::{Bug, planted};
use weir_types::{Batch, GapReason, Offset, PartitionId};

/// Where nobody had what was missing, nobody is asked again for so long: readers come back often.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// How often a member is asked that does not answer: the first time may only tell that it was started anew.
const ATTEMPTS: u32 = 2;

/// What became of a batch that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mended {
    /// It can be read now.
    Whole,
    /// No member has it.
    Lost,
    /// Not every member could be asked, and those that were do not have it.
    Unknown,
}

impl Group {
    /// Replaces what cannot be read of `[from, end)` of a partition by what other members have. One at a time.
    ///
    /// # Cancel safety
    /// Safe: what is replaced is replaced.
    pub async fn mend(&self, partition: PartitionId, from: Offset, end: Offset) -> Mended {
        let others: Vec<(NodeId, Member)> = self
            .members()
            .into_iter()
            .filter(|(id, m)| *id != self.node() && !m.witness)
            .collect();
        if others.is_empty() || self.is_witness() || planted(Bug::NeverMend) {
            return Mended::Lost;
        }
        let mut in_vain = self.in_vain().lock().await;
        if in_vain.is_some_and(|(p, o, at)| (p, o) == (partition, from) && at.elapsed() < ASK_AGAIN) {
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
            // Also when another was asked for the same meanwhile.
            if is_whole(self.log(), partition, from, end).await {
                return Mended::Whole;
            }
        }
        if !all_answered {
            tracing::warn!(%partition, %from, %end, "not all members can be asked for what cannot be read here");
            return Mended::Unknown;
        }
        *in_vain = Some((partition, from, Instant::now()));
        tracing::error!(%partition, %from, %end, "no other member has what cannot be read here");
        Mended::Lost
    }

    /// What a member has of a range; nothing where it does not say.
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

    /// What this node has of a partition in a range, as far as it is committed: the first of it.
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

/// Whether nothing is missing of `[from, end)` that others could have.
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
