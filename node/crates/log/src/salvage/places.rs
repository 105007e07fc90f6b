//! Places where records may be, from rows and headers.

use std::collections::BTreeMap;
use weir_types::{Batch, Offset, PartitionId};

/// Places where records may be.
#[derive(Default)]
pub(super) struct Places {
    /// Start of each existing partition.
    pub(super) starts: BTreeMap<PartitionId, Offset>,
    /// The existing partitions are unknown.
    pub(super) all: bool,
    /// Removed ranges.
    pub(super) gaps: BTreeMap<PartitionId, Vec<(Offset, Offset)>>,
    /// Batches named by headers, by first offset: checksum and partition.
    named: BTreeMap<Offset, Vec<(u32, PartitionId)>>,
}

impl Places {
    /// Adds a batch named by a header.
    pub(super) fn name(&mut self, partition: PartitionId, base: Offset, crc: u32) {
        let there = self.named.entry(base).or_default();
        if !there.contains(&(crc, partition)) {
            there.push((crc, partition));
        }
    }

    /// Returns the partitions in which headers name the batch.
    pub(super) fn owners(&self, batch: &Batch) -> Vec<PartitionId> {
        let there = self.named.get(&batch.base_offset()).into_iter().flatten();
        let same = there.filter(|(crc, _)| *crc == batch.crc());
        same.map(|(_, partition)| *partition).collect()
    }

    pub(super) fn may_hold(&self, partition: PartitionId, batch: &Batch) -> bool {
        let is_there = match self.starts.get(&partition) {
            Some(start) => batch.end_offset() > *start,
            None => self.all,
        };
        let gaps = self.gaps.get(&partition).into_iter().flatten();
        let overlaps =
            |(start, end): &(Offset, Offset)| batch.base_offset() < *end && *start < batch.end_offset();
        is_there && !gaps.into_iter().any(overlaps)
    }
}
