//! The newest entries of a group's log, in memory: readable at once, long before they are on the disk.

use crate::types::{RaftEntry, Vote};
use std::collections::VecDeque;
use std::sync::Arc;
use weir_log::{EntryHeader, EntryId};
use weir_types::limits::RAFT_TAIL_BYTES_MAX;

struct Slot {
    entry: RaftEntry,
    header: Arc<EntryHeader>,
    bytes: usize,
}

/// Entries from `first` on, and the bounds of the whole log.
pub(crate) struct Tail {
    /// Index of the first slot.
    first: u64,
    slots: VecDeque<Slot>,
    bytes: usize,
    pub(crate) purged: EntryId,
    pub(crate) last: EntryId,
    /// Entries up to here are on the disk and applied, and may be evicted.
    flushed: u64,
    applied: u64,
    pub(crate) vote: Option<Vote>,
    /// Payload bytes since the log began, at the last entry of each stretch of [`STRETCH_BYTES`].
    stretches: VecDeque<u64>,
    stretch: usize,
    /// Bytes kept for followers.
    keep: usize,
}

/// The raft log is purged in steps of this many bytes.
pub(crate) const STRETCH_BYTES: usize = 1 << 20;

impl Tail {
    pub(crate) fn new(purged: EntryId, last: EntryId, applied: u64, vote: Option<Vote>) -> Self {
        Self {
            first: last.index + 1,
            slots: VecDeque::new(),
            bytes: 0,
            purged,
            last,
            flushed: last.index,
            applied,
            vote,
            stretches: VecDeque::new(),
            stretch: 0,
            keep: 0,
        }
    }

    /// Keeps entries for followers, if there are any.
    pub(crate) fn keep_for_followers(&mut self, are_there: bool) {
        self.keep = if are_there { RAFT_TAIL_BYTES_MAX } else { 0 };
        self.evict();
    }

    pub(crate) fn push(&mut self, entry: RaftEntry, header: Arc<EntryHeader>, bytes: usize) {
        self.last = header.id();
        self.bytes += bytes;
        self.stretch += bytes;
        if self.stretch >= STRETCH_BYTES {
            self.stretch = 0;
            self.stretches.push_back(header.index);
        }
        self.slots.push_back(Slot { entry, header, bytes });
        self.evict();
    }

    pub(crate) fn flushed(&mut self, index: u64) {
        self.flushed = self.flushed.max(index);
        self.evict();
    }

    pub(crate) fn applied(&mut self, index: u64) {
        self.applied = self.applied.max(index);
        self.evict();
    }

    /// Removes the entries after `last`.
    pub(crate) fn truncate(&mut self, last: EntryId) {
        let keep = (last.index + 1).saturating_sub(self.first) as usize;
        for slot in self.slots.drain(keep.min(self.slots.len())..) {
            self.bytes -= slot.bytes;
        }
        self.last = last;
        self.first = self.first.min(last.index + 1);
        self.flushed = self.flushed.min(last.index);
        self.stretches.retain(|i| *i <= last.index);
    }

    /// Restarts behind `at`, after the installation of a snapshot.
    pub(crate) fn restart(&mut self, at: EntryId) {
        if self.last.index <= at.index {
            self.slots.clear();
            self.bytes = 0;
            self.last = at;
            self.first = at.index + 1;
            self.flushed = at.index;
        }
        self.purged = at;
        self.applied(at.index);
        self.purged(at);
    }

    pub(crate) fn purged(&mut self, upto: EntryId) {
        if upto.index > self.purged.index {
            self.purged = upto;
        }
        self.stretches.retain(|i| *i > upto.index);
    }

    /// Returns the entries of `[start, end)` in memory, up to about `max_bytes`, and the index where they
    /// begin.
    pub(crate) fn range(&self, start: u64, end: u64, max_bytes: usize) -> (u64, Vec<RaftEntry>) {
        let from = start.max(self.first);
        let skip = (from - self.first) as usize;
        let take = end.saturating_sub(from) as usize;
        let mut bytes = 0;
        let entries = self.slots.iter().skip(skip).take(take).take_while(|slot| {
            let fits = bytes < max_bytes;
            bytes += slot.bytes;
            fits
        });
        (from, entries.map(|s| s.entry.clone()).collect())
    }

    pub(crate) fn header(&self, index: u64) -> Option<Arc<EntryHeader>> {
        let at = index.checked_sub(self.first)?;
        self.slots.get(at as usize).map(|s| Arc::clone(&s.header))
    }

    /// Returns the index up to which the log can be purged while `bytes` and `entries` of it stay.
    pub(crate) fn purgeable(&self, bytes: usize, entries: u64) -> u64 {
        let by_bytes = self
            .stretches
            .len()
            .checked_sub(bytes / STRETCH_BYTES)
            .and_then(|n| n.checked_sub(1))
            .and_then(|at| self.stretches.get(at).copied())
            .unwrap_or(0);
        let by_entries = self.last.index.saturating_sub(entries);
        by_bytes.max(by_entries).min(self.applied)
    }

    fn evict(&mut self) {
        while self.bytes > self.keep
            && self.first <= self.flushed.min(self.applied)
            && let Some(slot) = self.slots.pop_front()
        {
            self.bytes -= slot.bytes;
            self.first += 1;
        }
    }
}
