//! Live positions of partitions: readable by everybody without a lock, changed by a single writer.

use crate::format::entry::{Append, EntryHeader, OpHeader};
use crate::format::position::Position;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use weir_types::sync::{Mutex, RwLock};
use weir_types::{Gap, GapReason, GroupId, Offset, PartitionId};

/// The live position of a partition. Fields change independently: read `log_start` before `committed_end`.
#[derive(Debug, Default)]
pub struct Marks {
    log_start: AtomicU64,
    committed_end: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    max_timestamp: AtomicI64,
    gaps: Mutex<Vec<Gap>>,
    /// Ranges found damaged since the log was opened.
    damaged: Mutex<Vec<Gap>>,
}

/// Damaged ranges remembered for a partition. A disk with more damage needs a scrub.
const DAMAGED_MAX: usize = 64;

impl Marks {
    /// Returns the first offset that may still be stored.
    pub fn log_start(&self) -> Offset {
        Offset::new(self.log_start.load(Ordering::Acquire))
    }

    /// Returns the first offset that is not committed: readers see nothing from here on.
    pub fn committed_end(&self) -> Offset {
        Offset::new(self.committed_end.load(Ordering::Acquire))
    }

    /// Returns the bytes of all stored batches of the partition.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the number of records ever lost or evicted.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Returns the largest timestamp so far, in milliseconds.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp.load(Ordering::Relaxed)
    }

    /// Returns the known ranges without records, ascending.
    pub fn gaps(&self) -> Vec<Gap> {
        self.gaps.lock().clone()
    }

    /// Returns the ranges that are stored but were found damaged since the log was opened, ascending. The
    /// list is bounded and leaves out ranges that another replica's copy has replaced.
    pub fn damaged(&self) -> Vec<Gap> {
        let (start, gaps) = (self.log_start(), self.gaps());
        let damaged = self.damaged.lock();
        let is_known = |range: &Gap| {
            gaps.iter()
                .any(|gap| gap.start <= range.start && range.end <= gap.end)
        };
        let ranges = damaged
            .iter()
            .filter(|range| range.end > start && !is_known(range));
        ranges.copied().collect()
    }

    /// Returns all ranges that readers do not get: [`Marks::gaps`] and [`Marks::damaged`], ascending.
    pub fn unread(&self) -> Vec<Gap> {
        let mut all = self.gaps();
        all.extend(self.damaged());
        all.sort_by_key(|gap| gap.start);
        all
    }

    pub(crate) fn found_damaged(&self, range: Gap) {
        let mut damaged = self.damaged.lock();
        // Merge overlapping ranges: a reader may have begun inside a range.
        let (mut start, mut end) = (range.start, range.end);
        damaged.retain(|known| {
            let apart = known.end <= start || end <= known.start;
            if !apart {
                (start, end) = (start.min(known.start), end.max(known.end));
            }
            apart
        });
        if damaged.len() < DAMAGED_MAX {
            damaged.push(Gap { start, end, ..range });
            damaged.sort_by_key(|gap| gap.start);
        }
    }

    /// Records that a whole copy of the range is stored now.
    pub(crate) fn mended(&self, start: Offset, end: Offset) {
        let mut damaged = self.damaged.lock();
        damaged.retain(|range| range.end <= start || end <= range.start);
    }

    fn set(&self, p: &Position) {
        self.log_start.store(p.log_start.get(), Ordering::Release);
        self.committed_end.store(p.committed_end.get(), Ordering::Release);
        self.bytes.store(p.bytes, Ordering::Relaxed);
        self.lost.store(p.lost, Ordering::Relaxed);
        self.max_timestamp.store(p.max_timestamp, Ordering::Relaxed);
    }

    fn appended(&self, a: &Append) {
        self.bytes.fetch_add(u64::from(a.bytes), Ordering::Relaxed);
        self.max_timestamp.fetch_max(a.max_timestamp, Ordering::Relaxed);
        self.committed_end.fetch_max(a.end().get(), Ordering::AcqRel);
    }

    fn trimmed(&self, to: Offset, reason: GapReason) {
        let from = self.log_start();
        // A partition may begin behind the first offset.
        self.committed_end.fetch_max(to.get(), Ordering::AcqRel);
        self.log_start.fetch_max(to.get(), Ordering::AcqRel);
        if reason != GapReason::Expired {
            self.lost.fetch_add(to.since(from), Ordering::Relaxed);
        }
        let mut gaps = self.gaps.lock();
        gaps.retain(|g| g.end > to);
        gaps.insert(
            0,
            Gap {
                start: from,
                end: to,
                reason,
            },
        );
    }

    pub(crate) fn add_gap(&self, gap: Gap) {
        let mut gaps = self.gaps.lock();
        gaps.push(gap);
        gaps.sort_by_key(|g| g.start);
    }

    pub(crate) fn freed(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes.min(self.bytes()), Ordering::Relaxed);
    }
}

/// The live positions of all partitions.
#[derive(Debug, Default)]
pub(crate) struct Positions(RwLock<BTreeMap<PartitionId, Arc<Marks>>>);

impl Positions {
    pub(crate) fn marks(&self, partition: PartitionId) -> Option<Arc<Marks>> {
        self.0.read().get(&partition).cloned()
    }

    pub(crate) fn all(&self) -> Vec<(PartitionId, Arc<Marks>)> {
        let map = self.0.read();
        map.iter().map(|(id, marks)| (*id, Arc::clone(marks))).collect()
    }

    pub(crate) fn load(&self, partition: PartitionId, position: &Position, gaps: Vec<Gap>) {
        let marks = self.entry(partition);
        marks.set(position);
        *marks.gaps.lock() = gaps;
    }

    /// Forgets all partitions of `group` but those of `keep`.
    pub(crate) fn retain(&self, group: GroupId, keep: &BTreeMap<PartitionId, Position>) {
        let mut map = self.0.write();
        map.retain(|id, _| id.group() != group || keep.contains_key(id));
    }

    pub(crate) fn entry(&self, partition: PartitionId) -> Arc<Marks> {
        if let Some(marks) = self.marks(partition) {
            return marks;
        }
        let mut map = self.0.write();
        Arc::clone(map.entry(partition).or_default())
    }

    /// Applies the changes of a committed entry.
    pub(crate) fn apply(&self, header: &EntryHeader) {
        for op in &header.ops {
            match op {
                OpHeader::Append(append) => self.entry(append.partition).appended(append),
                OpHeader::Trim {
                    partition,
                    to,
                    reason,
                } => self.entry(*partition).trimmed(*to, *reason),
                OpHeader::Drop { partition } => {
                    self.0.write().remove(partition);
                }
                OpHeader::Put { .. } | OpHeader::Remove { .. } => {}
            }
        }
    }
}
