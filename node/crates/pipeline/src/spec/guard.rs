//! Bounds of a revision.

use serde::{Deserialize, Serialize};

/// Bounds that a new revision has to keep for a while. A revision that leaves them, or halts, is rolled back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guard {
    /// Seconds for which a new revision is watched.
    pub watch_s: u32,
    /// Records after which the bounds are checked. A halted pipeline is rolled back earlier.
    pub min_records: u64,
    /// Largest share of records that become dead letters or are skipped, 0 to 1.
    pub failed_max: Option<f64>,
    /// Longest time in the modules per record, on average, in nanoseconds.
    pub ns_max: Option<u64>,
    /// Fewest and most output records per input record, on average. Records for named outputs count.
    pub output: Option<[f64; 2]>,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            // Longer than an operator usually watches after a change.
            watch_s: 600,
            // Enough to tell a failure rate of 1 % from chance.
            min_records: 100,
            failed_max: None,
            ns_max: None,
            output: None,
        }
    }
}
