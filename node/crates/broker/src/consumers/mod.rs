//! Consumer groups and their committed offsets, as callers see them.

pub(crate) mod calls;
pub(crate) mod offsets;
