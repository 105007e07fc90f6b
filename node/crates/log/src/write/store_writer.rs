//! The part of the writer that owns the stored state.

use crate::format::position::Position;
use crate::shared::Shared;
use crate::store::keyspaces::Keyspaces;
use crate::store::kv::WriteBatch;
use crate::store::rows_copy::RowsCopy;
use crate::store::value_log::writer::ValueWriter;
use crate::store::watermark::{Reserve, Synced, WatermarkFile};
use crate::write::tail::Tail;
use fjall::PersistMode;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use weir_types::limits::OFFSET_RESERVE;
use weir_types::{GroupId, Offset, PartitionId};

/// Synced bytes between two saves of the low-water mark. Only the chain covers the rest.
pub(super) const WATERMARK_EVERY_BYTES: u64 = 64 << 20;

/// Syncs between two saves of the low-water mark, so that small records count as well. This detects an older
/// `db/` beside newer files, also where the node alone holds its group. It costs a 64th more.
pub(super) const WATERMARK_EVERY_SYNCS: u32 = 64;

/// The stored state of the log, and its changes. Recovery replays effects through the same type.
pub(crate) struct StoreWriter {
    pub(crate) keyspaces: Keyspaces,
    pub(crate) shared: Arc<Shared>,
    pub(crate) watermark: WatermarkFile,
    pub(crate) values: ValueWriter,
    pub(crate) copy: RowsCopy,
    /// Last written entry of each group.
    pub(crate) tails: BTreeMap<GroupId, Tail>,
    /// Positions as stored in `state`.
    pub(crate) positions: BTreeMap<PartitionId, Position>,
    /// Time of the first write that is not yet synced.
    pub(crate) unsynced: Option<Instant>,
    pub(crate) since_watermark: u64,
    pub(crate) syncs_since_watermark: u32,
    /// Batches of a snapshot wait for their installation.
    pub(crate) receiving: bool,
}

impl StoreWriter {
    /// Makes a writer over what is stored, with nothing pending.
    pub(crate) fn new(
        keyspaces: Keyspaces,
        shared: Arc<Shared>,
        watermark: WatermarkFile,
        values: ValueWriter,
        copy: RowsCopy,
        tails: BTreeMap<GroupId, Tail>,
        positions: BTreeMap<PartitionId, Position>,
    ) -> Self {
        Self {
            keyspaces,
            shared,
            watermark,
            values,
            copy,
            tails,
            positions,
            unsynced: None,
            since_watermark: 0,
            syncs_since_watermark: 0,
            receiving: false,
        }
    }

    /// Raises the ceilings, so that no offset is assigned above a ceiling that a power cut would forget.
    pub(crate) fn reserve_offsets(&mut self, ends: &BTreeMap<PartitionId, Offset>) -> fjall::Result<()> {
        let reserves = &mut self.watermark.value.partitions;
        let mut raised = false;
        for (partition, end) in ends {
            let reserve = reserves.entry(*partition).or_default();
            if *end > reserve.ceiling {
                reserve.ceiling = end.plus(OFFSET_RESERVE);
                raised = true;
            }
        }
        if raised || self.watermark.value.clean {
            self.watermark.value.clean = false;
            self.watermark.save()?;
        }
        Ok(())
    }

    /// Makes the low-water mark follow with the next sync: removed records must not return with a repair.
    pub(crate) fn mark_soon(&mut self) {
        self.since_watermark = WATERMARK_EVERY_BYTES;
    }

    pub(crate) fn save_watermark(&mut self, clean: bool) -> fjall::Result<()> {
        let value = &mut self.watermark.value;
        value.groups = self
            .tails
            .iter()
            .map(|(g, t)| {
                (
                    *g,
                    Synced {
                        index: t.last.index,
                        crc: t.crc,
                    },
                )
            })
            .collect();
        value.partitions.retain(|p, _| self.positions.contains_key(p));
        for (partition, position) in &self.positions {
            let Reserve { ceiling, .. } = value.partitions.get(partition).copied().unwrap_or_default();
            let reserve = Reserve {
                log_start: position.log_start,
                end: position.committed_end,
                ceiling: ceiling.max(position.committed_end),
            };
            value.partitions.insert(*partition, reserve);
        }
        self.since_watermark = 0;
        self.syncs_since_watermark = 0;
        if clean {
            self.watermark.save_clean()?
        } else {
            self.watermark.save()?
        }
        Ok(())
    }

    /// Writes and syncs a change to a whole group, then the second copy of its rows.
    pub(crate) fn commit_whole(&mut self, mut batch: WriteBatch) -> fjall::Result<()> {
        self.values.stage(&mut batch, &self.keyspaces.state);
        self.copy.note_all();
        if let Some((key, number)) = self.copy.row() {
            batch.insert(&self.keyspaces.state, key.as_bytes(), number);
        }
        batch.commit(PersistMode::SyncAll)?;
        self.copy.written(&self.keyspaces.state)
    }
}
