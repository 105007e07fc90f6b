//! Reads of a partition, as the readers' threads take them.

use crate::error::ReadError;
use crate::positions::Positions;
use crate::read::scan::{Chunk, Piece, Scan, indexed_before};
use crate::store::keyspaces::Keyspaces;
use weir_types::{Offset, PartitionId};

pub(crate) enum Request {
    Batches {
        partition: PartitionId,
        from: Offset,
        end: Offset,
        max_bytes: usize,
    },
    Seek {
        partition: PartitionId,
        timestamp: i64,
    },
    Boundary {
        partition: PartitionId,
        of: Boundary,
    },
}

/// The beginning of a partition that is to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// At least this many bytes.
    Bytes(u64),
    /// Whole batches with nothing at or after this timestamp, in milliseconds.
    Before(i64),
}

pub(crate) fn serve(
    keyspaces: &Keyspaces,
    positions: &Positions,
    request: &Request,
) -> Result<Chunk, ReadError> {
    match request {
        Request::Batches {
            partition,
            from,
            end,
            max_bytes,
        } => {
            let marks = positions
                .marks(*partition)
                .ok_or(ReadError::NoPartition(*partition))?;
            Scan {
                keyspaces,
                marks: &marks,
                partition: *partition,
                end: *end,
            }
            .read(*from, *max_bytes)
        }
        Request::Seek { partition, timestamp } => seek(keyspaces, positions, *partition, *timestamp),
        Request::Boundary { partition, of } => {
            let marks = positions
                .marks(*partition)
                .ok_or(ReadError::NoPartition(*partition))?;
            let end = marks.committed_end();
            let scan = Scan {
                keyspaces,
                marks: &marks,
                partition: *partition,
                end,
            };
            let next = match of {
                Boundary::Bytes(bytes) => scan.after_bytes(*bytes)?,
                Boundary::Before(timestamp) => scan.after_expired(*timestamp)?,
            };
            Ok(Chunk {
                pieces: Vec::new(),
                next,
            })
        }
    }
}

/// Finds the first record at or after `timestamp`: its stretch is the first in the time index whose running
/// maximum reaches `timestamp`.
fn seek(
    keyspaces: &Keyspaces,
    positions: &Positions,
    partition: PartitionId,
    timestamp: i64,
) -> Result<Chunk, ReadError> {
    let marks = positions
        .marks(partition)
        .ok_or(ReadError::NoPartition(partition))?;
    let (start, end) = (marks.log_start(), marks.committed_end());
    let mut from = indexed_before(keyspaces, partition, timestamp).max(start);
    let scan = Scan {
        keyspaces,
        marks: &marks,
        partition,
        end,
    };
    while from < end {
        let chunk = scan.read(from, 1)?;
        let reaches = |p: &Piece| matches!(p, Piece::Batch(b) if b.max_timestamp() >= timestamp);
        if chunk.pieces.iter().any(reaches) || chunk.next <= from {
            return Ok(chunk);
        }
        from = chunk.next;
    }
    Ok(Chunk {
        pieces: Vec::new(),
        next: end,
    })
}
