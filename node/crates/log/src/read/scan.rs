//! Reading a partition: a range scan that notices missing records.
//!
//! Every batch is checked against its CRC and against its neighbours. Where offsets do not follow each other,
//! the reader gets a [`Gap`], never silently fewer records.

use crate::error::ReadError;
use crate::format::keys::{StateKey, StateKind, data_key, split_data_key};
use crate::positions::Marks;
use crate::store::keyspaces::Keyspaces;
use crate::store::os_error::{is_shortage, operating_system};
use weir_types::{Batch, Gap, GapReason, Offset, PartitionId};

/// A stretch of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A batch of records.
    Batch(Batch),
    /// A range without records, with the reason.
    Gap(Gap),
}

/// The result of a read: consecutive pieces.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// Pieces in offset order. The first batch may begin before the requested offset.
    pub pieces: Vec<Piece>,
    /// Offset of the next read.
    pub next: Offset,
}

/// Bytes that a search for expired batches reads at most; the next search continues from there.
const EXPIRE_BYTES_MAX: usize = 8 << 20;

/// One partition up to `end`.
pub(crate) struct Scan<'a> {
    pub(crate) keyspaces: &'a Keyspaces,
    pub(crate) marks: &'a Marks,
    pub(crate) partition: PartitionId,
    pub(crate) end: Offset,
}

