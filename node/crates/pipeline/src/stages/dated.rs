//! The result of dating the records of a batch.

/// The result of dating the records of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Dated {
    /// The records' original timestamps, if any timestamp was replaced; else empty.
    pub(crate) own: Vec<i64>,
    /// A mark for each record, or empty if no record has a mark.
    pub(crate) marks: Vec<u8>,
    /// Records without a time that become dead letters, by ascending index, with the reason.
    pub(crate) undated: Vec<(u32, String)>,
    /// Number of records whose field has no valid time, dead letters included.
    pub(crate) bad: u64,
    /// Number of records whose time the watermark had passed.
    pub(crate) late: u64,
    /// Number of records that were too far ahead and got the node's time.
    pub(crate) redated: u64,
}

impl Dated {
    /// Returns true if record `n` becomes a dead letter.
    pub(crate) fn is_undated(&self, n: u32) -> bool {
        self.undated.binary_search_by_key(&n, |(n, _)| *n).is_ok()
    }
}
