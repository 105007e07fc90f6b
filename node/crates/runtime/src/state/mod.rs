//! State of a module: rows and timers of one partition, with a journal and a quota.

pub(crate) mod quota;
pub(crate) mod table;
pub(crate) mod timers;
