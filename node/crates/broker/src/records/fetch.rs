//! Reading: long polls, byte limits, offsets by time.

use crate::access::auth::Principal;
use crate::access::ledger::Taken;
use crate::access::quota::Direction;
use crate::core::Broker;
use crate::error::FetchError;
use crate::records::read::{new_gap, unknown};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use weir_log::{Chunk, Piece};
use weir_replica::Mended;
use weir_types::Offset;
use weir_types::limits::FETCH_BYTES_MAX;

/// How long a read waits for its share of the bytes of answers.
pub const SHARE_WITHIN: Duration = Duration::from_secs(5);

/// What to read.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// Topic by name.
    pub topic: String,
    /// Partition of it.
    pub partition: u32,
    /// First offset wanted.
    pub from: Offset,
    /// Bytes of batches to answer with at most; the first batch comes whatever its size.
    pub max_bytes: usize,
    /// How long to wait for a record when there is none.
    pub wait: Duration,
}

/// What a fetch gave.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Whole batches, and gaps with their reasons, in order of offsets. The first batch may begin before the offset
    /// asked for.
    pub pieces: Vec<Piece>,
    /// Where to go on.
    pub next: Offset,
    /// First offset that may still be there.
    pub log_start: Offset,
    /// First offset not yet committed.
    pub committed_end: Offset,
    /// How long the client's next request should be held back, by its quota.
    pub throttle: Duration,
    /// The share of the bytes of answers that goes with them, to be kept until they are sent.
    pub share: Option<Arc<Taken>>,
}

impl Broker {
    /// Reads from a partition.
    ///
    /// # Errors
    /// When there is no such partition, the offset lies beyond its end, or its index is damaged. Damaged batches are
    /// no error: they come as gaps.
    ///
    /// # Cancel safety
    /// Safe: reading changes nothing.
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

    /// As [`Broker::fetch`], for a listener that may not hand over what it reads: nothing is counted, no quota charged and no
    /// share of the bytes of answers taken until it says so with [`Broker::delivered`].
    ///
    /// # Errors
    /// As [`Broker::fetch`].
    ///
    /// # Cancel safety
    /// Safe: reading changes nothing.
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
                // The first batch comes whole, whatever was asked for.
                let answers = &self.0.ledger.answers;
                share = Some(answers.take(FETCH_BYTES_MAX, who.address, SHARE_WITHIN).await?);
            }
            let max_bytes = fetch.max_bytes.min(FETCH_BYTES_MAX);
            chunk = self.read(id, fetch.from, committed_end, max_bytes).await?;
            // Noticed now, and nowhere on record: others may have it. Each time round there is one less.
            while let Some(gap) = new_gap(&chunk, &marks) {
                match self.mend(id, gap).await {
                    Mended::Whole => {}
                    Mended::Lost => break,
                    // It is not told to be lost before that is known.
                    Mended::Unknown => return Err(unknown(gap).into()),
                }
                chunk = self.read(id, fetch.from, committed_end, max_bytes).await?;
                if new_gap(&chunk, &marks) == Some(gap) {
                    break;
                }
            }
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

    /// Waits as long as a request has to whose account is over its quota, and not at all otherwise. A listener asks before anything
    /// of the request takes room, so that a new connection is not a new account.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn hold_back(&self, who: &Principal, direction: Direction) {
        let by = self.0.quotas.charge(direction, &who.account, 0, Instant::now());
        // A sleep of no length takes a millisecond, of each request.
        if !by.is_zero() {
            tokio::time::sleep(by).await;
        }
    }

    /// Counts what a client is handed, and charges its quota. Returns how long its next request should be held back.
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
