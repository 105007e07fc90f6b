//! Bounds of a revision.

use serde::{Deserialize, Serialize};

/// Bounds that a revision must keep to for a while, or the one before it comes back. One that halts leaves them, too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guard {
    /// Seconds after it was put in place for which it is watched.
    pub watch_s: u32,
    /// Records before which nothing is judged but that it halts.
    pub min_records: u64,
    /// Largest share of records that become dead letters or are skipped.
    pub failed_max: Option<f64>,
    /// Longest time in its modules for a record, on average, in nanoseconds.
    pub ns_max: Option<u64>,
    /// Fewest and most records that come out for each that goes in, on average, those for named outputs included.
    pub output: Option<[f64; 2]>,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            // Longer than what an operator watches after a change.
            watch_s: 600,
            // A share of one in a hundred is told from chance.
            min_records: 100,
            failed_max: None,
            ns_max: None,
            output: None,
        }
    }
}
