//! Idempotent producers: allocated ids, and the state of each producer.

use crate::core::Broker;
use crate::error::AdminError;
use crate::state::rows::Row;
use crate::state::rows::counter::{Counter, CounterName};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a node that follows waits for what the leader has decided: several heartbeats.
const GIVEN_OUT_WITHIN: Duration = Duration::from_secs(1);

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Producer ids reserved by one entry; what a restart forgets of them is no loss in 2^63.
const PRODUCER_IDS: u64 = 1_000;

/// A producer that a partition remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownProducer {
    /// Its number.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of its last record; -1 for none.
    pub last_sequence: i32,
    /// When it last sent, in milliseconds.
    pub last_ms: i64,
}

impl Broker {
    /// Numbers that nobody else is given.
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

    /// Whether this producer's number was given out. A number that was given out just now may not have come to this node yet.
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

    /// Idempotent producers that a partition remembers; `None` when there is no such partition.
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
