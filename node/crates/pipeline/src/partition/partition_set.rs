//! The set of partitions that a worker processes.

use std::collections::BTreeSet;
use std::sync::Arc;

/// The set of partitions that a worker processes.
#[derive(Clone, Debug)]
pub(crate) enum PartitionSet {
    All,
    Only(Arc<BTreeSet<u32>>),
    But(Arc<BTreeSet<u32>>),
}

impl PartitionSet {
    pub(crate) fn has(&self, partition: u32) -> bool {
        match self {
            Self::All => true,
            Self::Only(partitions) => partitions.contains(&partition),
            Self::But(partitions) => !partitions.contains(&partition),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_is_one_lanes() {
        let some = Arc::new(BTreeSet::from([1, 4]));
        let (only, but) = (PartitionSet::Only(Arc::clone(&some)), PartitionSet::But(some));
        for partition in 0..8 {
            assert!(PartitionSet::All.has(partition));
            assert_ne!(only.has(partition), but.has(partition));
            assert_eq!(only.has(partition), partition == 1 || partition == 4);
        }
    }
}
