//! Replay of effects that had not reached `state`.

use crate::format::entry::EntryHeader;
use crate::format::position::Position;
use crate::shared::Shared;
use crate::store::keyspaces::Keyspaces;
use crate::store::rows_copy::RowsCopy;
use crate::store::value_log::writer::ValueWriter;
use crate::store::watermark::WatermarkFile;
use crate::write::store_writer::StoreWriter;
use crate::write::tail::Tail;
use fjall::PersistMode;
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_types::{GroupId, PartitionId};

pub(super) type Replayed = (
    BTreeMap<PartitionId, Position>,
    BTreeMap<GroupId, Tail>,
    WatermarkFile,
    ValueWriter,
);

/// Replays the effects of `headers`, with the same code as a running writer.
pub(super) fn replay_effects(
    keyspaces: &Keyspaces,
    watermark: WatermarkFile,
    values: ValueWriter,
    positions: BTreeMap<PartitionId, Position>,
    tails: BTreeMap<GroupId, Tail>,
    headers: Vec<Arc<EntryHeader>>,
) -> fjall::Result<Replayed> {
    let mut writer = StoreWriter::new(
        keyspaces.clone(),
        Arc::new(Shared::default()),
        watermark,
        values,
        RowsCopy::unused(),
        tails,
        positions,
    );
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
