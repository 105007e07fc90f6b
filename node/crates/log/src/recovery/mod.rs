//! Opening a log after a crash, a power cut or damage.
//!
//! In order: check and repair the journals ([`crate::recovery::journal`]), open the database, walk each
//! group's chain of headers, compare its end with the separately synced low-water mark, and check the end of
//! every partition. Entries without effects in `state` are left to their group, which knows the committed
//! index. Missing records become a `lost` gap. Their partition continues at its ceiling, so that no offset is
//! assigned twice.

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
