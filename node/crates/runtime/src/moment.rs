//! The times of a call.

/// The times of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Time at which the node received the records or made the call, in milliseconds since 1970.
    pub now: i64,
    /// No record before this time is expected; the smallest number when unknown.
    pub watermark: i64,
}

impl Default for Moment {
    /// Returns the time before everything.
    fn default() -> Self {
        Self {
            now: 0,
            watermark: i64::MIN,
        }
    }
}
