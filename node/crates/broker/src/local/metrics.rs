//! Counters since the start of the node.

use crate::local::retention::Why;
use crate::local::unserved::UnservedCounts;
use std::sync::atomic::AtomicU64;

/// Counts since start.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "named for what they count")]
pub struct BrokerMetrics {
    pub produce_requests: AtomicU64,
    pub produce_errors: AtomicU64,
    pub records_in: AtomicU64,
    pub bytes_in: AtomicU64,
    pub records_out: AtomicU64,
    pub bytes_out: AtomicU64,
    pub fetch_requests: AtomicU64,
    /// Records that retention has removed: by age, by size, over the disk budget.
    pub removed: [AtomicU64; 3],
    pub unserved: UnservedCounts,
}

impl BrokerMetrics {
    /// Records that retention has removed for this reason.
    pub fn removed(&self, why: Why) -> &AtomicU64 {
        let [age, size, budget] = &self.removed;
        match why {
            Why::Age => age,
            Why::Size => size,
            Why::Budget => budget,
        }
    }
}
