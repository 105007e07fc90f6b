//! Batches of unique values, and their view by a reader.

use crate::Seen;
use weir_types::{Batch, BatchBuilder, BatchError, Codec, Headers, Offset, Producer};

/// Builds a batch of an idempotent producer: a record for each value, of sizes on both sides of the value
/// log's threshold.
///
/// # Errors
/// When there is no value.
pub fn batch(id: i64, sequence: i32, values: &[u64]) -> Result<Batch, BatchError> {
    let mut builder = BatchBuilder::new(Codec::None);
    for value in values {
        let text = format!("{value}:{}", "x".repeat((*value % 2_000) as usize));
        builder.push(0, None, Some(text.as_bytes()), Headers::NONE);
    }
    let producer = Producer {
        id,
        epoch: 0,
        sequence,
    };
    builder.build(Offset::ZERO, Some(producer))
}

/// Returns a reader's view of such a batch from `from` on. A record without a value reads as `u64::MAX`,
/// which no client sends.
///
/// # Errors
/// When the batch cannot be read.
pub fn seen(batch: &Batch, from: Offset) -> Result<Vec<Seen>, BatchError> {
    let mut seen = Vec::new();
    for record in batch.body()?.records() {
        let record = record?;
        if record.offset >= from {
            let text = std::str::from_utf8(record.value.unwrap_or_default()).unwrap_or_default();
            let value = text.split(':').next().and_then(|v| v.parse().ok());
            seen.push(Seen {
                offset: record.offset.get(),
                value: value.unwrap_or(u64::MAX),
            });
        }
    }
    Ok(seen)
}
