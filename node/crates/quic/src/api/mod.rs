//! Requests, a file for each resource.

pub(crate) mod cluster;
pub(crate) mod groups;
pub(crate) mod modules;
pub(crate) mod node;
pub(crate) mod pipelines;
pub(crate) mod records;
pub(crate) mod topics;
