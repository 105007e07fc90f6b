//! Threads that run a pipeline, in-line or over the log.

pub(crate) mod backoff;
pub(crate) mod counts;
pub(crate) mod cycle;
pub(crate) mod desired;
pub(crate) mod handle;
pub(crate) mod inline;
pub(crate) mod reader;
pub(crate) mod schedule;
pub(crate) mod thread;
pub(crate) mod timers;
pub(crate) mod trace;
