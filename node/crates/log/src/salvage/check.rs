//! Questions of the simulation about a repair.

use crate::format::keys::split_data_key;
use crate::recovery::carve::is_batch_of;
use crate::salvage::gather::Salvage;
use crate::store::keyspaces::Keyspaces;
use crate::store::simulated::Disk;
use crate::store::value_log::frame::Pointer;
use crate::store::value_log::{VALUES, ValueLog};
use crate::store::watermark::WatermarkFile;
use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use weir_types::Batch;

/// Checks that a repair from the files beside the database alone would restore each whole batch in the value
/// log of `dir`, whose rows are on `disk`. Changes nothing, but ends the write access of earlier handles to
/// the disk.
///
/// # Errors
/// Names the batch that would be lost, or the reason why the files cannot be read.
pub fn comes_back(disk: &Disk, dir: &Path) -> Result<(), String> {
    let keyspaces = |disk: &Disk| {
        let (rows, values) = (disk.open(), ValueLog::new(dir.join(VALUES)));
        Keyspaces::simulated(rows, Arc::new(values))
    };
    let (old, new) = (keyspaces(disk), keyspaces(&Disk::default()));
    let (watermark, marked) = WatermarkFile::load(dir).map_err(|e| e.to_string())?;
    let mut salvage = Salvage::new(new.clone(), None, &watermark, marked);
    salvage.finish(dir, &[]).map_err(|e| e.at(dir).to_string())?;
    // The batch was deleted, and its row was about to go.
    let is_given_up = |key: &[u8], bytes: &Bytes| {
        let promised = split_data_key(key).and_then(|(id, _)| watermark.value.partitions.get(&id));
        let batch = Batch::parse(bytes.clone()).ok();
        promised
            .zip(batch)
            .is_some_and(|(promised, batch)| batch.end_offset() <= promised.log_start)
    };
    for row in old.data.iter() {
        let (key, row) = row.into_inner().map_err(|e| e.to_string())?;
        if Pointer::decode(&row).is_none() {
            continue;
        }
        let batch = |keyspaces: &Keyspaces, row| {
            let bytes = keyspaces.payload(&key, row).ok()?;
            is_batch_of(&key, &bytes).then_some(bytes)
        };
        let Some(whole) = batch(&old, row) else {
            continue;
        };
        if is_given_up(&key, &whole) {
            continue;
        }
        let back = new.data.get(&key).ok().flatten();
        if back.and_then(|row| batch(&new, row)) != Some(whole) {
            return Err(format!(
                "the batch under {key:?} is whole in the value log and does not come back"
            ));
        }
    }
    Ok(())
}
