//! Emptying segments of the value log, and other idle work.

use crate::format::keys::data_key;
use crate::write::writer::Writer;
use fjall::PersistMode;

/// Bytes moved by a step of a sweep (at most a batch more), and bytes written between two steps: about a
/// quarter more is written, and a round waits for a step as long as for a round of its size.
pub(super) const SWEEP_BYTES: u64 = 1 << 20;

pub(super) const SWEEP_EVERY_BYTES: u64 = 4 << 20;

impl Writer {
    /// Moves live payloads out of a segment that is mostly dead. Returns true when there was such a segment.
    pub(super) fn sweep(&mut self) -> fjall::Result<bool> {
        self.since_sweep = 0;
        if self.store.receiving {
            // Received batches have no row of `data` yet.
            return Ok(false);
        }
        // Tidying up must not fill the disk, which would stop the log.
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

    /// Does idle work: syncs lazy entries, and writes effects that found no batch. Returns true when there
    /// was nothing to do.
    pub(super) fn flush_idle(&mut self) -> fjall::Result<bool> {
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
        self.flush_idle()?;
        self.store.keyspaces.db.persist(PersistMode::SyncAll)?;
        self.store.copy.sync_in_time(true)?;
        self.store.save_watermark(true)
    }
}
