//! The end of a group's chain of headers.

use crate::format::entry::EntryId;

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
