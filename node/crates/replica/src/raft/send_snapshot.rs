//! Sending a snapshot to a member.

use crate::raft::store::Store;
use crate::raft::stream::timed_out;
use crate::transport::Channel;
use crate::types::StoredVote;
use crate::wire::{SnapshotAnswer, SnapshotPart, decode, encode};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use weir_log::{Log, LogSnapshot, ReadError};
use weir_types::limits::SNAPSHOT_CHUNK_BYTES;
use weir_types::{Offset, PartitionId};

/// Longest time of a part of a snapshot: the receiver syncs about a megabyte.
pub(super) const SNAPSHOT_PART: Duration = Duration::from_secs(30);

/// Longest time of the installation: a single write of all rows.
pub(super) const SNAPSHOT_INSTALL: Duration = Duration::from_secs(300);

/// Sends the parts of `taken` that the follower lacks. Returns its vote once the snapshot is installed.
pub(super) async fn send_snapshot(
    store: &Store,
    mut channel: Channel,
    begin: SnapshotPart,
    taken: Arc<LogSnapshot>,
    to_witness: bool,
) -> io::Result<StoredVote> {
    let wants = match exchange(&mut channel, &begin, Vec::new(), SNAPSHOT_PART).await? {
        SnapshotAnswer::Wants(wants) => wants,
        SnapshotAnswer::Done(vote) => return Ok(vote),
        other => return Err(unexpected(&other)),
    };
    if !to_witness {
        send_batches(store, &mut channel, &taken, wants).await?;
    }
    let log = store.log();
    let mut after: Option<weir_log::StateKey> = None;
    loop {
        let (snapshot, from) = (Arc::clone(&taken), after.take());
        let rows = blocking(log, move || snapshot.state(from.as_ref(), SNAPSHOT_CHUNK_BYTES)).await?;
        let Some((last, _)) = rows.last() else { break };
        after = Some(last.clone());
        let rows = rows
            .iter()
            .map(|(key, value)| (key.as_bytes().to_vec(), value.to_vec()));
        let part = SnapshotPart::State(rows.collect());
        expect_next(exchange(&mut channel, &part, Vec::new(), SNAPSHOT_PART).await?)?;
    }
    match exchange(&mut channel, &SnapshotPart::End, Vec::new(), SNAPSHOT_INSTALL).await? {
        SnapshotAnswer::Done(vote) => Ok(vote),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn send_batches(
    store: &Store,
    channel: &mut Channel,
    taken: &Arc<LogSnapshot>,
    wants: BTreeMap<PartitionId, Offset>,
) -> io::Result<()> {
    let log = store.log();
    let snapshot = Arc::clone(taken);
    let partitions = blocking(log, move || snapshot.partitions()).await?;
    for (partition, position) in partitions {
        let has = wants.get(&partition).copied().unwrap_or_default();
        let mut from = has.max(position.log_start);
        if has <= position.log_start {
            // The batch at the start may begin before the start.
            let snapshot = Arc::clone(taken);
            from = blocking(log, move || snapshot.batch_base(partition, position.log_start)).await?;
        }
        while from < position.committed_end {
            let (snapshot, end) = (Arc::clone(taken), position.committed_end);
            let read = blocking(log, move || {
                snapshot.batches(partition, from, end, SNAPSHOT_CHUNK_BYTES)
            });
            let (batches, next) = match read.await {
                Ok(read) => read,
                // This snapshot keeps showing the removed batch; the next snapshot shows the present state.
                Err(e) => {
                    if let Some(e) = e.get_ref().and_then(|e| e.downcast_ref::<ReadError>()) {
                        store.mended(e).await;
                    }
                    return Err(e);
                }
            };
            if !batches.is_empty() {
                let payload: Vec<Bytes> = batches.into_iter().map(weir_types::Batch::into_bytes).collect();
                let lengths = payload.iter().map(|b| b.len() as u32).collect();
                let part = SnapshotPart::Batches { partition, lengths };
                expect_next(exchange(channel, &part, payload, SNAPSHOT_PART).await?)?;
            }
            from = next;
        }
    }
    Ok(())
}

/// Runs a blocking read of a snapshot on a thread of the log's readers.
pub(super) async fn blocking<T: Send + 'static>(
    log: &Log,
    read: impl FnOnce() -> Result<T, weir_log::ReadError> + Send + 'static,
) -> io::Result<T> {
    let (done, answer) = oneshot::channel();
    log.apart(move || drop(done.send(read())))
        .map_err(io::Error::other)?;
    answer.await.map_err(io::Error::other)?.map_err(io::Error::other)
}

pub(super) async fn exchange(
    channel: &mut Channel,
    part: &SnapshotPart,
    payload: Vec<Bytes>,
    within: Duration,
) -> io::Result<SnapshotAnswer> {
    let asked = async {
        channel.tx.send(encode(part, payload)?).await?;
        let answer = channel.rx.recv().await?;
        let answer = answer.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        Ok(decode::<SnapshotAnswer>(answer)?.0)
    };
    tokio::time::timeout(within, asked)
        .await
        .unwrap_or_else(|_| Err(timed_out()))
}

pub(super) fn expect_next(answer: SnapshotAnswer) -> io::Result<()> {
    match answer {
        SnapshotAnswer::Next => Ok(()),
        other => Err(unexpected(&other)),
    }
}

pub(super) fn unexpected(answer: &SnapshotAnswer) -> io::Error {
    match answer {
        SnapshotAnswer::Unable(why) => io::Error::other(why.clone()),
        other => io::Error::other(format!("unexpected answer {other:?}")),
    }
}
