//! Rows of `state`, for the layers that keep them.

use crate::error::{AppendError, ReadError};
use crate::format::keys::{StateKey, StateKind};
use crate::log::Log;
use crate::write::command::Command;
use bytes::Bytes;
use weir_types::PartitionId;

impl Log {
    /// Reads all rows of `kind`, with the effects written so far. Blocks: for start-up.
    ///
    /// # Errors
    /// Fails when a row cannot be read.
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

    /// Reads the row of `state` under `key`, as written so far. Blocks: for start-up.
    ///
    /// # Errors
    /// Fails when the row cannot be read.
    pub fn state_row(&self, key: &StateKey) -> Result<Option<Bytes>, ReadError> {
        let row = self.0.keyspaces.state.get(key.as_bytes());
        row.map(|r| r.map(Bytes::from))
            .map_err(|e| ReadError::Busy(e.to_string()))
    }

    /// Writes a row of this node alone, outside of any entry. `done` is called once the row is synced.
    ///
    /// # Errors
    /// Fails when the log has stopped: `done` is dropped.
    pub fn put_local(
        &self,
        key: StateKey,
        value: Vec<u8>,
        done: impl FnOnce(Result<(), AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        let done = Box::new(done);
        self.send(Command::Local { key, value, done })
    }

    /// Writes the effects of all entries applied before this call, so that [`Log::state_row`] and
    /// [`Log::rows_under`] see them.
    ///
    /// # Errors
    /// Fails when the log has stopped: `done` is dropped.
    pub fn settle(
        &self,
        done: impl FnOnce(Result<(), AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        let done = Box::new(done);
        self.send(Command::Settle { done })
    }

    /// Passes each row whose key begins with `from` to `each`, in key order, as written so far, until `each`
    /// returns false. Blocks.
    ///
    /// # Errors
    /// Fails when a row cannot be read.
    pub fn rows_under(
        &self,
        from: &StateKey,
        each: impl FnMut(&[u8], Bytes) -> bool,
    ) -> Result<(), ReadError> {
        self.rows_behind(from, from, each)
    }

    /// Passes each row whose key begins with `from` to `each`, from the key `first` on, until `each` returns
    /// false. Blocks.
    ///
    /// # Errors
    /// Fails when a row cannot be read.
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
