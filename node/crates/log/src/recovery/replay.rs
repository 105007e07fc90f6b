//! Effects of entries that had not reached `state`, made again.

use crate::format::entry::EntryHeader;
use crate::format::position::Position;
use crate::shared::Shared;
use crate::store::keyspaces::Keyspaces;
use crate::store::rows_copy::RowsCopy;
use crate::store::value_log::writer::ValueWriter;
use crate::store::watermark::WatermarkFile;
use crate::write::tail::Tail;
use crate::write::writer::Writer;
use fjall::PersistMode;
use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use weir_types::{GroupId, PartitionId};

pub(super) type Replayed = (
    BTreeMap<PartitionId, Position>,
    BTreeMap<GroupId, Tail>,
    WatermarkFile,
    ValueWriter,
);

/// Makes the effects of `headers` again, by the same code that makes them while running.
pub(super) fn replay_effects(
    keyspaces: &Keyspaces,
    watermark: WatermarkFile,
    values: ValueWriter,
    positions: BTreeMap<PartitionId, Position>,
    tails: BTreeMap<GroupId, Tail>,
    headers: Vec<Arc<EntryHeader>>,
) -> fjall::Result<Replayed> {
    let (_, commands) = mpsc::channel();
    let mut writer = Writer {
        keyspaces: keyspaces.clone(),
        shared: Arc::new(Shared::default()),
        commands,
        watermark,
        values,
        copy: RowsCopy::unused(),
        value_log_from_bytes: 0,
        sweep_reserve_bytes: 0,
        tails,
        positions,
        unsynced: None,
        since_watermark: 0,
        syncs_since_watermark: 0,
        since_sweep: 0,
        receiving: false,
        headers_only: false,
    };
    headers
        .into_iter()
        .for_each(|header| writer.shared.add_effects(header));
    let mut batch = keyspaces.db.batch();
    writer.stage_effects(&mut batch)?;
    writer.values.stage(&mut batch, &keyspaces.state);
    if !batch.is_empty() {
        batch.commit(PersistMode::SyncData)?;
    }
    while writer.values.has_dead() {
        writer.values.remove_dead();
    }
    Ok((writer.positions, writer.tails, writer.watermark, writer.values))
}
