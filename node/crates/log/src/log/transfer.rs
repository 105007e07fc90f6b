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
    /// Takes a snapshot of what is applied of `group`.
    ///
    /// # Errors
    /// When the log stopped; `done` is then dropped.
    pub fn snapshot(
        &self,
        group: GroupId,
        done: impl FnOnce(Result<LogSnapshot, AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        let done = Box::new(done);
        self.send(Command::Snapshot { group, done })
    }

    /// Keeps `batches` of another's snapshot, which follow each other, until [`Log::install`].
    ///
    /// # Errors
    /// When the log stopped; `done` is then dropped.
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

    /// Puts `batches`, which another replica has, in the place of those that cannot be read here; others stay as they
    /// are. `done` is called with how many were, once they are synced.
    ///
    /// # Errors
    /// When the log stopped; `done` is then dropped.
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

    /// Where the batches end that were received so far, for each partition. Blocks.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn received(&self) -> Result<BTreeMap<PartitionId, Offset>, ReadError> {
        let incoming = self.0.keyspaces.incoming();
        incoming.map_err(|e| ReadError::Busy(e.to_string()))
    }

    /// Where each partition ends.
    pub fn ends(&self) -> Vec<(PartitionId, Offset)> {
        let all = self.0.shared.positions.all();
        all.into_iter()
            .map(|(p, marks)| (p, marks.committed_end()))
            .collect()
    }

    /// Replaces what is applied by another's snapshot: its rows of `state`, all of them, and the batches that were
    /// received. In one write.
    ///
    /// # Errors
    /// When the log stopped; `done` is then dropped.
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

    /// Removes all of `group`, in which this node has no part any more, but its vote and [`Log::forgotten`].
    ///
    /// # Errors
    /// When the log stopped; `done` is then dropped.
    pub fn forget(
        &self,
        group: GroupId,
        done: impl FnOnce(Result<(), AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        let done = Box::new(done);
        self.send(Command::Forget { group, done })
    }

    /// The last entry of `group` that this node had before it forgot it; the first of all when it never did. Blocks.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn forgotten(&self, group: GroupId) -> Result<EntryId, ReadError> {
        let row = self.state_row(&StateKey::new(StateKind::Forgotten, &group.0.to_be_bytes()))?;
        Ok(row.and_then(|row| split_id(&row)).unwrap_or_default())
    }
}
