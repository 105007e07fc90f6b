//! Limits on a call of a guest.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Limits on an instance and on each of its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CallLimits {
    /// Milliseconds per call, and again for each MiB of the batch.
    pub deadline_ms: u32,
    /// Bytes of linear memory.
    pub memory_bytes: usize,
    /// Bytes that a call may return or pass to the host.
    pub output_bytes: usize,
    /// Lines that a call may log.
    pub log_lines: u32,
    /// Bytes of memory for the state of all stages of a pipeline on a node, over all partitions.
    pub state_bytes: usize,
}

impl Default for CallLimits {
    fn default() -> Self {
        // A thousand records take 0.05 ms in Rust and 26 ms in JavaScript; C and Rust guests need 1 or 2 MiB.
        Self {
            deadline_ms: 100,
            memory_bytes: 16 << 20,
            output_bytes: 8 << 20,
            log_lines: 16,
            // 300,000 keys with a number each: a third of the limit for all pipelines of a node.
            state_bytes: 32 << 20,
        }
    }
}

/// Longest key, in bytes.
pub const STATE_KEY_BYTES_MAX: usize = 4 << 10;
/// Longest value, in bytes.
pub const STATE_VALUE_BYTES_MAX: usize = 1 << 20;
/// Longest kept line in bytes; the rest is cut.
pub(crate) const LOG_LINE_BYTES_MAX: usize = 1 << 10;
/// Elements of a guest's tables of function pointers; CPython has about 10,000.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 50_000;
/// Core instances, tables and memories of a component: composed components have a handful, those of
/// componentize-py about forty.
pub(crate) const PARTS_MAX: usize = 64;
/// Handles of the virtual WASI per instance: libc holds three streams and a pollable or two.
pub(crate) const WASI_HANDLES_MAX: usize = 64;
/// Random bytes per call of the virtual WASI: `getentropy` asks for 256.
pub(crate) const WASI_RANDOM_BYTES_MAX: usize = 64 << 10;
/// Instruments per instance.
pub(crate) const INSTRUMENTS_MAX: usize = 64;
/// Longest name of an instrument in bytes.
pub(crate) const INSTRUMENT_NAME_BYTES_MAX: usize = 64;
/// Largest compiled function body in bytes: Cranelift's time grows faster than the size (wasmtime issue
/// 4291).
pub(crate) const FUNCTION_BYTES_MAX: usize = 512 << 10;

impl CallLimits {
    /// Returns the deadline of a call with `bytes` of records.
    pub fn deadline(&self, bytes: usize) -> Duration {
        let base = u64::from(self.deadline_ms);
        Duration::from_millis(base + base * bytes as u64 / (1 << 20))
    }
}
