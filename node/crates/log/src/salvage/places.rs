//! Where records may be, as rows and headers have it.

use std::collections::BTreeMap;
use weir_types::{Batch, Offset, PartitionId};

/// Where records may be.
#[derive(Default)]
pub(super) struct Places {
    /// Where each partition that exists begins.
    pub(super) starts: BTreeMap<PartitionId, Offset>,
    /// Nobody knows which exist.
    pub(super) all: bool,
    /// Ranges that were given up.
    pub(super) gaps: BTreeMap<PartitionId, Vec<(Offset, Offset)>>,
    /// Which batches headers name, by their first offset: their checksums, and whose they are.
    named: BTreeMap<Offset, Vec<(u32, PartitionId)>>,
}

impl Places {
    /// A header names a batch.
    pub(super) fn name(&mut self, partition: PartitionId, base: Offset, crc: u32) {
        let there = self.named.entry(base).or_default();
        if !there.contains(&(crc, partition)) {
            there.push((crc, partition));
        }
    }

    /// The partitions in which headers name such a batch.
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
