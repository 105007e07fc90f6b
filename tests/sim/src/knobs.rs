//! Settings that faults turn while a node runs.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32};

/// Knobs of the faults.
#[derive(Default)]
pub(crate) struct Knobs {
    pub(crate) slow_disk_ms: AtomicU32,
    pub(crate) lost_permille: AtomicU32,
    pub(crate) twice_permille: AtomicU32,
    /// Error of the clock, in milliseconds.
    pub(crate) skew_ms: AtomicI64,
    /// Its disk was full, or nearly.
    pub(crate) was_full: AtomicBool,
}
