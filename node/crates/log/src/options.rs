//! Settings of a log, and the environment that a log runs in.

use crate::host::workers::{Threads, Workers};
use std::sync::Arc;

/// Settings of a log.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of decoded blocks kept in memory.
    pub cache_bytes: u64,
    /// Bytes that a keyspace gathers in memory before it writes a table.
    pub memtable_bytes: u64,
    /// Bytes of journals on the disk, at least 64 MiB.
    pub journal_bytes: u64,
    /// Payload bytes in a sync from which they go to the value log.
    pub value_log_from_bytes: usize,
    /// Bytes of a value-log segment: space comes back a segment at a time.
    pub value_file_bytes: u64,
    /// Bytes of the disk that are never used for records. `None` means 5 % of the disk: at least 256 MiB, at
    /// most 5 GiB or a quarter.
    pub disk_reserve_bytes: Option<u64>,
    /// Keep entries without their batches, as a witness does.
    pub headers_only: bool,
    /// Refuse to open a log with missing data, and give nothing up. A node sets this until an operator asks
    /// for a repair.
    pub only_whole: bool,
}

impl Default for Options {
    fn default() -> Self {
        // The figures of ../../../tests/bench: 49 MiB resident at these sizes, and no slower than larger
        // ones.
        Self {
            cache_bytes: 8 << 20,
            memtable_bytes: 16 << 20,
            journal_bytes: 128 << 20,
            value_log_from_bytes: 128 << 10,
            // Large enough that new segments are rare, small enough that retention frees space soon on a
            // small disk. fjall's blob files have the same target.
            value_file_bytes: 32 << 20,
            disk_reserve_bytes: None,
            headers_only: false,
            only_whole: false,
        }
    }
}

/// The place of the rows. Payloads of large rounds and the low-water mark are always files of the log's
/// directory.
#[derive(Clone)]
pub enum Store {
    /// In fjall's files, in the log's directory.
    Files,
    /// On a simulated disk.
    #[cfg(any(test, feature = "testing"))]
    Simulated(crate::store::simulated::Disk),
}

/// The environment of a log, which a simulation replaces as a whole.
#[derive(Clone)]
pub struct Environment {
    /// Runs the loops that write and read.
    pub workers: Arc<dyn Workers>,
    /// Place of the rows.
    pub store: Store,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            workers: Arc::new(Threads),
            store: Store::Files,
        }
    }
}

/// Disk usage of a log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Bytes of all files of the database and of the value log.
    pub disk_bytes: u64,
    /// Bytes left on the disk.
    pub free_bytes: u64,
    /// Bytes of the disk that are kept free of records.
    pub reserve_bytes: u64,
    /// Bytes written since start, before the file system.
    pub written_bytes: u64,
    /// Syncs since start.
    pub syncs: u64,
}
