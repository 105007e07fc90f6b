//! Replacing damaged batches by another replica's copies.

use crate::format::keys::{data_key, split_data_key};
use crate::write::command::Received;
use crate::write::store_writer::StoreWriter;
use fjall::PersistMode;
use weir_types::Batch;

impl StoreWriter {
    /// Replaces unreadable batches and returns their number. Only committed batches are equal on every
    /// replica.
    pub(crate) fn mend(&mut self, received: Received) -> fjall::Result<usize> {
        let Received { partition, batches } = received;
        let Some(marks) = self.shared.positions.marks(partition) else {
            return Ok(0);
        };
        let mut batch = self.keyspaces.db.batch();
        let (mut mended, mut ranges) = (0, Vec::new());
        for theirs in batches {
            let base = theirs.base_offset();
            let key = data_key(partition, base);
            let outside =
                theirs.end_offset() > marks.committed_end() || theirs.end_offset() <= marks.log_start();
            if outside || self.is_whole(&key) {
                continue;
            }
            tracing::warn!(%partition, offset = %base, "a damaged batch is replaced by another replica's copy");
            // The damaged row's payload stays accounted for, since the row cannot be trusted: its segment is
            // removed later.
            ranges.push((base, theirs.end_offset()));
            batch.insert(&self.keyspaces.data, key, theirs.into_bytes());
            mended += 1;
        }
        if mended > 0 {
            batch.commit(PersistMode::SyncData)?;
        }
        ranges
            .into_iter()
            .for_each(|(start, end)| marks.mended(start, end));
        Ok(mended)
    }

    pub(super) fn is_whole(&self, key: &[u8; 12]) -> bool {
        let row = self.keyspaces.data.get(key).ok().flatten();
        let payload = row.and_then(|row| self.keyspaces.payload(key, row).ok());
        let batch = payload.and_then(|payload| Batch::parse(payload).ok());
        batch.is_some_and(|b| split_data_key(key).is_some_and(|(_, base)| b.base_offset() == base))
    }
}
