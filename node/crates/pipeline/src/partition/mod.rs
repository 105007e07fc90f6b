//! The state of a pipeline on a partition: input, time, and the modules' state.

pub(crate) mod evicted;
pub(crate) mod input;
pub(crate) mod merge;
pub(crate) mod partition_set;
pub(crate) mod place;
pub(crate) mod refusal;
pub(crate) mod rows;
pub(crate) mod state;
pub(crate) mod states;
pub(crate) mod time;
