//! Rows of `state` that recovery reads, restores and counts.

use crate::format::keys::{StateKey, StateKind, split_data_key};
use crate::format::position::Position;
use crate::format::rows::gap_of;
use crate::recovery::state::Recovery;
use crate::store::rows_copy::RowsCopy;
use bytes::Bytes;
use fjall::PersistMode;
use std::collections::BTreeMap;
use weir_types::{Gap, PartitionId};

impl Recovery {
    pub(super) fn load_positions(&mut self) -> fjall::Result<BTreeMap<PartitionId, Position>> {
        let mut positions = BTreeMap::new();
        for guard in self.keyspaces.state.prefix([StateKind::Position as u8]) {
            let (key, value) = guard.into_inner()?;
            let id = key
                .get(1..)
                .and_then(|k| k.first_chunk::<4>())
                .map(|b| PartitionId(u32::from_be_bytes(*b)));
            match id.zip(Position::decode(&Bytes::from(value))) {
                Some((id, position)) => drop(positions.insert(id, position)),
                None => self.suspect = true,
            }
        }
        Ok(positions)
    }

    pub(super) fn load_gaps(&self) -> fjall::Result<BTreeMap<PartitionId, Vec<Gap>>> {
        let mut gaps: BTreeMap<PartitionId, Vec<Gap>> = BTreeMap::new();
        for guard in self.keyspaces.state.prefix([StateKind::Gap as u8]) {
            let (key, value) = guard.into_inner()?;
            if let Some((partition, gap)) = gap_of(&key, &value) {
                gaps.entry(partition).or_default().push(gap);
            }
        }
        Ok(gaps)
    }

    /// Restores rows from their second copy, after damage. Later entries are replayed on top.
    pub(super) fn restore_rows(&self) -> fjall::Result<()> {
        let found = RowsCopy::load(&self.dir)?;
        let mut batch = self.keyspaces.db.batch();
        found.restore(&self.keyspaces.state, &mut batch)?;
        batch.commit(PersistMode::SyncAll)
    }

    /// Counts the bytes of each partition again: replayed entries have counted the restored rows twice.
    pub(super) fn recount(&self, positions: &mut BTreeMap<PartitionId, Position>) -> fjall::Result<()> {
        positions.values_mut().for_each(|position| position.bytes = 0);
        for row in self.keyspaces.data.iter() {
            let key = row.key()?;
            let (bytes, _) = self.keyspaces.stored(&key)?;
            if let Some((partition, _)) = split_data_key(&key) {
                positions.entry(partition).or_default().bytes += u64::from(bytes);
            }
        }
        let mut batch = self.keyspaces.db.batch();
        for (partition, position) in positions {
            let key = StateKey::partition(StateKind::Position, *partition);
            batch.insert(&self.keyspaces.state, key.as_bytes(), position.encode());
        }
        batch.commit(PersistMode::SyncAll)
    }

    /// Makes the second copy of rows match the database.
    pub(super) fn copy_rows(&self) -> fjall::Result<RowsCopy> {
        let mut copy = RowsCopy::new(&self.dir);
        if let Some(number) = copy.catch_up(&self.keyspaces.state)? {
            let mut batch = self.keyspaces.db.batch();
            let key = StateKey::new(StateKind::Copied, &[]);
            batch.insert(&self.keyspaces.state, key.as_bytes(), number.to_be_bytes());
            batch.commit(PersistMode::Buffer)?;
        }
        Ok(copy)
    }
}
