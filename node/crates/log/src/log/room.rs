//! Room on the disk.

use crate::error::AppendError;
use crate::log::Log;
use crate::options::Usage;
use std::sync::atomic::Ordering;

/// Bytes of the disk that deletions leave free: an entry, its effects and a watermark, a few times over.
pub(crate) const FREEING_BYTES: u64 = 1 << 20;

impl Log {
    /// Returns the disk usage of the log.
    pub fn usage(&self) -> Usage {
        let shared = &self.0.shared;
        Usage {
            disk_bytes: self.0.keyspaces.db.disk_space().unwrap_or(0) + self.0.keyspaces.values.disk_bytes(),
            free_bytes: self.0.keyspaces.db.free_bytes(&self.0.dir).unwrap_or(0),
            reserve_bytes: self.0.reserve_bytes,
            written_bytes: shared.written_bytes.load(Ordering::Relaxed),
            syncs: shared.syncs.load(Ordering::Relaxed),
        }
    }

    /// Checks that `bytes` more may be written while the disk's reserve stays free. `control` entries, which
    /// keep the node in order, may use half of the reserve.
    ///
    /// # Errors
    /// Fails when the disk has too little space.
    pub fn room_for(&self, bytes: u64, control: bool) -> Result<(), AppendError> {
        // A call of a microsecond for an entry of a millisecond: an estimate could be wrong.
        let free = self.0.keyspaces.db.free_bytes(&self.0.dir).unwrap_or(u64::MAX);
        let queued = self.0.shared.queued_bytes.load(Ordering::Relaxed);
        let reserve = if control {
            self.0.reserve_bytes / 2
        } else {
            self.0.reserve_bytes
        };
        if free.saturating_sub(queued + bytes) < reserve {
            return Err(AppendError::DiskFull { free, reserve });
        }
        Ok(())
    }

    /// Checks for space for entries that free space. They may use all of the disk but [`FREEING_BYTES`], or a
    /// full disk would stay full.
    ///
    /// # Errors
    /// Fails when the disk has too little space.
    pub fn room_to_free(&self, bytes: u64) -> Result<(), AppendError> {
        let free = self.0.keyspaces.db.free_bytes(&self.0.dir).unwrap_or(u64::MAX);
        let (needed, reserve) = (bytes + FREEING_BYTES, self.0.reserve_bytes);
        // A smaller reserve was set for a small disk.
        match free < needed.min(reserve) {
            true => Err(AppendError::DiskFull {
                free,
                reserve: needed,
            }),
            false => Ok(()),
        }
    }
}
