//! Reads that a reader's thread answers.

use crate::error::ReadError;
use crate::format::entry::Entry;
use crate::log::Log;
use crate::log::readers::ReadJob;
use crate::read::entries::{self, Payloads};
use crate::read::request::{self, Boundary, Request};
use crate::read::scan::Chunk;
use crate::read::scrub::{self, ScrubReport};
use weir_types::{GroupId, Offset, PartitionId};

impl Log {
    /// Reads whole batches and gaps of `partition` in `[from, end)`, up to `max_bytes`. The first batch comes
    /// whatever its size. A reader's thread calls `done`.
    ///
    /// # Errors
    /// Fails when the log has stopped: `done` is dropped.
    pub fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        end: Offset,
        max_bytes: usize,
        done: impl FnOnce(Result<Chunk, ReadError>) + Send + 'static,
    ) -> Result<(), ReadError> {
        let request = Request::Batches {
            partition,
            from,
            end,
            max_bytes,
        };
        self.read_pieces(request, done)
    }

    /// Finds the first batch that may hold a record at or after `timestamp` (in milliseconds). The chunk is
    /// empty when there is no such batch.
    ///
    /// # Errors
    /// Fails when the log has stopped: `done` is dropped.
    pub fn seek(
        &self,
        partition: PartitionId,
        timestamp: i64,
        done: impl FnOnce(Result<Chunk, ReadError>) + Send + 'static,
    ) -> Result<(), ReadError> {
        let request = Request::Seek { partition, timestamp };
        self.read_pieces(request, done)
    }

    /// Finds the new start of `partition` after a trim by bytes or age. The answer is the chunk's `next`.
    ///
    /// # Errors
    /// Fails when the log has stopped: `done` is dropped.
    pub fn boundary(
        &self,
        partition: PartitionId,
        of: Boundary,
        done: impl FnOnce(Result<Chunk, ReadError>) + Send + 'static,
    ) -> Result<(), ReadError> {
        self.read_pieces(Request::Boundary { partition, of }, done)
    }

    /// Reads the entries of `group` in `[from, end)`, up to about `max_bytes` of payload. The first entry
    /// comes whatever its size. Batches removed by retention come as [`crate::format::entry::Op::Gone`], and
    /// so do all batches with [`Payloads::Left`]. A reader's thread calls `done`.
    ///
    /// # Errors
    /// Fails when the log has stopped: `done` is dropped.
    pub fn entries(
        &self,
        group: GroupId,
        from: u64,
        end: u64,
        max_bytes: usize,
        of: Payloads,
        done: impl FnOnce(Result<Vec<Entry>, ReadError>) + Send + 'static,
    ) -> Result<(), ReadError> {
        self.submit(Box::new(move |keyspaces, _| {
            done(entries::entries(keyspaces, group, from..end, max_bytes, of));
        }))
    }

    /// Runs `read`, which may block on the disk, on a reader's thread.
    ///
    /// # Errors
    /// Fails when the log has stopped: `read` is dropped.
    pub fn apart(&self, read: impl FnOnce() + Send + 'static) -> Result<(), ReadError> {
        self.submit(Box::new(move |_, _| read()))
    }

    /// Reads and checks every batch of every partition. Calls `progress` with the bytes done and in all.
    /// Blocks.
    ///
    /// # Errors
    /// Fails when the operating system refuses a read, which says nothing about damage.
    pub fn scrub(&self, progress: impl FnMut(u64, u64)) -> Result<ScrubReport, ReadError> {
        scrub::scrub(&self.0.keyspaces, &self.0.shared.positions, progress)
    }

    pub(crate) fn read_pieces(
        &self,
        request: Request,
        done: impl FnOnce(Result<Chunk, ReadError>) + Send + 'static,
    ) -> Result<(), ReadError> {
        self.submit(Box::new(move |keyspaces, positions| {
            done(request::serve(keyspaces, positions, &request));
        }))
    }

    pub(crate) fn submit(&self, job: ReadJob) -> Result<(), ReadError> {
        let reads = self.0.reads.as_ref().ok_or(ReadError::Closed)?;
        reads.send(job).map_err(|_| ReadError::Closed)?;
        self.0.readers.iter().for_each(|reader| (reader.wake)());
        Ok(())
    }
}
