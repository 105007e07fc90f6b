//! Codecs of the rows of `state` that the log writes for itself.

use crate::format::entry::EntryId;
use crate::format::keys::{StateKey, StateKind, data_key, split_data_key};
use crate::format::position::Position;
use bytes::Bytes;
use weir_types::{Gap, GapReason, Offset, PartitionId, Term};

/// Encodes `gap` as a row of `state`.
pub(crate) fn gap_row(partition: PartitionId, gap: &Gap) -> (StateKey, Vec<u8>) {
    let mut value = gap.end.get().to_be_bytes().to_vec();
    value.push(gap.reason as u8);
    (
        StateKey::partition_offset(StateKind::Gap, partition, gap.start),
        value,
    )
}

/// Decodes a row made by [`gap_row`].
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

/// Encodes a row of [`crate::format::keys::StateKind::Applied`].
pub(crate) fn id_row(id: EntryId) -> [u8; 16] {
    let mut row = [0; 16];
    row[..8].copy_from_slice(&id.index.to_be_bytes());
    row[8..].copy_from_slice(&id.term.0.to_be_bytes());
    row
}

pub(crate) fn split_id(value: &[u8]) -> Option<EntryId> {
    let (index, term) = value.split_first_chunk::<8>()?;
    Some(EntryId {
        index: u64::from_be_bytes(*index),
        term: Term(u64::from_be_bytes(*term.first_chunk()?)),
    })
}

/// Encodes a row of [`crate::format::keys::StateKind::Purged`].
pub(crate) fn purged_row(id: EntryId, crc: u32) -> Vec<u8> {
    [
        &id.index.to_be_bytes()[..],
        &crc.to_be_bytes(),
        &id.term.0.to_be_bytes(),
    ]
    .concat()
}

pub(crate) fn split_purged(value: &[u8]) -> Option<(EntryId, u32)> {
    let (index, rest) = value.split_first_chunk::<8>()?;
    let (crc, term) = rest.split_first_chunk::<4>()?;
    let id = EntryId {
        index: u64::from_be_bytes(*index),
        term: Term(u64::from_be_bytes(*term.first_chunk()?)),
    };
    Some((id, u32::from_be_bytes(*crc)))
}

pub(crate) fn position_row(key: &[u8], value: Bytes) -> Option<(PartitionId, Position)> {
    let id = PartitionId(u32::from_be_bytes(*key.get(1..)?.first_chunk()?));
    Some((id, Position::decode(&value)?))
}

pub(crate) fn incoming_key(partition: PartitionId, base: Offset) -> StateKey {
    StateKey::new(StateKind::Incoming, &data_key(partition, base))
}
