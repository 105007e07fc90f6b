//! The client protocol's listener: QUIC in front, the broker behind, translation in between.
//!
//! A connection costs its receive windows and a task; each stream is a queue of requests, answered in order. Produce
//! requests of a stream are handed to the broker in the order in which they come and wait for their commit together.

mod handle;
mod serve;

pub use serve::{OnNode, serve};
