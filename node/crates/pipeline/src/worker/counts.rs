//! Whether a pipeline works, and what it has done.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

/// Whether a pipeline works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "why")]
pub enum State {
    /// It works.
    Running,
    /// Somebody paused it. In-line, its source refuses records until it is resumed.
    Paused,
    /// It stopped. In-line, its source refuses records until it is resumed.
    Halted(String),
}

/// Counts since the lane began.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "named for what they count")]
pub struct Counts {
    pub records_in: AtomicU64,
    pub kept: AtomicU64,
    pub dropped: AtomicU64,
    pub emitted: AtomicU64,
    pub dead_letters: AtomicU64,
    pub skipped: AtomicU64,
    /// Records whose field of the event time says none.
    pub bad_times: AtomicU64,
    /// Records that the watermark had passed.
    pub late: AtomicU64,
    /// Records that were too far ahead of the node's time.
    pub redated: AtomicU64,
    pub failures: AtomicU64,
    pub wasm_ns: AtomicU64,
    /// Rows of state in memory.
    pub state_rows: AtomicU64,
    /// Timers that are set, of those partitions.
    pub timers: AtomicU64,
    /// What both take.
    pub state_bytes: AtomicU64,
    /// Timers that were due.
    pub timers_fired: AtomicU64,
    /// Offsets that were gone before they were read.
    pub missed: AtomicU64,
    /// Records by output.
    pub routed: Mutex<BTreeMap<String, u64>>,
}
