//! The log as the layers above see it.

use crate::Payloads;
use crate::keys::{StateKey, StateKind};
use crate::positions::Positions;
use crate::reader::{self, Boundary, Chunk, Request};
use crate::recovery::{self, Recovered};
use crate::scrub::{self, ScrubReport};
use crate::snapshot::{Install, LogSnapshot, Received};
use crate::space::{default_reserve, free_and_total};
use crate::store::{Keyspaces, Options, Shared, Store};
use crate::tails::split_id;
use crate::workers::{Running, Threads, Turn, Wake, Worker, Workers};
use crate::writer::{Command, Writer};
use crate::{AppendError, Entry, EntryHeader, EntryId, Marks, OpenError, ReadError};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use weir_types::limits::WRITER_QUEUE_MAX;
use weir_types::{Batch, GroupId, Offset, PartitionId};

/// Threads that read for consumers: one more than may wait for the same slow disk.
const READERS: usize = 2;
/// Reads waiting for one of them.
const READ_QUEUE_MAX: usize = 1_024;

/// Room beyond the reserve that is left before payloads are moved: a step of a sweep, and a new file's start.
const SWEEP_ROOM_BYTES: u64 = 8 << 20;

/// What the log uses and has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Bytes of all files of the database and of the value log.
    pub disk_bytes: u64,
    /// Bytes that are left on the disk.
    pub free_bytes: u64,
    /// Bytes of them that are not used for records.
    pub reserve_bytes: u64,
    /// Bytes written since start, before the file system.
    pub written_bytes: u64,
    /// Syncs since start.
    pub syncs: u64,
}

type ReadJob = Box<dyn FnOnce(&Keyspaces, &Positions) + Send>;

/// What the log stands on: the simulation owns it all.
#[derive(Clone)]
pub struct Environment {
    /// Who runs the loops that write and read.
    pub workers: Arc<dyn Workers>,
    /// Where the rows are.
    pub store: Store,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            workers: Arc::new(Threads),
            store: Store::Files,
        }
    }
}

/// A log that is open. Clones are handles to the same one.
#[derive(Clone)]
pub struct Log(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    dir: PathBuf,
    reserve_bytes: u64,
    pub(crate) keyspaces: Keyspaces,
    shared: Arc<Shared>,
    workers: Arc<dyn Workers>,
    commands: SyncSender<Command>,
    wake_writer: Wake,
    /// Gone only while the log is dropped.
    reads: Option<SyncSender<ReadJob>>,
    readers: Vec<Running>,
    epoch: u32,
    _lock: Option<File>,
}

impl Drop for Inner {
    /// Waits for the readers: the database is free for the next to open only when their handles are gone.
    fn drop(&mut self) {
        self.reads = None;
        for reader in self.readers.drain(..) {
            (reader.join)();
        }
    }
}

/// What is left of a disk when something is to be deleted: the entry, its effects and a watermark, a few times over.
const FREEING_BYTES: u64 = 1 << 20;

impl Log {
    /// Opens the log in `dir`, or makes one; mends what a power cut left and says what was lost, if anything was.
    ///
    /// # Errors
    /// When the directory is in use, cannot be written, or is damaged beyond opening.
    pub fn open(dir: &Path, options: &Options) -> Result<(Self, Recovered), OpenError> {
        Self::open_in(dir, options, Environment::default())
    }

