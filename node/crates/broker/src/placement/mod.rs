//! Placement of replicas on nodes. Pure: the same plan from the same state.

pub(crate) mod balance;
pub(crate) mod layout;
