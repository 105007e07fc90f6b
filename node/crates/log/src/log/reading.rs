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
    /// Reads whole batches and gaps from `from` on, up to `end` or `max_bytes`, the first batch whatever its size.
    /// `done` is called from a reader's thread.
    ///
    /// # Errors
    /// When the log stopped; `done` is then dropped.
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

    /// Finds the first batch that may hold a record at or after `timestamp`; an empty chunk when there is none.
    ///
    /// # Errors
    /// When the log stopped; `done` is then dropped.
    pub fn seek(
        &self,
        partition: PartitionId,
        timestamp: i64,
        done: impl FnOnce(Result<Chunk, ReadError>) + Send + 'static,
    ) -> Result<(), ReadError> {
        let request = Request::Seek { partition, timestamp };
        self.read_pieces(request, done)
    }

    /// Finds where `partition` begins when its beginning is given up; the answer is the chunk's `next`.
    ///
    /// # Errors
    /// When the log stopped; `done` is then dropped.
    pub fn boundary(
        &self,
        partition: PartitionId,
        of: Boundary,
        done: impl FnOnce(Result<Chunk, ReadError>) + Send + 'static,
    ) -> Result<(), ReadError> {
        self.read_pieces(Request::Boundary { partition, of }, done)
    }

    /// Reads the entries of `group` from `from` on and before `end`, up to about `max_bytes` of payload, the first
    /// whatever its size. Batches that retention has removed come as [`crate::format::entry::Op::Gone`], and all of them if that is
    /// what is wanted. `done` is called from a reader's thread.
    ///
    /// # Errors
    /// When the log stopped; `done` is then dropped.
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

    /// Runs `read`, which may block on the disk, on a reader's thread: a look into a snapshot.
    ///
    /// # Errors
    /// When the log stopped; `read` is then dropped.
    pub fn apart(&self, read: impl FnOnce() + Send + 'static) -> Result<(), ReadError> {
        self.submit(Box::new(move |_, _| read()))
    }

    /// Reads every batch of every partition and checks it, calling `progress` with bytes done and in all. Blocks.
    ///
    /// # Errors
    /// When the operating system does not hand something out: what that is worth is not known, and is no damage.
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
