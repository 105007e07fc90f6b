//! Snapshots taken, received and installed, and groups that are forgotten.

use crate::error::{AppendError, ReadError};
use crate::format::entry::EntryId;
use crate::format::keys::{StateKey, StateKind};
use crate::format::rows::split_id;
use crate::log::Log;
use crate::read::snapshot::LogSnapshot;
use crate::write::command::{Command, Install, Received};
use bytes::Bytes;
use std::collections::BTreeMap;
use weir_types::{Batch, GroupId, Offset, PartitionId};

impl Log {
    /// Takes a snapshot of the applied state of `group`.
    ///
    /// # Errors
    /// Fails when the log has stopped: `done` is dropped.
    pub fn snapshot(
        &self,
        group: GroupId,
        done: impl FnOnce(Result<LogSnapshot, AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        let done = Box::new(done);
        self.send(Command::Snapshot { group, done })
    }

    /// Keeps consecutive `batches` of another node's snapshot until [`Log::install`].
    ///
    /// # Errors
    /// Fails when the log has stopped: `done` is dropped.
    pub fn receive(
        &self,
        partition: PartitionId,
        batches: Vec<Batch>,
        done: impl FnOnce(Result<(), AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        let received = Received { partition, batches };
        let done = Box::new(done);
        self.send(Command::Receive { received, done })
    }

    /// Replaces unreadable batches by the copies of another replica, and leaves readable batches alone.
    /// `done` gets the number of replaced batches once they are synced.
    ///
    /// # Errors
    /// Fails when the log has stopped: `done` is dropped.
    pub fn mend(
        &self,
        partition: PartitionId,
        batches: Vec<Batch>,
        done: impl FnOnce(Result<usize, AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        let received = Received { partition, batches };
        let done = Box::new(done);
        self.send(Command::Mend { received, done })
    }

    /// Returns the end of the received batches of each partition. Blocks.
    ///
    /// # Errors
    /// Fails when the rows cannot be read.
    pub fn received(&self) -> Result<BTreeMap<PartitionId, Offset>, ReadError> {
        let incoming = self.0.keyspaces.incoming();
        incoming.map_err(|e| ReadError::Busy(e.to_string()))
    }

    /// Returns the committed end of each partition.
    pub fn ends(&self) -> Vec<(PartitionId, Offset)> {
        let all = self.0.shared.positions.all();
        all.into_iter()
            .map(|(p, marks)| (p, marks.committed_end()))
            .collect()
    }

    /// Replaces the applied state of `group` by another node's snapshot, in a single write: all rows in
    /// `state`, and the received batches.
    ///
    /// # Errors
    /// Fails when the log has stopped: `done` is dropped.
    pub fn install(
        &self,
        group: GroupId,
        applied: EntryId,
        state: Vec<(StateKey, Bytes)>,
        done: impl FnOnce(Result<(), AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        let install = Box::new(Install {
            group,
            applied,
            state,
        });
        let done = Box::new(done);
        self.send(Command::Install { install, done })
    }

    /// Removes everything of `group`, which this node has left, except the node's vote and
    /// [`Log::forgotten`].
    ///
    /// # Errors
    /// Fails when the log has stopped: `done` is dropped.
    pub fn forget(
        &self,
        group: GroupId,
        done: impl FnOnce(Result<(), AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        let done = Box::new(done);
        self.send(Command::Forget { group, done })
    }

    /// Returns the last entry of `group` that this node had before [`Log::forget`], or the default id if the
    /// group was never forgotten. Blocks.
    ///
    /// # Errors
    /// Fails when the row cannot be read.
    pub fn forgotten(&self, group: GroupId) -> Result<EntryId, ReadError> {
        let row = self.state_row(&StateKey::new(StateKind::Forgotten, &group.0.to_be_bytes()))?;
        Ok(row.and_then(|row| split_id(&row)).unwrap_or_default())
    }
}
