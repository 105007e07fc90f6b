//! The stored form of keys, entries and rows, and nothing else.

pub(crate) mod encoding;
pub(crate) mod entry;
pub(crate) mod keys;
pub(crate) mod position;
pub(crate) mod rows;
