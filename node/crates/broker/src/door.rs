//! The checks before records are taken: whether they are whole, and fit their topic.

use crate::access::auth::Principal;
use crate::broker::{Broker, ROOM_WITHIN};
use crate::error::ProduceError;
use crate::state::rows::topic::Topic;
use weir_types::level::{LEVEL_OF_AGES, RELEASED_MS};
use weir_types::limits::{BATCH_INFLATED_BYTES_MAX, INFLATE_FREE_BYTES};
use weir_types::{Batch, BatchError, Body, Codec, GroupId, PartitionId};

impl Broker {
    /// Whether as many nodes as the topic asks for surely have a record of this partition when it is acknowledged.
    pub(crate) fn has_enough_copies(&self, topic: &Topic, id: PartitionId) -> Result<(), ProduceError> {
        let wanted = topic.config.min_insync;
        // One always has.
        if wanted <= 1 {
            return Ok(());
        }
        match self.copies_of(id.group()) {
            copies if copies < wanted => Err(ProduceError::FewCopies {
                topic: topic.name.to_string(),
                wanted,
                copies,
            }),
            _ => Ok(()),
        }
    }

    /// Nodes that surely have a record of `group` when it is acknowledged: more than half of those that vote, less those of them that
    /// keep no records.
    pub(crate) fn copies_of(&self, group: GroupId) -> u32 {
        let Some(group) = self.group_of(group) else {
            let (replicas, _) = self.replicas_of(group);
            return replicas.len() as u32 / 2 + 1;
        };
        let (voters, members) = (group.voters(), group.members());
        let witnesses = voters
            .iter()
            .filter(|id| members.get(id).is_some_and(|m| m.witness))
            .count();
        let copies = (voters.len() / 2 + 1).saturating_sub(witnesses);
        (copies as u32).max(1)
    }

    /// Walks the records of a batch. What may become much takes room for that first, and is looked at beside everything else: the threads
    /// that consensus needs are few.
    pub(crate) async fn look_at(&self, who: &Principal, batch: &Batch) -> Result<Seen, ProduceError> {
        let usual = batch.usual_bytes_max();
        let is_small = batch.codec() == Codec::None || usual <= INFLATE_FREE_BYTES;
        let seen = match is_small {
            true => as_usual(batch)?,
            false => self.apart(who, usual, batch, as_usual).await?,
        };
        match seen {
            Some(seen) => Ok(seen),
            None if self.level() < LEVEL_OF_AGES => Err(ProduceError::BeyondFirstRelease),
            None => self.apart(who, BATCH_INFLATED_BYTES_MAX, batch, validate).await,
        }
    }

    /// Has `look` at a batch that may become so many `bytes`, on a thread that nothing else waits for.
    #[expect(
        clippy::disallowed_methods,
        reason = "it reads and writes nothing, and as many do it as the ledger has room for"
    )]
    pub(crate) async fn apart<T: Send + 'static>(
        &self,
        who: &Principal,
        bytes: usize,
        batch: &Batch,
        look: fn(&Batch) -> Result<T, BatchError>,
    ) -> Result<T, ProduceError> {
        let unpacked = &self.0.ledger.unpacked;
        let room = unpacked.take(bytes, who.address, ROOM_WITHIN).await?;
        let batch = batch.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let _room = room;
            look(&batch)
        });
        Ok(looked.await.map_err(|_| ProduceError::Closed)??)
    }

    /// Whether the records are dated within what the topic allows, by a clock that is set.
    pub(crate) fn check_times(&self, topic: &Topic, seen: Seen) -> Result<(), ProduceError> {
        let now = self.0.clock.now_ms();
        if now < RELEASED_MS {
            return Ok(());
        }
        let (before, after) = (
            topic.config.timestamp_before_max_ms,
            topic.config.timestamp_after_max_ms,
        );
        let early = seen
            .earliest
            .filter(|(at, _)| *at < now.saturating_sub_unsigned(before));
        let late = seen
            .latest
            .filter(|(at, _)| *at > now.saturating_add_unsigned(after));
        let dated = |((timestamp, record), limit, setting)| ProduceError::Dated {
            record,
            timestamp,
            now,
            limit,
            setting,
        };
        let early = early.map(|at| (at, before, "message.timestamp.before.max.ms"));
        let late = late.map(|at| (at, after, "message.timestamp.after.max.ms"));
        late.or(early).map(dated).map_or(Ok(()), Err)
    }
}

/// The finding of a walk over the records of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// The first and the last time, in milliseconds, of those that have one, and which record has it.
    pub(crate) earliest: Option<(i64, u32)>,
    pub(crate) latest: Option<(i64, u32)>,
    /// The first record without a key.
    pub(crate) keyless: Option<u32>,
    pub(crate) longest_key: usize,
    pub(crate) most_headers: usize,
}

impl Seen {
    /// Whether nodes of the first release would take the batch for damaged.
    pub(crate) fn is_beyond_first_release(&self) -> bool {
        self.longest_key > FIRST_KEY_BYTES_MAX || self.most_headers > FIRST_HEADERS_MAX
    }
}

/// Longest key, and most headers of a record, that nodes of the first release read.
const FIRST_KEY_BYTES_MAX: usize = 32 << 10;

const FIRST_HEADERS_MAX: usize = 1_000;

/// Walks the records once, at the door: nothing malformed is stored, and nobody after this has to think of it.
pub(crate) fn validate(batch: &Batch) -> Result<Seen, BatchError> {
    walk(&batch.body()?)
}

/// As [`validate`], of a batch that becomes no more than is usual; nothing of another.
fn as_usual(batch: &Batch) -> Result<Option<Seen>, BatchError> {
    batch.usual_body()?.map(|body| walk(&body)).transpose()
}

fn walk(body: &Body) -> Result<Seen, BatchError> {
    let mut seen = Seen::default();
    for (index, record) in (0..).zip(body.records()) {
        let record = record?;
        let at = record.timestamp;
        if at >= 0 && seen.earliest.is_none_or(|(earliest, _)| at < earliest) {
            seen.earliest = Some((at, index));
        }
        if seen.latest.is_none_or(|(latest, _)| at > latest) {
            seen.latest = Some((at, index));
        }
        match record.key {
            None => {
                seen.keyless.get_or_insert(index);
            }
            Some(key) => seen.longest_key = seen.longest_key.max(key.len()),
        }
        seen.most_headers = seen.most_headers.max(record.headers.len());
    }
    Ok(seen)
}
