//! Where the chain of a group's headers ends, and the rows that say so.

use crate::EntryId;
use weir_types::Term;

/// End of a group's chain.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tail {
    pub(crate) last: EntryId,
    /// CRC of its header.
    pub(crate) crc: u32,
    pub(crate) purged: EntryId,
    pub(crate) purged_crc: u32,
    /// Its effects are in `state` up to here.
    pub(crate) applied: EntryId,
}

/// What a row of [`StateKind::Applied`] says.
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

/// What a row of [`StateKind::Purged`] says.
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
