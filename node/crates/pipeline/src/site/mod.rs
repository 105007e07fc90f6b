//! The pipelines of a node beside those of its site, and the crate as others call it.

pub(crate) mod follow;
pub(crate) mod hook;
pub(crate) mod open;
