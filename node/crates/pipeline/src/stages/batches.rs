//! Records for a partition, in as many batches as they need.

use weir_types::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_BYTES_MAX};
use weir_types::{Batch, BatchBuilder, BatchError, Codec, Offset, RecordRef};

/// Records for a partition, in as many batches as they need.
#[derive(Default)]
pub(crate) struct Batches(Vec<BatchBuilder>);

impl Batches {
    pub(crate) fn push(&mut self, record: &RecordRef<'_>) {
        self.room_for(record.bytes()).push_ref(record);
    }

    /// Returns the last batch if a record of up to `bytes` fits there, or a new batch.
    fn room_for(&mut self, bytes: usize) -> &mut BatchBuilder {
        if !self.0.last().is_some_and(|batch| has_room(batch, bytes)) {
            self.0.push(BatchBuilder::new(Codec::None));
        }
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    pub(crate) fn build(self, is_much: bool) -> impl Iterator<Item = Result<Batch, BatchError>> {
        self.0.into_iter().map(move |batch| build(batch, is_much))
    }
}

/// Builds the batch. Compresses if `is_much` is set or the batch is over the limit, which a record that
/// arrived compressed may cause.
pub(crate) fn build(builder: BatchBuilder, is_much: bool) -> Result<Batch, BatchError> {
    if builder.bytes() <= BATCH_BYTES_MAX && !is_much {
        return builder.build(Offset::ZERO, None);
    }
    builder.with_codec(Codec::Zstd).build(Offset::ZERO, None)
}

/// Returns true if a record of up to `bytes` fits into `batch`. A record that needs compression gets a batch
/// of its own.
pub(crate) fn has_room(batch: &BatchBuilder, bytes: usize) -> bool {
    let is_large = batch.bytes() > RECORD_BYTES_MAX;
    !is_large && batch.bytes() + bytes <= BATCH_BYTES_MAX && batch.count() < BATCH_RECORDS_MAX
}
