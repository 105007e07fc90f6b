//! Committed state: rows, the tables made of them, and the state machine that applies entries.

pub(crate) mod applied;
pub(crate) mod notify;
pub(crate) mod offline;
pub(crate) mod rows;
pub(crate) mod tables;
