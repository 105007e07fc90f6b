//! Opening a log after whatever happened to it.
//!
//! In order: look at the journals and mend them ([`crate::recovery::journal`]), open the database, walk each group's chain of
//! headers, compare its end with the separately synced low-water mark, and see that every partition ends where it
//! should. Entries whose effects are not in `state` are left to their group, which knows whether they are committed. What is missing becomes a `lost` gap, and the
//! partition goes on at its ceiling, so that no offset is ever given out twice.

pub(crate) mod carve;
mod chain;
pub(crate) mod files;
pub(crate) mod journal;
pub(crate) mod markers;
pub(crate) mod open;
mod partitions;
mod replay;
pub(crate) mod report;
mod rows;
mod run;
pub(crate) mod set_aside;
pub(crate) mod shelter;
mod state;
