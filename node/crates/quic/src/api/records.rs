//! Records: produce, fetch, offsets, producer ids.

use crate::answer::Answer;
use crate::error::{Refused, elsewhere};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use weir_admin::Services;
use weir_broker::{At, Fetch, FetchError, Fetched, Framing, Piece, Principal, ProduceError, ProposeError};
use weir_peer::protocol::{PieceHead, Place, Reply};
use weir_types::{Batch, GroupId, Offset};

/// Hands a batch to the broker. Its answer waits for the commit.
pub(crate) async fn produce(
    node: &Arc<Services>,
    who: &Principal,
    group: GroupId,
    (topic, partition): (&str, u32),
    payload: Bytes,
) -> Result<Answer, Refused> {
    let batch = Batch::parse(payload)?;
    let producing = node
        .broker
        .produce(who, topic, partition, batch, Framing::Merge)
        .await;
    let producing = match producing {
        Err(ProduceError::Propose(ProposeError::NotLeader { .. })) => {
            return Ok(elsewhere(node, group).into());
        }
        producing => producing?,
    };
    throttle(producing.throttle()).await;
    Ok(Answer::Producing(Arc::clone(node), group, producing))
}

/// Returns an answer that reads when its turn has come.
pub(crate) fn fetch(
    node: &Arc<Services>,
    who: &Principal,
    group: GroupId,
    (topic, partition): (String, u32),
    from: Offset,
    max_bytes: u32,
    wait_ms: u32,
) -> Answer {
    let fetch = Fetch {
        topic,
        partition,
        from,
        max_bytes: max_bytes as usize,
        wait: Duration::from_millis(u64::from(wait_ms)),
    };
    Answer::Fetch(Arc::clone(node), group, who.clone(), fetch)
}

/// Finds the offset of a place in a partition.
pub(crate) async fn offset_at(
    node: &Services,
    who: &Principal,
    group: GroupId,
    (topic, partition): (&str, u32),
    place: Place,
) -> Result<Answer, Refused> {
    let at = match place {
        Place::Start => At::Start,
        Place::End => At::End,
        Place::Time(timestamp) => At::Time(timestamp),
    };
    let reply = match node.broker.offset_at(who, topic, partition, at).await {
        Err(FetchError::NotLeader(_)) => elsewhere(node, group),
        offset => Reply::Offset(Some(offset?)),
    };
    Ok(reply.into())
}

/// Gives out a producer id.
pub(crate) async fn init_producer(node: &Services, who: &Principal) -> Result<Answer, Refused> {
    Ok(Reply::Producer(node.broker.init_producer(who).await?).into())
}

/// Returns the head of an answer with records, and its batches.
pub(crate) fn fetched_reply(fetched: Fetched) -> (Reply, Vec<Bytes>) {
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

/// Returns a duration in milliseconds, as the wire has it.
pub(crate) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Waits while a client is over its quota.
pub(crate) async fn throttle(by: Duration) {
    if !by.is_zero() {
        tokio::time::sleep(by).await;
    }
}
