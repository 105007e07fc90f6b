//! The keyspaces of the database and the value log, opened together.

use crate::format::keys::{StateKind, data_key, split_data_key};
use crate::format::rows::gap_of;
use crate::store::kv::{Database, Keyspace};
use crate::store::value_log::ValueLog;
use crate::store::value_log::frame::Pointer;
use crate::store::watermark::Watermark;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_types::{Batch, Offset, PartitionId};

#[derive(Clone)]
pub(crate) struct Keyspaces {
    pub(crate) db: Database,
    pub(crate) rlog: Keyspace,
    pub(crate) data: Keyspace,
    pub(crate) state: Keyspace,
    pub(crate) values: Arc<ValueLog>,
}

impl Keyspaces {
    /// Opens the keyspaces of a simulated disk.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn simulated(rows: crate::store::simulated::Open, values: Arc<ValueLog>) -> Self {
        Self {
            rlog: Keyspace::Simulated(rows.keyspace(0)),
            data: Keyspace::Simulated(rows.keyspace(1)),
            state: Keyspace::Simulated(rows.keyspace(2)),
            values,
            db: Database::Simulated(rows),
        }
    }

    /// Names a keyspace that is empty although `promised` names contents.
    pub(crate) fn lacks(&self, promised: &Watermark, headers_only: bool) -> Option<&'static str> {
        let is_empty = |rows: &Keyspace| rows.iter().next().is_none();
        let has_entries = promised.groups.values().any(|synced| synced.index > 0);
        // A vote comes before any entry.
        let has_rows = !is_empty(&self.rlog) || !is_empty(&self.data);
        if (has_entries || has_rows) && is_empty(&self.state) {
            Some("state")
        } else if !headers_only && is_empty(&self.data) && !self.is_all_gap(promised) {
            Some("data")
        } else {
            None
        }
    }

    /// Returns true when all promised records are known to be gone.
    fn is_all_gap(&self, promised: &Watermark) -> bool {
        let mut left: BTreeMap<PartitionId, u64> = BTreeMap::new();
        for (partition, reserve) in &promised.partitions {
            left.insert(*partition, reserve.end.since(reserve.log_start));
        }
        for row in self.state.prefix([StateKind::Gap as u8]) {
            let gap = row
                .into_inner()
                .ok()
                .and_then(|(key, value)| gap_of(&key, &value));
            if let Some((partition, gap)) = gap
                && let (Some(left), Some(reserve)) =
                    (left.get_mut(&partition), promised.partitions.get(&partition))
            {
                let (start, end) = (gap.start.max(reserve.log_start), gap.end.min(reserve.end));
                *left = left.saturating_sub(end.since(start.min(end)));
            }
        }
        left.values().all(|left| *left == 0)
    }

    /// Returns the bytes of the batch that a row of `data` contains or points to.
    pub(crate) fn payload(&self, key: &[u8], row: fjall::Slice) -> std::io::Result<Bytes> {
        let Some(pointer) = Pointer::decode(&row) else {
            return Ok(row.into());
        };
        let mut pointer = pointer;
        loop {
            match self.values.read(key, pointer) {
                // Moved since the row was read. Moves only go forward, so that the loop ends.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => match self.stored(key) {
                    Ok((_, Some(now))) if now.segment > pointer.segment => pointer = now,
                    _ => return Err(e),
                },
                read => return read,
            }
        }
    }

    /// Returns the size of the batch under `key` (0 without a batch), and its pointer if the batch is in the
    /// value log.
    pub(crate) fn stored(&self, key: &[u8]) -> fjall::Result<(u32, Option<Pointer>)> {
        // The index has the size: no blob is read.
        let size = self.data.size_of(key)?.unwrap_or(0);
        if size != Pointer::BYTES as u32 {
            return Ok((size, None));
        }
        let pointer = self.data.get(key)?.and_then(|row| Pointer::decode(&row));
        Ok((pointer.map_or(size, |p| p.len), pointer))
    }
}

impl Keyspaces {
    /// Returns the end of the received batches of each partition.
    pub(crate) fn incoming(&self) -> fjall::Result<BTreeMap<PartitionId, Offset>> {
        let mut ends = BTreeMap::new();
        for guard in self.state.prefix([StateKind::Incoming as u8]) {
            let (key, row) = guard.into_inner()?;
            let Some((partition, base)) = key.get(1..).and_then(split_data_key) else {
                continue;
            };
            let payload = self.payload(&data_key(partition, base), row)?;
            let batch = Batch::parse(payload).ok();
            if let Some(batch) = batch.filter(|b| b.base_offset() == base) {
                ends.insert(partition, batch.end_offset());
            }
        }
        Ok(ends)
    }
}
