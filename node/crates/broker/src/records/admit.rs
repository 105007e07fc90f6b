//! Checks before records are accepted.

use crate::access::auth::Principal;
use crate::core::Broker;
use crate::error::ProduceError;
use crate::records::scan::{Seen, as_usual, validate};
use crate::state::rows::topic::Topic;
use std::time::Duration;
use weir_types::level::{LEVEL_OF_AGES, RELEASED_MS};
use weir_types::limits::{BATCH_INFLATED_BYTES_MAX, INFLATE_FREE_BYTES};
use weir_types::{Batch, BatchError, Codec, PartitionId};

/// Longest wait of records for space on the node: the request timeout of a Kafka client
/// (`request.timeout.ms`).
pub(crate) const ROOM_WITHIN: Duration = Duration::from_secs(30);

impl Broker {
    /// Checks that as many nodes as the topic requires are certain to have an acknowledged record.
    pub(crate) fn has_enough_copies(&self, topic: &Topic, id: PartitionId) -> Result<(), ProduceError> {
        let wanted = topic.config.min_insync;
        // The leader always has the record.
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

    /// Validates the records of a batch. Batches with a high compression ratio first take memory from a
    /// share, and run beside everything else, since consensus needs its few threads.
    pub(crate) async fn look_at(&self, who: &Principal, batch: &Batch) -> Result<Seen, ProduceError> {
        let usual = batch.usual_bytes_max();
        let is_small = batch.codec() == Codec::None || usual <= INFLATE_FREE_BYTES;
        let seen = if is_small {
            as_usual(batch)?
        } else {
            self.apart(who, usual, batch, as_usual).await?
        };
        match seen {
            Some(seen) => Ok(seen),
            None if self.level() < LEVEL_OF_AGES => Err(ProduceError::BeyondFirstRelease),
            None => self.apart(who, BATCH_INFLATED_BYTES_MAX, batch, validate).await,
        }
    }

    /// Runs `look` on a batch that may inflate to `bytes`, on a blocking thread.
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

    /// Checks the timestamps against the topic's bounds, if the node's clock is set.
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
