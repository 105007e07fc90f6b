//! Records: produce, fetch, offsets, producer ids.

use crate::answer::{Answer, throttle};
use crate::error::{Refused, elsewhere};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use weir_admin::Services;
use weir_broker::{At, Fetch, FetchError, Framing, Principal, ProduceError, ProposeError};
use weir_peer::protocol::{Place, Reply};
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
