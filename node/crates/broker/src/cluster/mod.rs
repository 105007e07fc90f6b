//! The nodes of a site: joining, leadership, replica groups, reassignment, and the outbox between groups.

pub(crate) mod addresses;
pub(crate) mod balance;
pub(crate) mod channels;
pub(crate) mod join;
pub(crate) mod leadership;
pub(crate) mod level;
pub(crate) mod outbox;
pub(crate) mod presence;
pub(crate) mod reassign;
pub(crate) mod reconcile;
pub(crate) mod status;
pub(crate) mod token;
