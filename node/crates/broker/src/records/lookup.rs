//! Offsets by time and by position.

use crate::access::auth::Principal;
use crate::core::Broker;
use crate::error::FetchError;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::oneshot;
use weir_log::{Chunk, Marks, Piece};
use weir_types::Offset;
use weir_types::limits::FETCH_BYTES_MAX;

/// A place in a partition, by meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum At {
    /// The first existing record.
    Start,
    /// After the last.
    End,
    /// The first record at or after this time in milliseconds, or the end.
    Time(i64),
}

impl Broker {
    /// Returns the offset of a position in a partition.
    ///
    /// # Errors
    /// When the partition cannot be read: see [`FetchError`].
    ///
    /// # Cancel safety
    /// Cancel safe: reading changes nothing.
    pub async fn offset_at(
        &self,
        who: &Principal,
        topic: &str,
        partition: u32,
        at: At,
    ) -> Result<Offset, FetchError> {
        let (_, marks) = self.readable(who, topic, partition)?;
        let timestamp = match at {
            At::Start => return Ok(marks.log_start()),
            At::End => return Ok(marks.committed_end()),
            At::Time(timestamp) => timestamp,
        };
        let found = self.record_at_time(who, topic, partition, timestamp).await?;
        Ok(found.map_or_else(|| marks.committed_end(), |(offset, _)| offset))
    }

    /// Returns the watermarks of a partition.
    pub fn marks(&self, topic: &str, partition: u32) -> Option<Arc<Marks>> {
        let id = self.0.applied.topic(topic)?.partition(partition)?;
        self.0.log.marks(id)
    }

    /// Returns the largest timestamp of a partition and the first record with it; `None` for an empty
    /// partition.
    ///
    /// # Errors
    /// When the partition cannot be read: see [`FetchError`].
    ///
    /// # Cancel safety
    /// Cancel safe: reading changes nothing.
    pub async fn offset_of_max_timestamp(
        &self,
        who: &Principal,
        topic: &str,
        partition: u32,
    ) -> Result<Option<(Offset, i64)>, FetchError> {
        let (_, marks) = self.readable(who, topic, partition)?;
        let end = marks.committed_end();
        let timestamp = marks.max_timestamp();
        let offset = self.offset_at(who, topic, partition, At::Time(timestamp)).await?;
        Ok((offset < end).then_some((offset, timestamp)))
    }

    /// Returns the first record at or after `timestamp`, in milliseconds, with its own timestamp.
    ///
    /// # Errors
    /// When the partition cannot be read: see [`FetchError`].
    ///
    /// # Cancel safety
    /// Cancel safe: reading changes nothing.
    pub async fn record_at_time(
        &self,
        who: &Principal,
        topic: &str,
        partition: u32,
        timestamp: i64,
    ) -> Result<Option<(Offset, i64)>, FetchError> {
        let (id, marks) = self.readable(who, topic, partition)?;
        let (done, answer) = oneshot::channel();
        self.0.log.seek(id, timestamp, move |r| drop(done.send(r)))?;
        let mut chunk = answer.await.map_err(|_| weir_log::ReadError::Closed)??;
        let (end, mut last) = (marks.committed_end(), Offset::ZERO);
        loop {
            self.is_still(topic, partition, id, &marks)?;
            if let Some(found) = first_at(&chunk, timestamp, marks.log_start()) {
                return Ok(Some(found));
            }
            // The record that the headers promised was trimmed meanwhile or dropped: continue behind.
            let from = chunk.next;
            if from >= end || from <= last || chunk.pieces.is_empty() {
                return Ok(None);
            }
            last = from;
            let (done, answer) = oneshot::channel();
            self.0
                .log
                .read(id, from, end, FETCH_BYTES_MAX, move |r| drop(done.send(r)))?;
            chunk = answer.await.map_err(|_| weir_log::ReadError::Closed)??;
        }
    }
}

/// Returns the first record in `chunk` at or after `timestamp`.
fn first_at(chunk: &Chunk, timestamp: i64, start: Offset) -> Option<(Offset, i64)> {
    chunk.pieces.iter().find_map(|piece| {
        let Piece::Batch(batch) = piece else { return None };
        let body = batch.body().ok()?;
        body.records()
            .filter_map(Result::ok)
            .find(|r| r.timestamp >= timestamp && r.offset >= start)
            .map(|r| (r.offset, r.timestamp))
    })
}
