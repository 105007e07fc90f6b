//! Making native code: in a process that may die, kept in a cache, and confined.

pub(crate) mod child;
pub(crate) mod componentize;
pub(crate) mod configuration;
pub(crate) mod confine;
pub(crate) mod native;
