//! Components that a simulation owns: threads and failpoints.

pub(crate) mod failpoint;
pub(crate) mod workers;
