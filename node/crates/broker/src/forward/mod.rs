//! Calls that any node of the site takes: answered here, or by the node that leads.

pub(crate) mod dispatch;
pub(crate) mod pipelines;
pub(crate) mod records;
pub(crate) mod topics;
