//! The end of a group's chain of headers.

use crate::format::entry::EntryId;

/// End of a group's chain.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tail {
    pub(crate) last: EntryId,
    /// CRC of the last header.
    pub(crate) crc: u32,
    pub(crate) purged: EntryId,
    pub(crate) purged_crc: u32,
    /// Last entry whose effects are in `state`.
    pub(crate) applied: EntryId,
}
