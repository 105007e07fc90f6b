//! What a log stands on, and what its handle, its writer and its readers share.

use crate::EntryHeader;
use crate::gaps::gap_of;
use crate::keys::StateKind;
use crate::kv::{Database, Keyspace};
use crate::positions::Positions;
use crate::value_log::{Pointer, ValueLog};
use crate::watermark::Watermark;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use weir_types::PartitionId;

/// Settings of a log.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of decoded blocks kept in memory.
    pub cache_bytes: u64,
    /// Bytes that one keyspace gathers in memory before it writes a table.
    pub memtable_bytes: u64,
    /// Bytes of journals on the disk, at least 64 MiB.
    pub journal_bytes: u64,
    /// Payload bytes in one sync from which they go to the value log.
    pub value_log_from_bytes: usize,
    /// Bytes of a file of the value log.
    pub value_file_bytes: u64,
    /// Bytes of the disk that are never used for records; `None`: 5 % of it, at least 256 MiB, at most 5 GiB or a
    /// quarter.
    pub disk_reserve_bytes: Option<u64>,
    /// Entries come without their batches, and none is missed: a witness's log.
    pub headers_only: bool,
    /// A log in which something is missing does not open, and nothing is given up: before a repair.
    pub only_whole: bool,
}

impl Default for Options {
    fn default() -> Self {
        // The figures of ../../../tests/bench: 49 MiB resident at these sizes, and no slower than larger ones.
        Self {
            cache_bytes: 8 << 20,
            memtable_bytes: 16 << 20,
            journal_bytes: 128 << 20,
            value_log_from_bytes: 128 << 10,
            // Large enough that making one is rare, small enough that retention gives space back soon on a small
            // disk; fjall's blob files have the same target.
            value_file_bytes: 32 << 20,
            disk_reserve_bytes: None,
            headers_only: false,
            only_whole: false,
        }
    }
}

#[derive(Clone)]
pub(crate) struct Keyspaces {
    pub(crate) db: Database,
    pub(crate) rlog: Keyspace,
    pub(crate) data: Keyspace,
    pub(crate) state: Keyspace,
    pub(crate) values: Arc<ValueLog>,
}

impl Keyspaces {
    /// Those of a simulated disk.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn simulated(rows: crate::simulated::Open, values: Arc<ValueLog>) -> Self {
        Self {
            rlog: Keyspace::Simulated(rows.keyspace(0)),
            data: Keyspace::Simulated(rows.keyspace(1)),
            state: Keyspace::Simulated(rows.keyspace(2)),
            values,
            db: Database::Simulated(rows),
        }
    }

    /// Which keyspace has nothing, though `promised` says that something is there.
    pub(crate) fn lacks(&self, promised: &Watermark, headers_only: bool) -> Option<&'static str> {
        let is_empty = |rows: &Keyspace| rows.iter().next().is_none();
        let has_entries = promised.groups.values().any(|synced| synced.index > 0);
        // A vote is there before any entry.
        let has_rows = !is_empty(&self.rlog) || !is_empty(&self.data);
        if (has_entries || has_rows) && is_empty(&self.state) {
            Some("state")
        } else if !headers_only && is_empty(&self.data) && !self.is_all_gap(promised) {
            Some("data")
        } else {
            None
        }
    }

    /// Whether what is promised of each partition is known to be gone.
    fn is_all_gap(&self, promised: &Watermark) -> bool {
        let mut left: BTreeMap<PartitionId, u64> = BTreeMap::new();
        for (partition, reserve) in &promised.partitions {
            left.insert(*partition, reserve.end.since(reserve.log_start));
        }
        for row in self.state.prefix([StateKind::Gap as u8]) {
            let gap = row
                .into_inner()
                .ok()
                .and_then(|(key, value)| gap_of(&key, &value));
            if let Some((partition, gap)) = gap
                && let (Some(left), Some(reserve)) =
                    (left.get_mut(&partition), promised.partitions.get(&partition))
            {
                let (start, end) = (gap.start.max(reserve.log_start), gap.end.min(reserve.end));
                *left = left.saturating_sub(end.since(start.min(end)));
            }
        }
        left.values().all(|left| *left == 0)
    }

    /// The bytes of the batch that a row of `data` is, or points to.
    pub(crate) fn payload(&self, key: &[u8], row: fjall::Slice) -> std::io::Result<Bytes> {
        let Some(pointer) = Pointer::decode(&row) else {
            return Ok(row.into());
        };
        let mut pointer = pointer;
        loop {
            match self.values.read(key, pointer) {
                // It was moved since the row was read; each move is forward, so this ends.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => match self.stored(key) {
                    Ok((_, Some(now))) if now.segment > pointer.segment => pointer = now,
                    _ => return Err(e),
                },
                read => return read,
            }
        }
    }

    /// Bytes of the batch under `key`, 0 when there is none, and where it lies if not in the row.
    pub(crate) fn stored(&self, key: &[u8]) -> fjall::Result<(u32, Option<Pointer>)> {
        // The size stands in the index: no blob is read to find that it is one.
        let size = self.data.size_of(key)?.unwrap_or(0);
        if size != Pointer::BYTES as u32 {
            return Ok((size, None));
        }
        let pointer = self.data.get(key)?.and_then(|row| Pointer::decode(&row));
        Ok((pointer.map_or(size, |p| p.len), pointer))
    }
}

/// What the handle, the writer and the readers share.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) positions: Positions,
    pub(crate) stopped: AtomicBool,
    pub(crate) reason: OnceLock<Arc<str>>,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) queued_bytes: AtomicU64,
    pub(crate) on_stop: Mutex<Option<StopHook>>,
    /// Effects of committed entries, on their way to the next batch. Not a command: the writer's own thread may be
    /// the one that decides, and must not wait for room in its own queue. Bounded by the entries of a round or two.
    pub(crate) effects: Mutex<Vec<Arc<EntryHeader>>>,
}

pub(crate) type StopHook = Box<dyn FnOnce(Arc<str>) + Send>;

impl Shared {
    pub(crate) fn wrote(&self, bytes: u64, synced: bool) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.syncs.fetch_add(u64::from(synced), Ordering::Relaxed);
    }

    pub(crate) fn add_effects(&self, header: Arc<EntryHeader>) {
        self.effects
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(header);
    }

    pub(crate) fn take_effects(&self) -> Vec<Arc<EntryHeader>> {
        std::mem::take(&mut *self.effects.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn has_effects(&self) -> bool {
        !self
            .effects
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        self.reason.get().cloned()
    }

    /// The first reason wins.
    pub(crate) fn stop(&self, reason: Option<Arc<str>>) {
        if let Some(reason) = reason {
            let _ = self.reason.set(Arc::clone(&reason));
            let hook = self.on_stop.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(hook) = hook {
                hook(reason);
            }
        }
        self.stopped.store(true, Ordering::Release);
    }
}

/// Where the rows are. Payloads of large rounds, and the low-water mark, are in files of the log's directory in any case.
#[derive(Clone)]
pub enum Store {
    /// In fjall's files, in the log's directory.
    Files,
    /// On a simulated disk.
    #[cfg(any(test, feature = "testing"))]
    Simulated(crate::simulated::Disk),
}
