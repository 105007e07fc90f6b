//! Validation of the records of a batch: malformed records are never stored.

use weir_types::{Batch, BatchError, Body};

/// The finding of a walk over the records of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// The earliest and the latest timestamp in milliseconds, with the index of the record.
    pub(crate) earliest: Option<(i64, u32)>,
    pub(crate) latest: Option<(i64, u32)>,
    /// The first record without a key.
    pub(crate) keyless: Option<u32>,
    pub(crate) longest_key: usize,
    pub(crate) most_headers: usize,
}

impl Seen {
    /// Returns true if nodes of the first release would take the batch for damaged.
    pub(crate) fn is_beyond_first_release(&self) -> bool {
        self.longest_key > FIRST_KEY_BYTES_MAX || self.most_headers > FIRST_HEADERS_MAX
    }
}

/// Longest key, and most headers of a record, that nodes of the first release read.
const FIRST_KEY_BYTES_MAX: usize = 32 << 10;

const FIRST_HEADERS_MAX: usize = 1_000;

/// Validates all records, so that later code can rely on them.
pub(crate) fn validate(batch: &Batch) -> Result<Seen, BatchError> {
    walk(&batch.body()?)
}

/// Validates a batch with a usual compression ratio; `None` for others.
pub(crate) fn as_usual(batch: &Batch) -> Result<Option<Seen>, BatchError> {
    batch.usual_body()?.map(|body| walk(&body)).transpose()
}

fn walk(body: &Body) -> Result<Seen, BatchError> {
    let mut seen = Seen::default();
    for (index, record) in (0..).zip(body.records()) {
        let record = record?;
        let at = record.timestamp;
        if at >= 0 && seen.earliest.is_none_or(|(earliest, _)| at < earliest) {
            seen.earliest = Some((at, index));
        }
        if seen.latest.is_none_or(|(latest, _)| at > latest) {
            seen.latest = Some((at, index));
        }
        match record.key {
            None => {
                seen.keyless.get_or_insert(index);
            }
            Some(key) => seen.longest_key = seen.longest_key.max(key.len()),
        }
        seen.most_headers = seen.most_headers.max(record.headers.len());
    }
    Ok(seen)
}
