//! What a pipeline reads, and has in memory, of one partition.

pub(crate) mod evicted;
pub(crate) mod input;
pub(crate) mod merge;
pub(crate) mod parts;
pub(crate) mod place;
pub(crate) mod refusal;
pub(crate) mod rows;
pub(crate) mod share;
pub(crate) mod state;
pub(crate) mod time;
