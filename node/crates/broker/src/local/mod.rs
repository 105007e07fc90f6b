//! State of this node alone: never replicated, and gone after a restart.

pub(crate) mod age;
pub(crate) mod metrics;
pub(crate) mod presence;
pub(crate) mod refused;
pub(crate) mod retention;
pub(crate) mod unserved;
