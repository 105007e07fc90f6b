//! The log as the layers above see it.

pub(crate) mod readers;
mod reading;
mod room;
mod rows;
mod transfer;

use crate::error::AppendError;
use crate::format::entry::{Entry, EntryHeader};
use crate::host::workers::{Running, Wake, Workers};
use crate::log::readers::ReadJob;
use crate::positions::Marks;
use crate::shared::Shared;
use crate::store::keyspaces::Keyspaces;
use crate::write::command::Command;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use weir_types::{GroupId, PartitionId};

/// An open log. Clones are handles to the same log.
#[derive(Clone)]
pub struct Log(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) dir: PathBuf,
    pub(crate) reserve_bytes: u64,
    pub(crate) keyspaces: Keyspaces,
    pub(crate) shared: Arc<Shared>,
    pub(crate) workers: Arc<dyn Workers>,
    pub(crate) commands: SyncSender<Command>,
    pub(crate) wake_writer: Wake,
    /// `None` only while the log is dropped.
    pub(crate) reads: Option<SyncSender<ReadJob>>,
    pub(crate) readers: Vec<Running>,
    pub(crate) epoch: u32,
    pub(crate) _lock: Option<File>,
}

impl Drop for Inner {
    /// Waits for the readers: another process can open the database only after their handles are gone.
    fn drop(&mut self) {
        self.reads = None;
        for reader in self.readers.drain(..) {
            (reader.join)();
        }
    }
}

impl Log {
    /// Hands an entry to the writer. The writer's thread calls `flushed` once the entry is synced, or only
    /// written if the entry is `lazy`. Blocks while the queue is full. Entries of a group must come in index
    /// order. Callers check for free space with [`Log::room_for`] first.
    ///
    /// # Errors
    /// Fails when the log has stopped: nothing was taken, and `flushed` is dropped.
    pub fn append(
        &self,
        entry: Entry,
        flushed: impl FnOnce(Result<(), AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        let bytes = entry.payload_bytes() as u64;
        self.0.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let shared = Arc::clone(&self.0.shared);
        let flushed = Box::new(move |result| {
            shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            flushed(result);
        });
        self.send(Command::Append { entry, flushed })
    }

    /// Makes the effects of a committed entry visible now, and durable with a later write. Entries of a group
    /// must come in order.
    pub fn apply(&self, header: Arc<EntryHeader>) {
        self.0.shared.positions.apply(&header);
        self.0.shared.add_effects(header);
    }

    /// Removes the uncommitted entries of `group` from index `from` on.
    ///
    /// # Errors
    /// Fails when the log has stopped: `done` is dropped.
    pub fn truncate(
        &self,
        group: GroupId,
        from: u64,
        done: impl FnOnce(Result<(), AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        self.send(Command::Truncate {
            group,
            from,
            done: Box::new(done),
        })
    }

    /// Removes the headers of `group` up to `upto`, except headers whose effects are not written yet.
    ///
    /// # Errors
    /// Fails when the log has stopped: `done` is dropped.
    pub fn purge(
        &self,
        group: GroupId,
        upto: u64,
        done: impl FnOnce(Result<(), AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        let done = Box::new(done);
        self.send(Command::Purge { group, upto, done })
    }

    /// Returns the runner of the log's loops, which also runs the loops of the layers above.
    pub fn workers(&self) -> &dyn Workers {
        &*self.0.workers
    }

    /// Returns the live position of `partition`, if the partition exists.
    pub fn marks(&self, partition: PartitionId) -> Option<Arc<Marks>> {
        self.0.shared.positions.marks(partition)
    }

    /// Returns the live position of `partition`, which is created if the partition is new.
    pub fn marks_or_new(&self, partition: PartitionId) -> Arc<Marks> {
        self.0.shared.positions.entry(partition)
    }

    /// Returns the number of times that acknowledged records were lost here.
    pub fn epoch(&self) -> u32 {
        self.0.epoch
    }

    /// Returns the reason of a failed write that stopped the log.
    pub fn poisoned(&self) -> Option<Arc<str>> {
        self.0.shared.reason()
    }

    /// Calls `hook` with the reason when a write fails, at once if the log has already stopped.
    pub fn on_poison(&self, hook: impl FnOnce(Arc<str>) + Send + 'static) {
        let mut slot = self.0.shared.on_stop.lock();
        match self.poisoned() {
            Some(reason) => hook(reason),
            None => *slot = Some(Box::new(hook)),
        }
    }

    /// Writes and syncs everything, marks the shutdown as orderly, and stops the log. Blocks.
    pub fn close(&self) {
        let (done, closed) = sync_channel(1);
        if self
            .send(Command::Close {
                done: Box::new(move |_| done.send(()).unwrap_or_default()),
            })
            .is_ok()
        {
            let _ = closed.recv();
        }
    }

    /// Flushes memtables to tables and blob files, which otherwise happens once enough has gathered.
    #[cfg(test)]
    pub(crate) fn flush_tables(&self) {
        for keyspace in [
            &self.0.keyspaces.rlog,
            &self.0.keyspaces.data,
            &self.0.keyspaces.state,
        ] {
            let _ = keyspace.rotate_memtable_and_wait();
        }
    }

    pub(crate) fn send(&self, command: Command) -> Result<(), AppendError> {
        if self.0.shared.stopped.load(Ordering::Acquire) {
            return Err(self.poisoned().map_or(AppendError::Closed, AppendError::Poisoned));
        }
        self.0.commands.send(command).map_err(|_| AppendError::Closed)?;
        (self.0.wake_writer)();
        Ok(())
    }
}
