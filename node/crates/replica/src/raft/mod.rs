//! What openraft stands on: the log that it writes to, the streams that it talks over, and what a committed
//! entry does.

pub(crate) mod append;
pub(crate) mod bootstrap;
pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod send_snapshot;
pub(crate) mod shared;
pub(crate) mod store;
pub(crate) mod stream;
pub(crate) mod tail;
pub(crate) mod timing;
pub mod witness;
