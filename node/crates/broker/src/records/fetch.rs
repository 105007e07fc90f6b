//! Reading: long polls, byte limits, offsets by time.

use crate::access::auth::Principal;
use crate::access::ledger::Taken;
use crate::access::quota::Direction;
use crate::core::Broker;
use crate::error::FetchError;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use weir_log::{Chunk, Piece};
use weir_types::Offset;
use weir_types::limits::FETCH_BYTES_MAX;

/// Longest wait of a read for its share of answer bytes.
pub const SHARE_WITHIN: Duration = Duration::from_secs(5);

/// A read of a partition.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// Topic by name.
    pub topic: String,
    /// Index of the partition in the topic.
    pub partition: u32,
    /// First offset wanted.
    pub from: Offset,
    /// Limit of batch bytes in the answer. The first batch is returned whatever its size.
    pub max_bytes: usize,
    /// Longest wait for a record at the end of the partition.
    pub wait: Duration,
}

/// Result of a read.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Whole batches, and gaps with their reasons, in order of offsets. The first batch may begin before the
    /// requested offset.
    pub pieces: Vec<Piece>,
    /// Offset of the next read.
    pub next: Offset,
    /// First offset that may still exist.
    pub log_start: Offset,
    /// First offset not yet committed.
    pub committed_end: Offset,
    /// Delay of the client's next request, by its quota.
    pub throttle: Duration,
    /// The share of the bytes of answers that goes with them, to be kept until they are sent.
    pub share: Option<Arc<Taken>>,
}

impl Broker {
    /// Reads from a partition, and charges the quota.
    ///
    /// # Errors
    /// When the partition does not exist, the offset is beyond the end, this node does not lead, or the index
    /// is damaged. Damaged batches are returned as gaps.
    ///
    /// # Cancel safety
    /// Cancel safe: reading changes nothing.
    pub async fn fetch(&self, who: &Principal, fetch: Fetch) -> Result<Fetched, FetchError> {
        let mut fetched = self.read_for(who, fetch, true).await?;
        let batches = fetched.pieces.iter().filter_map(|piece| match piece {
            Piece::Batch(batch) => Some(batch),
            Piece::Gap(_) => None,
        });
        let (bytes, records) = batches.fold((0, 0), |(bytes, records), batch| {
            (bytes + batch.bytes().len(), records + u64::from(batch.count()))
        });
        fetched.throttle = self.delivered(who, bytes, records);
        Ok(fetched)
    }

    /// Reads from a partition without accounting, for listeners that may discard the result. Nothing is
    /// counted, charged or taken from a share until [`Broker::delivered`] is called.
    ///
    /// # Errors
    /// When the partition does not exist, the offset is beyond the end, this node does not lead, or the index
    /// is damaged.
    ///
    /// # Cancel safety
    /// Cancel safe: reading changes nothing.
    pub async fn peek(&self, who: &Principal, fetch: Fetch) -> Result<Fetched, FetchError> {
        self.read_for(who, fetch, false).await
    }

    async fn read_for(&self, who: &Principal, fetch: Fetch, is_shared: bool) -> Result<Fetched, FetchError> {
        self.0.metrics.fetch_requests.fetch_add(1, Ordering::Relaxed);
        let (id, marks) = self.readable(who, &fetch.topic, fetch.partition)?;
        let end = marks.committed_end();
        if fetch.from > end {
            return Err(FetchError::OutOfRange {
                offset: fetch.from,
                end,
            });
        }
        if fetch.from == end && !fetch.wait.is_zero() {
            self.wait_for(id, &marks, fetch.from, fetch.wait).await;
        }
        self.check_readable(id)?;
        let (log_start, committed_end) = (marks.log_start(), marks.committed_end());
        let mut chunk = Chunk {
            pieces: Vec::new(),
            next: fetch.from,
        };
        let mut share = None;
        if fetch.from < committed_end {
            if is_shared {
                // The first batch is returned whole, whatever its size.
                let answers = &self.0.ledger.answers;
                share = Some(answers.take(FETCH_BYTES_MAX, who.address, SHARE_WITHIN).await?);
            }
            let max_bytes = fetch.max_bytes.min(FETCH_BYTES_MAX);
            let range = fetch.from..committed_end;
            (chunk, _) = self.read_repaired(id, range, max_bytes, &marks).await?;
        }
        self.is_still(&fetch.topic, fetch.partition, id, &marks)?;
        if let Some(share) = &mut share {
            let sizes = chunk.pieces.iter().map(|piece| match piece {
                Piece::Batch(batch) => batch.bytes().len(),
                Piece::Gap(_) => 0,
            });
            share.keep(sizes.sum());
        }
        Ok(Fetched {
            share: share.map(Arc::new),
            pieces: chunk.pieces,
            next: chunk.next,
            log_start,
            committed_end,
            throttle: Duration::ZERO,
        })
    }

    /// Waits while the account is over its quota. Listeners call this before a request takes memory, so that
    /// a new connection is not a new account.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn hold_back(&self, who: &Principal, direction: Direction) {
        let by = self.0.quotas.charge(direction, &who.account, 0, Instant::now());
        // A sleep of no length takes a millisecond, of each request.
        if !by.is_zero() {
            tokio::time::sleep(by).await;
        }
    }

    /// Counts delivered bytes and records, and charges the quota. Returns the delay of the client's next
    /// request.
    pub fn delivered(&self, who: &Principal, bytes: usize, records: u64) -> Duration {
        self.0.metrics.records_out.fetch_add(records, Ordering::Relaxed);
        self.0
            .metrics
            .bytes_out
            .fetch_add(bytes as u64, Ordering::Relaxed);
        self.0
            .quotas
            .charge(Direction::Fetch, &who.account, bytes, Instant::now())
    }
}
