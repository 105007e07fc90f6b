//! State and counters of a pipeline.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use weir_types::sync::Mutex;

/// State of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "why")]
pub enum State {
    /// Records are processed.
    Running,
    /// Paused by a caller. In-line, the source refuses records until the pipeline is resumed.
    Paused,
    /// Halted by an error, given here. In-line, the source refuses records until the pipeline is resumed.
    Halted(String),
}

/// Counters of a pipeline since its threads started. `bytes` are bytes of memory, `ns` nanoseconds.
#[derive(Debug, Default)]
pub struct Counts {
    /// Records processed.
    pub records_in: AtomicU64,
    /// Records that stayed unchanged in the stream.
    pub kept: AtomicU64,
    /// Records that are in no output.
    pub dropped: AtomicU64,
    /// New records in the stream.
    pub emitted: AtomicU64,
    /// Records that became dead letters.
    pub dead_letters: AtomicU64,
    /// Records dropped by the `skip` policy.
    pub skipped: AtomicU64,
    /// Records whose event-time field has no valid time.
    pub bad_times: AtomicU64,
    /// Number of records whose time the watermark had passed.
    pub late: AtomicU64,
    /// Records that were too far ahead of the node's time.
    pub redated: AtomicU64,
    /// Failed calls of modules.
    pub failures: AtomicU64,
    /// Nanoseconds spent in modules.
    pub wasm_ns: AtomicU64,
    /// Rows of state in memory.
    pub state_rows: AtomicU64,
    /// Timers in memory.
    pub timers: AtomicU64,
    /// Bytes of state and timers in memory.
    pub state_bytes: AtomicU64,
    /// Timers that have fired.
    pub timers_fired: AtomicU64,
    /// Offsets whose records were deleted before they were read.
    pub missed: AtomicU64,
    /// Records by output.
    pub routed: Mutex<BTreeMap<String, u64>>,
}
