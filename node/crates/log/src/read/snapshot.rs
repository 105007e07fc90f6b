//! The state of a group as of an entry: read on a node and installed on another.
//!
//! The sender reads a snapshot of the database, so that the log continues meanwhile; nothing is copied. The
//! receiver keeps arriving batches in the value log, with a row of
//! [`crate::format::keys::StateKind::Incoming`] each. After an interruption it requests only the missing
//! batches. The installation is an atomic write: rows move, payloads stay in place.

use crate::error::ReadError;
use crate::format::entry::EntryId;
use crate::format::keys::{StateKey, StateKind, data_key, split_data_key};
use crate::format::position::Position;
use crate::format::rows::position_row;
use crate::store::keyspaces::Keyspaces;
use crate::store::kv;
use bytes::Bytes;
use std::io;
use weir_types::{Batch, GroupId, Offset, PartitionId};

/// The state applied when the snapshot was taken. Holds back old data in the database: keep snapshots short.
pub struct LogSnapshot {
    pub(crate) group: GroupId,
    pub(crate) applied: EntryId,
    pub(crate) rows: kv::Snapshot,
    pub(crate) keyspaces: Keyspaces,
}

impl LogSnapshot {
    /// Returns the group of the snapshot.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Returns the last entry whose effects the snapshot has.
    pub fn applied(&self) -> EntryId {
        self.applied
    }

    /// Reads the rows of `state` after the key `after` that the group's replicas share, up to about
    /// `max_bytes`. Empty at the end. Blocks.
    ///
    /// # Errors
    /// Fails when a row cannot be read.
    pub fn state(
        &self,
        after: Option<&StateKey>,
        max_bytes: usize,
    ) -> Result<Vec<(StateKey, Bytes)>, ReadError> {
        let from = after.map_or(vec![0], |key| [key.as_bytes(), &[0]].concat());
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for guard in self.rows.range(&self.keyspaces.state, from..) {
            let (key, value) = guard.into_inner().map_err(|e| damaged(&e))?;
            if StateKey::group(&key) != Some(self.group) {
                continue;
            }
            bytes += key.len() + value.len();
            rows.push((StateKey::from_bytes(key.to_vec()), Bytes::from(value)));
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(rows)
    }

    /// Reads the group's partitions and their positions. Blocks.
    ///
    /// # Errors
    /// Fails when a row cannot be read.
    pub fn partitions(&self) -> Result<Vec<(PartitionId, Position)>, ReadError> {
        let mut partitions = Vec::new();
        for guard in self
            .rows
            .prefix(&self.keyspaces.state, [StateKind::Position as u8])
        {
            let (key, value) = guard.into_inner().map_err(|e| damaged(&e))?;
            let row = position_row(&key, Bytes::from(value));
            partitions.extend(row.filter(|(partition, _)| partition.group() == self.group));
        }
        Ok(partitions)
    }

    /// Reads the row of `state` under `key`. Blocks.
    ///
    /// # Errors
    /// Fails when the row cannot be read.
    pub fn row(&self, key: &StateKey) -> Result<Option<Bytes>, ReadError> {
        let row = self.rows.get(&self.keyspaces.state, key.as_bytes());
        row.map(|r| r.map(Bytes::from)).map_err(|e| damaged(&e))
    }

    /// Returns the base of the batch that contains `at`, or `at` itself without such a batch. Blocks.
    ///
    /// # Errors
    /// Fails when the keys cannot be read.
    pub fn batch_base(&self, partition: PartitionId, at: Offset) -> Result<Offset, ReadError> {
        let range = data_key(partition, Offset::ZERO)..=data_key(partition, at);
        let Some(guard) = self.rows.range(&self.keyspaces.data, range).next_back() else {
            return Ok(at);
        };
        let key = guard.key().map_err(|e| damaged(&e))?;
        Ok(split_data_key(&key).map_or(at, |(_, base)| base))
    }

    /// Reads the batches of `partition` that begin in `[from, end)`, in order, up to about `max_bytes`. Also
    /// returns the offset of the next read. Skips batches that retention has removed meanwhile. Blocks.
    ///
    /// # Errors
    /// Fails when a batch cannot be read.
    pub fn batches(
        &self,
        partition: PartitionId,
        from: Offset,
        end: Offset,
        max_bytes: usize,
    ) -> Result<(Vec<Batch>, Offset), ReadError> {
        let (mut batches, mut bytes, mut next) = (Vec::new(), 0, end);
        let range = data_key(partition, from)..data_key(partition, end);
        for guard in self.rows.range(&self.keyspaces.data, range) {
            let (key, row) = guard.into_inner().map_err(|e| damaged(&e))?;
            let base = split_data_key(&key).map_or(from, |(_, base)| base);
            if bytes >= max_bytes {
                next = base;
                break;
            }
            let payload = match self.keyspaces.payload(&key, row) {
                Ok(payload) => payload,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(ReadError::Busy(e.to_string())),
            };
            let damaged = |why: String| ReadError::Damaged {
                partition,
                near: base.get(),
                why,
            };
            let batch = Batch::parse(payload).map_err(|e| damaged(e.to_string()))?;
            if batch.base_offset() != base {
                return Err(damaged("another batch is in its place".to_owned()));
            }
            bytes += batch.bytes().len();
            batches.push(batch);
        }
        Ok((batches, next))
    }
}

fn damaged(error: &dyn std::fmt::Display) -> ReadError {
    ReadError::Damaged {
        partition: PartitionId(0),
        near: 0,
        why: error.to_string(),
    }
}
