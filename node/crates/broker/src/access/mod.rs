//! Permissions, quotas, and the resources that a node shares out.

pub(crate) mod auth;
pub(crate) mod ledger;
pub(crate) mod quota;
