//! Rebuilding a damaged database from everything that can be read.
//!
//! A repair reads every file once, whatever the database's own metadata say: journals, tables and blob files
//! ([`table`], [`blob`], [`crate::recovery::journal`]), the segments of the value log, and the second copy of
//! important rows ([`crate::store::rows_copy`]). Among several versions of a key the newest counts, by
//! fjall's sequence numbers. A version without a checksum counts only as the last resort; a batch has a
//! checksum of its own. The new database is made beside the old one and replaces it once whole. Nothing is
//! removed.

mod blob;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod check;
mod gather;
mod places;
pub(crate) mod rebuild;
pub(crate) mod source;
mod table;