    /// As [`Log::open`], in an environment of the caller's.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_in(
        dir: &Path,
        options: &Options,
        environment: Environment,
    ) -> Result<(Self, Recovered), OpenError> {
        let Environment { workers, store } = environment;
        let io = |source| OpenError::Io {
            path: dir.to_owned(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(io)?;
        let state = recovery::open(dir, options, &store)?;
        let (_, total) = free_and_total(dir).map_err(io)?;
        let reserve_bytes = options
            .disk_reserve_bytes
            .unwrap_or_else(|| default_reserve(total));
        let shared = Arc::new(Shared::default());
        for (partition, position) in &state.positions {
            let gaps = state.gaps.get(partition).cloned().unwrap_or_default();
            shared.positions.load(*partition, position, gaps);
        }
        let (commands, from_handle) = sync_channel(WRITER_QUEUE_MAX);
        let epoch = state.watermark.value.epoch;
        let incoming = [StateKind::Incoming as u8];
        let receiving = state.keyspaces.state.prefix(incoming).next().is_some();
        let writer = Writer {
            keyspaces: state.keyspaces.clone(),
            shared: Arc::clone(&shared),
            commands: from_handle,
            watermark: state.watermark,
            values: state.values,
            copy: state.copy,
            value_log_from_bytes: options.value_log_from_bytes,
            sweep_reserve_bytes: reserve_bytes / 2 + SWEEP_ROOM_BYTES,
            tails: state.tails,
            positions: state.positions,
            unsynced: None,
            since_watermark: 0,
            syncs_since_watermark: 0,
            since_sweep: 0,
            receiving,
            headers_only: options.headers_only,
        };
        let writing = workers.start("weir-log", Box::new(writer)).map_err(io)?;
        let (reads, readers) = start_readers(&state.keyspaces, &shared, &*workers).map_err(io)?;
        let inner = Inner {
            dir: dir.to_owned(),
            reserve_bytes,
            keyspaces: state.keyspaces,
            shared,
            workers,
            commands,
            wake_writer: writing.wake,
            reads: Some(reads),
            readers,
            epoch,
            _lock: state.lock,
        };
        Ok((Self(Arc::new(inner)), state.recovered))
    }

    /// Hands an entry to the writer; `flushed` is called from its thread once the entry is synced (written, for one
    /// that is `lazy`). Blocks while the queue is full. Entries of a group come in order of their index. Whether there
    /// is room is for the caller to ask, with [`Log::room_for`].
    ///
    /// # Errors
    /// When nothing was taken: the log stopped. `flushed` is then dropped.
    pub fn append(
        &self,
        entry: Entry,
        flushed: impl FnOnce(Result<(), AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        let bytes = entry.payload_bytes() as u64;
        self.0.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let shared = Arc::clone(&self.0.shared);
        let flushed = Box::new(move |result| {
            shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            flushed(result);
        });
        self.send(Command::Append { entry, flushed })
    }

    /// Makes a committed entry's effects visible, and durable with a later write. Entries of a group in order.
    pub fn apply(&self, header: Arc<EntryHeader>) {
        self.0.shared.positions.apply(&header);
        self.0.shared.add_effects(header);
    }

    /// Removes the entries of `group` from `from` on, none of them committed.
    ///
    /// # Errors
    /// When the log stopped; `done` is then dropped.
    pub fn truncate(
        &self,
        group: GroupId,
        from: u64,
        done: impl FnOnce(Result<(), AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        self.send(Command::Truncate {
            group,
            from,
            done: Box::new(done),
        })
    }

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
    /// whatever its size. Batches that retention has removed come as [`crate::Op::Gone`], and all of them if that is
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
            done(reader::entries(keyspaces, group, from..end, max_bytes, of));
        }))
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

    /// Forgets the headers of `group` up to `upto`, but none whose effects are not yet written.
    ///
    /// # Errors
    /// When the log stopped; `done` is then dropped.
    pub fn purge(
        &self,
        group: GroupId,
        upto: u64,
        done: impl FnOnce(Result<(), AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        let done = Box::new(done);
        self.send(Command::Purge { group, upto, done })
    }

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

    /// Runs `read`, which may block on the disk, on a reader's thread: a look into a snapshot.
    ///
    /// # Errors
    /// When the log stopped; `read` is then dropped.
    pub fn apart(&self, read: impl FnOnce() + Send + 'static) -> Result<(), ReadError> {
        self.submit(Box::new(move |_, _| read()))
    }

    fn read_pieces(
        &self,
        request: Request,
        done: impl FnOnce(Result<Chunk, ReadError>) + Send + 'static,
    ) -> Result<(), ReadError> {
        self.submit(Box::new(move |keyspaces, positions| {
            done(reader::serve(keyspaces, positions, &request));
        }))
    }

    fn submit(&self, job: ReadJob) -> Result<(), ReadError> {
        let reads = self.0.reads.as_ref().ok_or(ReadError::Closed)?;
        reads.send(job).map_err(|_| ReadError::Closed)?;
        self.0.readers.iter().for_each(|reader| (reader.wake)());
        Ok(())
    }

    /// Who runs its loops: those of the layers above run there too.
    pub fn workers(&self) -> &dyn Workers {
        &*self.0.workers
    }

    /// Where `partition` stands.
    pub fn marks(&self, partition: PartitionId) -> Option<Arc<Marks>> {
        self.0.shared.positions.marks(partition)
    }

    /// The marks of a partition that may be new.
    pub fn marks_or_new(&self, partition: PartitionId) -> Arc<Marks> {
        self.0.shared.positions.entry(partition)
    }

    /// What it uses and has.
    pub fn usage(&self) -> Usage {
        let shared = &self.0.shared;
        Usage {
            disk_bytes: self.0.keyspaces.db.disk_space().unwrap_or(0) + self.0.keyspaces.values.disk_bytes(),
            free_bytes: self.0.keyspaces.db.free_bytes(&self.0.dir).unwrap_or(0),
            reserve_bytes: self.0.reserve_bytes,
            written_bytes: shared.written_bytes.load(Ordering::Relaxed),
            syncs: shared.syncs.load(Ordering::Relaxed),
        }
    }

    /// How often acknowledged records were lost here, so far.
    pub fn epoch(&self) -> u32 {
        self.0.epoch
    }

    /// Why the log stopped, if a write failed.
    pub fn poisoned(&self) -> Option<Arc<str>> {
        self.0.shared.reason()
    }

    /// Calls `hook` with the reason when a write fails, or at once if one has.
    pub fn on_poison(&self, hook: impl FnOnce(Arc<str>) + Send + 'static) {
        let mut slot = self
            .0
            .shared
            .on_stop
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match self.poisoned() {
            Some(reason) => hook(reason),
            None => *slot = Some(Box::new(hook)),
        }
    }

    /// Reads every batch of every partition and checks it, calling `progress` with bytes done and in all. Blocks.
    ///
    /// # Errors
    /// When the operating system does not hand something out: what that is worth is not known, and is no damage.
    pub fn scrub(&self, progress: impl FnMut(u64, u64)) -> Result<ScrubReport, ReadError> {
        scrub::scrub(&self.0.keyspaces, &self.0.shared.positions, progress)
    }

    /// Writes and syncs all there is, marks the shutdown as orderly, and stops. Blocks.
    pub fn close(&self) {
        let (done, closed) = sync_channel(1);
        if self
            .send(Command::Close {
                done: Box::new(move |_| done.send(()).unwrap_or_default()),
            })
            .is_ok()
        {
            let _ = closed.recv();
        }
    }

    /// Moves what is in memory to tables and blob files, as happens by itself when enough has gathered.
    #[cfg(test)]
    pub(crate) fn flush_tables(&self) {
        for keyspace in [
            &self.0.keyspaces.rlog,
            &self.0.keyspaces.data,
            &self.0.keyspaces.state,
        ] {
            let _ = keyspace.rotate_memtable_and_wait();
        }
    }

    /// Whether `bytes` more may be written: the disk's reserve stays free. `control` may use half of that: what keeps the node in
    /// order.
    ///
    /// # Errors
    /// When there is no room.
    pub fn room_for(&self, bytes: u64, control: bool) -> Result<(), AppendError> {
        // A call of a microsecond for an entry of a millisecond: no estimate that could be wrong.
        let free = self.0.keyspaces.db.free_bytes(&self.0.dir).unwrap_or(u64::MAX);
        let queued = self.0.shared.queued_bytes.load(Ordering::Relaxed);
        let reserve = if control {
            self.0.reserve_bytes / 2
        } else {
            self.0.reserve_bytes
        };
        if free.saturating_sub(queued + bytes) < reserve {
            return Err(AppendError::DiskFull { free, reserve });
        }
        Ok(())
    }

    /// As [`Log::room_for`], for what gives room back: it may use all but [`FREEING_BYTES`], or a disk that is full would stay so.
    ///
    /// # Errors
    /// As there.
    pub fn room_to_free(&self, bytes: u64) -> Result<(), AppendError> {
        let free = self.0.keyspaces.db.free_bytes(&self.0.dir).unwrap_or(u64::MAX);
        let (needed, reserve) = (bytes + FREEING_BYTES, self.0.reserve_bytes);
        // A reserve that is smaller than that is of a disk that was said to be small.
        match free < needed.min(reserve) {
            true => Err(AppendError::DiskFull {
                free,
                reserve: needed,
            }),
            false => Ok(()),
        }
    }

    pub(crate) fn send(&self, command: Command) -> Result<(), AppendError> {
        if self.0.shared.stopped.load(Ordering::Acquire) {
            return Err(self.poisoned().map_or(AppendError::Closed, AppendError::Poisoned));
        }
        self.0.commands.send(command).map_err(|_| AppendError::Closed)?;
        (self.0.wake_writer)();
        Ok(())
    }
}

fn start_readers(
    keyspaces: &Keyspaces,
    shared: &Arc<Shared>,
    workers: &dyn Workers,
) -> std::io::Result<(SyncSender<ReadJob>, Vec<Running>)> {
    let (reads, jobs) = sync_channel::<ReadJob>(READ_QUEUE_MAX);
    let jobs: Arc<Mutex<Receiver<ReadJob>>> = Arc::new(Mutex::new(jobs));
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let reader = Reader {
            jobs: Arc::clone(&jobs),
            keyspaces: keyspaces.clone(),
            shared: Arc::clone(shared),
        };
        readers.push(workers.start("weir-read", Box::new(reader))?);
    }
    Ok((reads, readers))
}

/// Reads for whoever asks.
struct Reader {
    jobs: Arc<Mutex<Receiver<ReadJob>>>,
    pub(crate) keyspaces: Keyspaces,
    shared: Arc<Shared>,
}

impl Reader {
    fn jobs(&self) -> MutexGuard<'_, Receiver<ReadJob>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker for Reader {
    fn run(self: Box<Self>) {
        loop {
            let job = self.jobs().recv();
            let Ok(job) = job else { return };
            job(&self.keyspaces, &self.shared.positions);
        }
    }

    fn turn(&mut self) -> Turn {
        loop {
            let job = self.jobs().try_recv();
            match job {
                Ok(job) => job(&self.keyspaces, &self.shared.positions),
                Err(TryRecvError::Empty) => return Turn::Wait(None),
                Err(TryRecvError::Disconnected) => return Turn::Over,
            }
        }
    }
}