impl Scan<'_> {
    pub(crate) fn read(&self, from: Offset, max_bytes: usize) -> Result<Chunk, ReadError> {
        let mut chunk = Chunk {
            pieces: Vec::new(),
            next: from,
        };
        let mut bytes = 0;
        let first = self.row_at_or_before(from)?.unwrap_or(from);
        let rows = data_key(self.partition, first)..data_key(self.partition, self.end);
        for guard in self.keyspaces.data.range(rows) {
            // An unreadable key hides its offset: the caller must not continue as if the row did not exist.
            let (key, value) = match guard.into_inner() {
                Ok((key, value)) => (key, Some(value)),
                Err(e) if operating_system(&e).is_some_and(|e| is_shortage(&e)) => {
                    return Err(ReadError::Busy(e.to_string()));
                }
                Err(e) => match self.key_after(chunk.next.max(first)) {
                    Some(key) if split_data_key(&key).is_some_and(|(_, base)| base >= chunk.next) => {
                        tracing::error!(partition = %self.partition, next = %chunk.next, error = %e, "damaged batch");
                        (key, None)
                    }
                    _ => return Err(self.damaged(chunk.next, &e)),
                },
            };
            let Some((_, base)) = split_data_key(&key) else {
                continue;
            };
            let payload = match value.map(|v| self.keyspaces.payload(&key, v)) {
                // A shortage says nothing about the records: skipping them would lose them.
                Some(Err(e)) if is_shortage(&e) => return Err(ReadError::Busy(e.to_string())),
                Some(Ok(payload)) => Some(payload),
                _ => None,
            };
            let batch = payload
                .and_then(|v| Batch::parse(v).ok())
                .filter(|b| b.base_offset() == base);
            match batch {
                Some(batch) if batch.end_offset() <= chunk.next => {}
                Some(batch) => {
                    if bytes > 0 && bytes + batch.bytes().len() > max_bytes {
                        return Ok(chunk);
                    }
                    self.close_gap(&mut chunk, base);
                    bytes += batch.bytes().len();
                    chunk.next = batch.end_offset();
                    chunk.pieces.push(Piece::Batch(batch));
                }
                None if base < from => {
                    // The row before the requested offset may be damaged outside of the requested range.
                    tracing::error!(partition = %self.partition, offset = %base, "damaged batch");
                }
                // The damaged batch ends at the next whole batch.
                None => {
                    self.close_gap(&mut chunk, base);
                    tracing::error!(partition = %self.partition, offset = %base, "damaged batch");
                }
            }
            if bytes >= max_bytes {
                return Ok(chunk);
            }
        }
        self.close_gap(&mut chunk, self.end);
        Ok(chunk)
    }

    /// Returns the base of the first batch that stays when `bytes` are removed.
    pub(super) fn after_bytes(&self, bytes: u64) -> Result<Offset, ReadError> {
        let rows = data_key(self.partition, self.marks.log_start())..data_key(self.partition, self.end);
        let mut freed = 0;
        for guard in self.keyspaces.data.range(rows) {
            let key = guard
                .key()
                .map_err(|e| self.damaged(self.marks.log_start(), &e))?;
            if let Some((_, base)) = split_data_key(&key).filter(|_| freed >= bytes) {
                return Ok(base);
            }
            freed += u64::from(self.keyspaces.stored(&key).map_or(0, |(bytes, _)| bytes));
        }
        Ok(self.end)
    }

    /// Returns the first offset of a batch that reaches `timestamp`, within the bounds of a single search.
    pub(super) fn after_expired(&self, timestamp: i64) -> Result<Offset, ReadError> {
        let start = self.marks.log_start();
        if self.marks.max_timestamp() < timestamp {
            return Ok(self.end);
        }
        let from = indexed_before(self.keyspaces, self.partition, timestamp).max(start);
        // Batch by batch: the first young batch ends the search, and usually the very first is young.
        let (mut expired, mut bytes) = (from, 0);
        while expired < self.end && bytes < EXPIRE_BYTES_MAX {
            let chunk = self.read(expired, 1)?;
            let young = |p: &Piece| matches!(p, Piece::Batch(b) if b.max_timestamp() >= timestamp);
            if chunk.pieces.iter().any(young) || chunk.next <= expired {
                break;
            }
            let size = |p: &Piece| {
                if let Piece::Batch(b) = p {
                    b.bytes().len()
                } else {
                    0
                }
            };
            bytes += chunk.pieces.iter().map(size).sum::<usize>();
            expired = chunk.next;
        }
        Ok(expired)
    }

    /// Adds gaps that explain the range between the end of the chunk and `base`.
    fn close_gap(&self, chunk: &mut Chunk, base: Offset) {
        while chunk.next < base {
            let known = self.marks.gaps().into_iter().find(|g| g.end > chunk.next);
            let gap = match known {
                Some(gap) if gap.start <= chunk.next => Gap {
                    start: chunk.next,
                    end: gap.end.min(base),
                    reason: gap.reason,
                },
                Some(gap) if gap.start < base => Gap {
                    start: chunk.next,
                    end: gap.start,
                    reason: GapReason::Lost,
                },
                _ => Gap {
                    start: chunk.next,
                    end: base,
                    reason: GapReason::Lost,
                },
            };
            if known.is_none_or(|known| known.start > gap.start) {
                self.marks.found_damaged(gap);
            }
            chunk.next = gap.end;
            match chunk.pieces.last_mut() {
                Some(Piece::Gap(last)) if last.end == gap.start && last.reason == gap.reason => {
                    last.end = gap.end
                }
                _ => chunk.pieces.push(Piece::Gap(gap)),
            }
        }
    }

    /// Returns the base of the batch that may hold `at`.
    fn row_at_or_before(&self, at: Offset) -> Result<Option<Offset>, ReadError> {
        let rows = data_key(self.partition, Offset::ZERO)..=data_key(self.partition, at);
        match self.keyspaces.data.range(rows).next_back() {
            None => Ok(None),
            Some(guard) => match guard.key() {
                Ok(key) => Ok(split_data_key(&key).map(|(_, base)| base)),
                Err(e) => Err(self.damaged(at, &e)),
            },
        }
    }

    fn key_after(&self, at: Offset) -> Option<fjall::UserKey> {
        let rows = data_key(self.partition, at)..data_key(self.partition, self.end);
        self.keyspaces.data.range(rows).next()?.key().ok()
    }

    fn damaged(&self, near: Offset, e: &fjall::Error) -> ReadError {
        ReadError::Damaged {
            partition: self.partition,
            near: near.get(),
            why: e.to_string(),
        }
    }
}

/// Returns the end of the last stretch of the time index before which nothing reaches `timestamp`.
pub(super) fn indexed_before(keyspaces: &Keyspaces, partition: PartitionId, timestamp: i64) -> Offset {
    let mut from = Offset::ZERO;
    let prefix = StateKey::partition(StateKind::TimeIndex, partition);
    for guard in keyspaces.state.prefix(prefix.as_bytes()) {
        let Ok((key, value)) = guard.into_inner() else {
            break;
        };
        let latest = value
            .first_chunk::<8>()
            .map_or(i64::MAX, |b| i64::from_be_bytes(*b));
        if latest >= timestamp {
            break;
        }
        if let Some((_, until)) = split_data_key(key.get(1..).unwrap_or_default()) {
            from = from.max(until);
        }
    }
    from
}
