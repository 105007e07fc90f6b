//! The client protocol's listener: QUIC in front, the broker behind, translation in between.
//!
//! A connection costs its receive windows and a task. Each stream is a queue of requests, answered in order.
//! Produce requests of a stream reach the broker in their order, and wait for their commits together.

mod answer;
mod api;
mod error;
mod serve;
mod session;

pub use serve::{OnNode, serve};
