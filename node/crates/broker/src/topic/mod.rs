//! Settings of topics.

pub(crate) mod config;
pub(crate) mod kept;
pub(crate) mod setting;
