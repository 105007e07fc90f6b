//! Rows of `state`, for those who keep them: the layers above.

use crate::error::{AppendError, ReadError};
use crate::format::keys::{StateKey, StateKind};
use crate::log::Log;
use crate::write::command::Command;
use bytes::Bytes;
use weir_types::PartitionId;

impl Log {
    /// All rows of `kind`, as they were when the log was opened and with effects written since. Blocks: for start-up.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub fn state_rows(&self, kind: StateKind) -> Result<Vec<(StateKey, Bytes)>, ReadError> {
        let mut rows = Vec::new();
        for guard in self.0.keyspaces.state.prefix([kind as u8]) {
            let (key, value) = guard.into_inner().map_err(|e| ReadError::Damaged {
                partition: PartitionId(0),
                near: 0,
                why: format!("state rows of kind {kind:?}: {e}"),
            })?;
            rows.push((StateKey::from_bytes(key.to_vec()), Bytes::from(value)));
        }
        Ok(rows)
    }

    /// The row of `state` under `key`, as written so far. Blocks: for start-up.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn state_row(&self, key: &StateKey) -> Result<Option<Bytes>, ReadError> {
        let row = self.0.keyspaces.state.get(key.as_bytes());
        row.map(|r| r.map(Bytes::from))
            .map_err(|e| ReadError::Busy(e.to_string()))
    }

    /// Writes a row that is this node's own and no effect of an entry. `done` is called once it is synced.
    ///
    /// # Errors
    /// When the log stopped; `done` is then dropped.
    pub fn put_local(
        &self,
        key: StateKey,
        value: Vec<u8>,
        done: impl FnOnce(Result<(), AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        let done = Box::new(done);
        self.send(Command::Local { key, value, done })
    }

    /// Writes the rows of all that was applied before this call, so that [`Log::state_row`] and [`Log::rows_under`] see
    /// them.
    ///
    /// # Errors
    /// When the log stopped; `done` is then dropped.
    pub fn settle(
        &self,
        done: impl FnOnce(Result<(), AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        let done = Box::new(done);
        self.send(Command::Settle { done })
    }

    /// Rows of `state` whose keys begin as `from` does, in order, as written so far; `each` says whether to go on. Blocks.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn rows_under(
        &self,
        from: &StateKey,
        each: impl FnMut(&[u8], Bytes) -> bool,
    ) -> Result<(), ReadError> {
        self.rows_behind(from, from, each)
    }

    /// As [`Log::rows_under`], from the key `first` on.
    ///
    /// # Errors
    /// As there.
    pub fn rows_behind(
        &self,
        from: &StateKey,
        first: &StateKey,
        mut each: impl FnMut(&[u8], Bytes) -> bool,
    ) -> Result<(), ReadError> {
        for guard in self.0.keyspaces.state.range(first.as_bytes().to_vec()..) {
            let row = guard.into_inner();
            let (key, value) = row.map_err(|e| ReadError::Busy(format!("rows of `state`: {e}")))?;
            if !key.starts_with(from.as_bytes()) || !each(&key, Bytes::from(value)) {
                break;
            }
        }
        Ok(())
    }
}
