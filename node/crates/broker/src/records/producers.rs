//! Idempotent producers: allocated ids, and the state of each producer.

use crate::core::Broker;
use crate::error::AdminError;
use crate::state::rows::Row;
use crate::state::rows::counter::{Counter, CounterName};
use std::time::Duration;
use tokio::sync::oneshot;

/// Longest wait of a follower for a recent allocation: several heartbeats.
const GIVEN_OUT_WITHIN: Duration = Duration::from_secs(1);

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Producer ids reserved by an entry; unused ids are lost at a restart, which does no harm.
const PRODUCER_IDS: u64 = 1_000;

/// A producer that a partition remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownProducer {
    /// Producer id.
    pub id: i64,
    /// Producer epoch.
    pub epoch: i16,
    /// Sequence of the last record; -1 for none.
    pub last_sequence: i32,
    /// Time of the last batch in milliseconds since 1970.
    pub last_ms: i64,
}

impl Broker {
    /// Reserves a range of producer ids.
    pub(crate) async fn reserve_producer_ids(&self) -> Result<std::ops::Range<u64>, AdminError> {
        let (sent, reserved) = oneshot::channel();
        self.change(move |tables, _| {
            let next = tables
                .counters
                .get(&CounterName::NextProducer)
                .copied()
                .unwrap_or(1);
            let _ = sent.send(next..next + PRODUCER_IDS);
            Ok(vec![Counter(next + PRODUCER_IDS).put(&CounterName::NextProducer)])
        })
        .await?;
        reserved.await.map_err(|_| AdminError::Closed)
    }

    /// Returns true if this producer id was allocated. Waits for a recent allocation that may not have
    /// reached this node yet.
    pub(crate) async fn has_given_out(&self, id: i64) -> bool {
        let is_known = || {
            let next = self
                .0
                .applied
                .tables()
                .counters
                .get(&CounterName::NextProducer)
                .copied();
            u64::try_from(id).is_ok_and(|id| id < next.unwrap_or(1) && id > 0)
        };
        let until = tokio::time::Instant::now() + GIVEN_OUT_WITHIN;
        while !is_known() {
            if self.is_serving() || tokio::time::Instant::now() >= until {
                return is_known();
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        true
    }

    /// Returns the idempotent producers of a partition; `None` for an unknown partition.
    pub fn producers(&self, topic: &str, partition: u32) -> Option<Vec<KnownProducer>> {
        let tables = self.0.applied.tables();
        let id = tables.topics.get(topic)?.partition(partition)?;
        let of_partition = tables.producers.range((id, i64::MIN)..=(id, i64::MAX));
        let known = of_partition.map(|((_, producer), window)| KnownProducer {
            id: *producer,
            epoch: window.epoch,
            last_sequence: window.last_sequence(),
            last_ms: window.last_ms,
        });
        Some(known.collect())
    }
}
