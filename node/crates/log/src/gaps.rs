//! The rows that stand for gaps.

use crate::keys::{StateKey, StateKind, split_data_key};
use weir_types::{Gap, GapReason, Offset, PartitionId};

/// The row of `state` that stands for `gap`.
pub(crate) fn gap_row(partition: PartitionId, gap: &Gap) -> (StateKey, Vec<u8>) {
    let mut value = gap.end.get().to_be_bytes().to_vec();
    value.push(gap.reason as u8);
    (
        StateKey::partition_offset(StateKind::Gap, partition, gap.start),
        value,
    )
}

/// Reads what [`gap_row`] made.
pub(crate) fn gap_of(key: &[u8], value: &[u8]) -> Option<(PartitionId, Gap)> {
    let (partition, start) = split_data_key(key.get(1..)?)?;
    let (end, reason) = value.split_first_chunk::<8>()?;
    let gap = Gap {
        start,
        end: Offset::new(u64::from_be_bytes(*end)),
        reason: GapReason::from_tag(*reason.first()?)?,
    };
    Some((partition, gap))
}
