//! The rows of `state`, a file per kind: key, value and codec.

pub(crate) mod absent;
pub(crate) mod channel;
pub(crate) mod committed_offset;
pub(crate) mod consumer_group;
pub(crate) mod counter;
pub(crate) mod group_age;
pub(crate) mod leader;
pub(crate) mod location;
pub(crate) mod producer;
pub(crate) mod reassignment;
pub(crate) mod replica_group;
pub(crate) mod site;
pub(crate) mod stored_at;
pub(crate) mod topic;
