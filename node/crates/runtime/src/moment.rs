//! The times at which a guest is called.

/// The times at which a call happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When the node took the records in or called on its own, in milliseconds since 1970.
    pub now: i64,
    /// No record before this time is expected any more; the smallest number when that is not known.
    pub watermark: i64,
}

impl Default for Moment {
    /// No time at all.
    fn default() -> Self {
        Self {
            now: 0,
            watermark: i64::MIN,
        }
    }
}
