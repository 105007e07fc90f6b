//! Counters since the start of the node.

use crate::local::retention::Why;
use crate::local::unserved::UnservedCounts;
use std::sync::atomic::AtomicU64;

/// Counts since start.
#[derive(Debug, Default)]
pub struct BrokerMetrics {
    /// Produce requests.
    pub produce_requests: AtomicU64,
    /// Refused produce requests.
    pub produce_errors: AtomicU64,
    /// Produced records.
    pub records_in: AtomicU64,
    /// Produced bytes of batches.
    pub bytes_in: AtomicU64,
    /// Fetched records.
    pub records_out: AtomicU64,
    /// Fetched bytes of batches.
    pub bytes_out: AtomicU64,
    /// Fetch requests.
    pub fetch_requests: AtomicU64,
    /// Records that retention has removed: by age, by size, over the disk budget.
    pub removed: [AtomicU64; 3],
    /// Unsupported requests.
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
