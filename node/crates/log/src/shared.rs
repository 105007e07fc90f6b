//! State that the handle, the writer and the readers of a log share.

use crate::format::entry::EntryHeader;
use crate::positions::Positions;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use weir_types::sync::Mutex;

/// State shared by the handle, the writer and the readers.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) positions: Positions,
    pub(crate) stopped: AtomicBool,
    pub(crate) reason: OnceLock<Arc<str>>,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) queued_bytes: AtomicU64,
    pub(crate) on_stop: Mutex<Option<StopHook>>,
    /// Effects of committed entries on their way to the next batch. They are no commands: the writer's own
    /// thread may decide an entry and must not wait for its own queue. Bounded by the entries of a round or
    /// two.
    pub(crate) effects: Mutex<Vec<Arc<EntryHeader>>>,
}

pub(crate) type StopHook = Box<dyn FnOnce(Arc<str>) + Send>;

impl Shared {
    pub(crate) fn wrote(&self, bytes: u64, synced: bool) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.syncs.fetch_add(u64::from(synced), Ordering::Relaxed);
    }

    pub(crate) fn add_effects(&self, header: Arc<EntryHeader>) {
        self.effects.lock().push(header);
    }

    pub(crate) fn take_effects(&self) -> Vec<Arc<EntryHeader>> {
        std::mem::take(&mut *self.effects.lock())
    }

    pub(crate) fn has_effects(&self) -> bool {
        !self.effects.lock().is_empty()
    }

    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        self.reason.get().cloned()
    }

    /// Stops the log. The first reason is kept.
    pub(crate) fn stop(&self, reason: Option<Arc<str>>) {
        if let Some(reason) = reason {
            let _ = self.reason.set(Arc::clone(&reason));
            let hook = self.on_stop.lock().take();
            if let Some(hook) = hook {
                hook(reason);
            }
        }
        self.stopped.store(true, Ordering::Release);
    }
}
