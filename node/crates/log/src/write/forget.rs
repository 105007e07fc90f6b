//! Removing a group that this node has left.

use crate::format::entry::EntryId;
use crate::format::keys::{StateKey, StateKind, rlog_key, split_data_key};
use crate::format::rows::{id_row, split_id};
use crate::store::value_log::frame::Pointer;
use crate::write::store_writer::StoreWriter;
use fjall::PersistMode;
use std::collections::BTreeMap;
use weir_types::{GroupId, Offset, PartitionId};

impl StoreWriter {
    /// Removes all of `group` except this node's vote and its last index. A node that returns must not vote
    /// twice in a term, nor elect a leader that lacks acknowledged entries.
    pub(crate) fn forget(&mut self, group: GroupId) -> fjall::Result<()> {
        let mut batch = self.keyspaces.db.batch();
        self.stage_effects(&mut batch)?;
        self.values.stage(&mut batch, &self.keyspaces.state);
        batch.commit(PersistMode::Buffer)?;
        self.copy.written(&self.keyspaces.state)?;
        let mut batch = self.keyspaces.db.batch();
        let partitions: Vec<PartitionId> = self.positions.keys().copied().collect();
        for partition in partitions.into_iter().filter(|p| p.group() == group) {
            self.remove_rows(&mut batch, partition, Offset::MAX)?;
            self.positions.remove(&partition);
        }
        let rows = self
            .keyspaces
            .rlog
            .range(rlog_key(group, 0)..=rlog_key(group, u64::MAX));
        for row in rows {
            batch.remove(&self.keyspaces.rlog, row.key()?);
        }
        let own = [StateKind::Applied, StateKind::Purged].map(|k| StateKey::new(k, &group.0.to_be_bytes()));
        let mut receiving = false;
        for row in self.keyspaces.state.iter() {
            let (key, value) = row.into_inner()?;
            let incoming = key.first() == Some(&(StateKind::Incoming as u8));
            let place = key.get(1..).filter(|_| incoming).and_then(split_data_key);
            let is_its = match place {
                Some((partition, _)) => partition.group() == group,
                None => StateKey::group(&key) == Some(group) || own.iter().any(|k| k.as_bytes() == &key[..]),
            };
            receiving |= incoming && !is_its;
            if is_its {
                batch.remove(&self.keyspaces.state, key);
                if let Some(pointer) = place.and_then(|_| Pointer::decode(&value)) {
                    self.values.free(pointer);
                }
            }
        }
        let had = self.tails.remove(&group).map_or(EntryId::default(), |t| t.last);
        let key = StateKey::new(StateKind::Forgotten, &group.0.to_be_bytes());
        let before = self.keyspaces.state.get(key.as_bytes())?;
        let before = before.and_then(|row| split_id(&row)).unwrap_or_default();
        batch.insert(&self.keyspaces.state, key.as_bytes(), id_row(had.max(before)));
        // Save first, so that the next start does not report the removed rows as missing.
        self.save_watermark(false)?;
        self.commit_whole(batch)?;
        self.unsynced = None;
        self.receiving = receiving;
        self.values.remove_dead();
        self.shared.positions.retain(group, &BTreeMap::new());
        Ok(())
    }
}
