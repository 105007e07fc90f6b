//! Making a database again from what can be read of one that is damaged.
//!
//! Everything that lies on the disk is read once, whatever the database's own metadata say of it: journals, tables and
//! blob files ([`table`], [`blob`], [`crate::recovery::journal`]), the files of the value log, and the second copy of the rows that
//! say what there is ([`crate::store::rows_copy`]). Of what several places say of a key, the newest counts, by fjall's sequence
//! numbers; what no checksum vouches for counts only when nothing else says anything, and a batch has a checksum of its
//! own. The new database is made beside the old one and put in its place when it is whole; nothing is removed.

mod blob;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod check;
mod gather;
mod places;
pub(crate) mod rebuild;
pub(crate) mod source;
mod table;
