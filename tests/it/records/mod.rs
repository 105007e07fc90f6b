//! Records: batches, the wire of the native protocol, reads and HTTP.

mod batches;
mod fetch;
mod http;
mod wire;
