//! What came of dating the records of a batch.

/// What came of dating the records of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Dated {
    /// The records' own timestamps, where others stand for them.
    pub(crate) own: Vec<i64>,
    /// A mark for each record, or none at all where none needs one.
    pub(crate) marks: Vec<u8>,
    /// Records that have no time and are to be dead letters, in their order, and why.
    pub(crate) undated: Vec<(u32, String)>,
    /// Records whose field says no time, those among them.
    pub(crate) bad: u64,
    /// Records that the watermark had passed.
    pub(crate) late: u64,
    /// Records that were too far ahead, and have the node's time.
    pub(crate) redated: u64,
}

impl Dated {
    /// Whether a record is to be a dead letter.
    pub(crate) fn is_undated(&self, n: u32) -> bool {
        self.undated.binary_search_by_key(&n, |(n, _)| *n).is_ok()
    }
}
