//! Room on the disk.

use crate::error::AppendError;
use crate::log::Log;
use crate::options::Usage;
use std::sync::atomic::Ordering;

/// What is left of a disk when something is to be deleted: the entry, its effects and a watermark, a few times over.
pub(crate) const FREEING_BYTES: u64 = 1 << 20;

impl Log {
    /// What it uses and has.
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

    /// Whether `bytes` more may be written: the disk's reserve stays free. `control` may use half of that: what keeps the node in
    /// order.
    ///
    /// # Errors
    /// When there is no room.
    pub fn room_for(&self, bytes: u64, control: bool) -> Result<(), AppendError> {
        // A call of a microsecond for an entry of a millisecond: no estimate that could be wrong.
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

    /// As [`Log::room_for`], for what gives room back: it may use all but [`FREEING_BYTES`], or a disk that is full would stay so.
    ///
    /// # Errors
    /// As there.
    pub fn room_to_free(&self, bytes: u64) -> Result<(), AppendError> {
        let free = self.0.keyspaces.db.free_bytes(&self.0.dir).unwrap_or(u64::MAX);
        let (needed, reserve) = (bytes + FREEING_BYTES, self.0.reserve_bytes);
        // A reserve that is smaller than that is of a disk that was said to be small.
        match free < needed.min(reserve) {
            true => Err(AppendError::DiskFull {
                free,
                reserve: needed,
            }),
            false => Ok(()),
        }
    }
}
