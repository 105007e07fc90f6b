//! What opening a log found.

use crate::error::Damage;
use crate::format::entry::EntryId;
use std::collections::BTreeMap;
use weir_types::GroupId;

/// What opening a log found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last shutdown was orderly.
    pub clean: bool,
    /// Entries whose effects are not yet made: they are, once the group knows that they are committed.
    pub unapplied: u64,
    /// Bytes of an unfinished write that were cut off: never acknowledged.
    pub torn_bytes: u64,
    /// Journal frames whose marks were put right.
    pub frames_repaired: u64,
    /// What is missing.
    pub damage: Damage,
    /// Where each group's log stands.
    pub groups: BTreeMap<GroupId, GroupState>,
}

/// Where a group's log stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// The last entry whose header is gone.
    pub purged: EntryId,
    /// The last entry whose effects are in `state`.
    pub applied: EntryId,
    /// The last entry.
    pub last: EntryId,
}
