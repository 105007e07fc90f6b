//! State rows of the layer above: read, written and watched.

use crate::core::Broker;
use crate::error::AdminError;
use crate::propose::request::row_op;
use bytes::Bytes;
use std::sync::mpsc;
use tokio::sync::oneshot;
use weir_log::{Op, ReadError, StateKey, StateKind};
use weir_types::{PartitionId, Term};

impl Broker {
    /// Rows of another layer's `kind`, as applied; of pipelines and modules.
    pub fn rows(&self, kind: StateKind) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.rows_under(kind, &[])
    }

    /// Returns the applied rows of another layer's `kind` whose keys begin with `prefix`.
    pub fn rows_under(&self, kind: StateKind, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let tables = self.0.applied.tables();
        let rows = tables.others.range((kind as u8, prefix.to_vec())..);
        rows.take_while(|((k, key), _)| *k == kind as u8 && key.starts_with(prefix))
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }
}

/// Bytes of keys that an entry of a removal has, approximately.
const REMOVED_BYTES: usize = 256 << 10;

impl Broker {
    /// Writes or removes a row of another layer's `kind`.
    ///
    /// # Errors
    /// When the row is not committed.
    ///
    /// # Cancel safety
    /// If the future is dropped, the row may or may not be committed.
    pub async fn put_row(&self, kind: StateKind, key: &[u8], value: Option<Bytes>) -> Result<(), AdminError> {
        self.put_rows(vec![(StateKey::new(kind, key), value)]).await
    }

    /// Writes or removes rows of another layer in an entry: all or none.
    ///
    /// # Errors
    /// When the rows are not committed.
    ///
    /// # Cancel safety
    /// If the future is dropped, the rows may or may not be committed.
    pub async fn put_rows(&self, rows: Vec<(StateKey, Option<Bytes>)>) -> Result<(), AdminError> {
        self.put(rows.into_iter().map(row_op).collect()).await
    }

    /// Writes or removes rows if `is_expected` accepts the row under `key`, as of all earlier entries. The
    /// key is of a kind that [`Broker::rows`] reads. With a `term`, requires that this node has led the site
    /// since that term.
    ///
    /// # Errors
    /// [`AdminError::Changed`] when the row is not as expected, and errors of the commit. All rows are
    /// written, or none.
    ///
    /// # Cancel safety
    /// If the future is dropped, the rows may or may not be committed.
    pub async fn put_rows_if(
        &self,
        (kind, key): (StateKind, &[u8]),
        is_expected: impl FnOnce(Option<&[u8]>) -> bool + Send + 'static,
        term: Option<Term>,
        rows: Vec<(StateKey, Option<Bytes>)>,
    ) -> Result<(), AdminError> {
        let (broker, key) = (self.clone(), (kind as u8, key.to_vec()));
        self.change(move |tables, _| {
            // If leadership changes after this check, the proposal fails.
            if term.is_some() && broker.led_term(PartitionId::HOME) != term {
                return Err(broker.not_leader().into());
            }
            if is_expected(tables.others.get(&key).map(Vec::as_slice)) {
                Ok(rows.into_iter().map(row_op).collect())
            } else {
                Err(AdminError::Changed)
            }
        })
        .await
    }

    /// Removes all rows whose keys begin like `from`, a few thousand per entry. A failed call can be
    /// repeated.
    ///
    /// # Errors
    /// When this node does not lead, or the outcome of a removal is unknown.
    ///
    /// # Cancel safety
    /// Cancel safe: rows that were not removed are left for the next call.
    pub async fn remove_rows(&self, from: StateKey) -> Result<(), AdminError> {
        loop {
            let (settle, settled) = oneshot::channel();
            let log = self.log().clone();
            let settling = log.settle(move |result| {
                let _ = settle.send(result.is_ok());
            });
            if settling.is_err() || !settled.await.unwrap_or(false) {
                return Err(AdminError::Closed);
            }
            let (found, keys) = oneshot::channel();
            let (reader, from) = (log.clone(), from.clone());
            let look = move || {
                let (mut keys, mut bytes) = (Vec::new(), 0);
                let read = reader.rows_under(&from, |key, _| {
                    keys.push(StateKey::from_bytes(key.to_vec()));
                    bytes += key.len();
                    bytes < REMOVED_BYTES
                });
                let _ = found.send(read.map(|()| keys));
            };
            log.apart(look).map_err(|_| AdminError::Closed)?;
            let keys = keys.await.map_err(|_| AdminError::Closed)?;
            let keys = keys.map_err(|_| AdminError::Closed)?;
            if keys.is_empty() {
                return Ok(());
            }
            self.put(keys.into_iter().map(|key| Op::Remove { key }).collect())
                .await?;
        }
    }

    /// Calls `watcher` with key and value of each row of `kind` that changes from now on; `None` for a
    /// removed row. The watcher must not block.
    pub fn watch_rows(
        &self,
        kind: StateKind,
        watcher: impl Fn(&[u8], Option<&[u8]>) + Send + Sync + 'static,
    ) {
        self.0.applied.watch(kind, Box::new(watcher));
    }
}

impl Broker {
    /// Calls `each` with the applied rows whose keys begin like `from`: the state that the first step of a
    /// session starts from. Blocks.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub fn applied_rows(&self, from: &StateKey, mut each: impl FnMut(&[u8], Bytes)) -> Result<(), ReadError> {
        self.applied_rows_behind(from, from, |key, value| {
            each(key, value);
            true
        })
    }

    /// Calls `each` with the applied rows whose keys begin like `from`, starting at key `first`, until `each`
    /// returns false. Blocks.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub fn applied_rows_behind(
        &self,
        from: &StateKey,
        first: &StateKey,
        each: impl FnMut(&[u8], Bytes) -> bool,
    ) -> Result<(), ReadError> {
        let log = self.log();
        let (settle, settled) = mpsc::sync_channel(1);
        let stopped = || ReadError::Busy("the log has stopped".to_owned());
        log.settle(move |result| {
            let _ = settle.send(result.is_ok());
        })
        .map_err(|_| stopped())?;
        if !settled.recv().unwrap_or(false) {
            return Err(stopped());
        }
        log.rows_behind(from, first, each)
    }
}
