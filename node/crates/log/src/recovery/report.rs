//! The result of opening a log.

use crate::error::Damage;
use crate::format::entry::EntryId;
use std::collections::BTreeMap;
use weir_types::GroupId;

/// Findings and repairs of an opening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last shutdown was orderly.
    pub clean: bool,
    /// Entries without effects so far: their group applies them once they are known to be committed.
    pub unapplied: u64,
    /// Bytes of an unfinished write that were cut off; never acknowledged.
    pub torn_bytes: u64,
    /// Journal frames whose marks were repaired.
    pub frames_repaired: u64,
    /// Missing data.
    pub damage: Damage,
    /// State of each group's log.
    pub groups: BTreeMap<GroupId, GroupState>,
}

/// State of a group's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// The last entry whose header is gone.
    pub purged: EntryId,
    /// The last entry whose effects are in `state`.
    pub applied: EntryId,
    /// The last entry.
    pub last: EntryId,
}
