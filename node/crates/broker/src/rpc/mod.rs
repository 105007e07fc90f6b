//! Requests between the nodes of a site: messages and the sending side.

pub(crate) mod client;
pub(crate) mod message;
