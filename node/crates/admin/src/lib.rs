//! Administration of a node, the same for each listener: takes the broker and the pipelines, answers the
//! types of `weir-api`.
//!
//! A crate of its own, because `weir-api` is pure and knows neither broker nor pipelines, and because the
//! listeners for QUIC and HTTP would each need the same conversions. Conversions take structs of the broker
//! and of pipelines apart by all their fields: a field that is added there does not compile here until it is
//! told or left out on purpose.

mod cluster;
mod groups;
mod modules;
mod pipelines;
mod scrub;
mod services;
mod shadow;
mod spec;
mod status;
mod topics;

pub use cluster::RemoveNodeError;
pub use services::{Services, Start};
pub use topics::{gap, named_gaps};
