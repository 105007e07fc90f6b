//! The interface of the pipeline layer: state rows and speculative sessions.

pub(crate) mod rows;
pub(crate) mod session;
