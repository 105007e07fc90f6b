//! From requests to log entries: everything that is computed ahead of commitment.

pub(crate) mod entry;
pub(crate) mod owners;
pub(crate) mod proposer;
pub(crate) mod replica;
pub(crate) mod request;
pub(crate) mod step;
pub(crate) mod thread;
