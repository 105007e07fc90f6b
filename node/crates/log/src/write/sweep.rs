//! Emptying files of the value log, and the work of idle moments.

use crate::format::keys::data_key;
use crate::write::writer::Writer;
use fjall::PersistMode;

/// One step of emptying a file of the value log moves this much and at most a batch more, and comes after this many
/// bytes written: about a quarter more is written, and a round waits for it as for one of its own size.
pub(super) const SWEEP_BYTES: u64 = 1 << 20;

pub(super) const SWEEP_EVERY_BYTES: u64 = 4 << 20;

impl Writer {
    /// Moves some of what still counts out of a file of the value log of which most does not. Whether there was any.
    pub(super) fn sweep(&mut self) -> fjall::Result<bool> {
        self.since_sweep = 0;
        if self.store.receiving {
            // What is received has no row of `data` yet to be changed.
            return Ok(false);
        }
        // A full disk would stop the log, and that for tidying up.
        let free = self
            .store
            .keyspaces
            .db
            .free_bytes(self.store.keyspaces.values.dir())?;
        if free < self.sweep_reserve_bytes {
            return Ok(false);
        }
        let mut moves = Vec::new();
        for (header, pointer) in self.store.values.movable(SWEEP_BYTES) {
            let key = data_key(header.partition, header.base);
            match self.store.keyspaces.values.read(&key, pointer) {
                Ok(payload) => moves.push((header, pointer, payload)),
                Err(error) => {
                    tracing::error!(segment = pointer.segment, %error, "cannot read the value log");
                    self.store.values.give_up(pointer.segment);
                }
            }
        }
        if moves.is_empty() {
            return Ok(false);
        }
        let values = moves.iter().map(|(h, _, b)| (h.partition, h.base, &b[..]));
        let moved = self.store.values.append(values)?;
        let mut batch = self.store.keyspaces.db.batch();
        for ((header, from, _), to) in moves.iter().zip(moved) {
            let key = data_key(header.partition, header.base);
            batch.insert(&self.store.keyspaces.data, key, to.encode());
            self.store.values.free(*from);
        }
        self.store.values.stage(&mut batch, &self.store.keyspaces.state);
        batch.commit(PersistMode::SyncData)?;
        let bytes: usize = moves.iter().map(|(_, _, payload)| payload.len()).sum();
        self.store.shared.wrote(bytes as u64, true);
        self.store.unsynced = None;
        self.store.values.remove_dead();
        Ok(true)
    }

    /// With nothing else to do: syncs what was lazy, and writes effects that found no batch to ride with. Whether there
    /// was nothing to do.
    pub(super) fn settle(&mut self) -> fjall::Result<bool> {
        let has_effects = self.store.shared.has_effects();
        if has_effects {
            let mut batch = self.store.keyspaces.db.batch();
            self.store.stage_effects(&mut batch)?;
            self.store.values.stage(&mut batch, &self.store.keyspaces.state);
            batch.commit(PersistMode::Buffer)?;
        }
        self.store.copy.written(&self.store.keyspaces.state)?;
        let has_unsynced = self.store.unsynced.is_some() || self.store.values.has_dead();
        if has_unsynced {
            self.store.keyspaces.db.persist(PersistMode::SyncData)?;
            self.store.unsynced = None;
            self.store.values.remove_dead();
        }
        let has_moved = self.sweep()?;
        Ok(!(has_effects || has_unsynced || has_moved))
    }

    pub(super) fn close(&mut self) -> fjall::Result<()> {
        self.settle()?;
        self.store.keyspaces.db.persist(PersistMode::SyncAll)?;
        self.store.copy.sync_in_time(true)?;
        self.store.save_watermark(true)
    }
}
