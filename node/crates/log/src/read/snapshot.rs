//! A group's state as of one entry, read on one node and installed on another.
//!
//! It is read from a snapshot of the database, so that the log goes on meanwhile; nothing is copied to be sent. The
//! receiver keeps batches as they come, in the value log with a row of [`StateKind::Incoming`] each, and asks, when it
//! was interrupted, only for what it lacks. Installing is one atomic write: rows move, payloads stay where they are.

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

/// What was applied when it was taken. Holds old data in the database back: keep it short.
pub struct LogSnapshot {
    pub(crate) group: GroupId,
    pub(crate) applied: EntryId,
    pub(crate) rows: kv::Snapshot,
    pub(crate) keyspaces: Keyspaces,
}

impl LogSnapshot {
    /// Whose.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The last entry whose effects it has.
    pub fn applied(&self) -> EntryId {
        self.applied
    }

    /// Rows of `state` after `after` that the group's replicas have in common, up to about `max_bytes` of them; none at the end.
    /// Blocks.
    ///
    /// # Errors
    /// When they cannot be read.
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

    /// The group's partitions, and where each ends. Blocks.
    ///
    /// # Errors
    /// When they cannot be read.
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

    /// The row of `state` under `key`. Blocks.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn row(&self, key: &StateKey) -> Result<Option<Bytes>, ReadError> {
        let row = self.rows.get(&self.keyspaces.state, key.as_bytes());
        row.map(|r| r.map(Bytes::from)).map_err(|e| damaged(&e))
    }

    /// Where the batch begins that `at` lies in; `at` itself when none does. Blocks.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn batch_base(&self, partition: PartitionId, at: Offset) -> Result<Offset, ReadError> {
        let range = data_key(partition, Offset::ZERO)..=data_key(partition, at);
        let Some(guard) = self.rows.range(&self.keyspaces.data, range).next_back() else {
            return Ok(at);
        };
        let key = guard.key().map_err(|e| damaged(&e))?;
        Ok(split_data_key(&key).map_or(at, |(_, base)| base))
    }

    /// Batches of `partition` that begin at `from` or later and before `end`, in order, up to about `max_bytes` of
    /// them; also where to go on. What retention has removed meanwhile is passed over. Blocks.
    ///
    /// # Errors
    /// When they cannot be read.
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
