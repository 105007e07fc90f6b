//! The writer's state: the stored rows, the queue of commands, and the bounds that the handle was opened
//! with.

use crate::write::command::Command;
use crate::write::store_writer::StoreWriter;
use std::sync::mpsc::Receiver;

pub(crate) struct Writer {
    pub(crate) store: StoreWriter,
    pub(crate) commands: Receiver<Command>,
    /// Payload bytes in a sync from which they go to the value log.
    pub(crate) value_log_from_bytes: usize,
    /// Free bytes below which payloads are not moved.
    pub(crate) sweep_reserve_bytes: u64,
    /// Bytes written since the last step of a sweep.
    pub(crate) since_sweep: u64,
    /// Payloads are not stored: see [`crate::options::Options::headers_only`].
    pub(crate) headers_only: bool,
}
