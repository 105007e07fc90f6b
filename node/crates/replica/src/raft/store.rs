//! The log of a group for openraft: the node's log, which many groups share, with the newest entries in
//! memory.

use crate::raft::tail::Tail;
use crate::types::{LogId, RaftEntry, StoredVote, Types, Vote, entry_id, from_log, log_id, to_log};
use futures_util::future::BoxFuture;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, MutexGuard, OnceLock};
use tokio::sync::{oneshot, watch};
use weir_log::{
    AppendError, EntryHeader, EntryId, GroupState, Log, Payloads, ReadError, StateKey, StateKind,
};
use weir_types::limits::{REPLICATE_BYTES_MAX, REPLICATE_ENTRIES_MAX};
use weir_types::planted::{Bug, planted};
use weir_types::sync::Mutex;
use weir_types::{GroupId, Offset, PartitionId};

/// The log of a group. Clones are handles to the same log.
#[derive(Clone)]
pub(crate) struct Store(Arc<Inner>);

struct Inner {
    group: GroupId,
    log: Log,
    tail: Mutex<Tail>,
    /// Last entry on this node's disk; `None` after a failed write.
    flushed: watch::Sender<Option<u64>>,
    mend: OnceLock<Mend>,
}

/// Repairs the batch at an offset from other members. Resolves to true when the batch can be read.
pub(crate) type Mend = Box<dyn Fn(PartitionId, Offset) -> BoxFuture<'static, bool> + Send + Sync>;

impl Store {
    pub(crate) fn new(group: GroupId, log: Log, state: GroupState, vote: Option<StoredVote>) -> Self {
        let vote = vote.map(Vote::from);
        let tail = Tail::new(state.purged, state.last, state.applied.index, vote);
        Self(Arc::new(Inner {
            group,
            log,
            tail: Mutex::new(tail),
            flushed: watch::Sender::new(Some(state.last.index)),
            mend: OnceLock::new(),
        }))
    }

    pub(crate) fn tail(&self) -> MutexGuard<'_, Tail> {
        self.0.tail.lock()
    }

    /// Sets the repair, once.
    pub(crate) fn set_mend(&self, mend: Mend) {
        let _ = self.0.mend.set(mend);
    }

    /// Repairs the batch of a read error. Returns true when another read is worthwhile.
    pub(crate) async fn mended(&self, error: &ReadError) -> bool {
        match (error, self.0.mend.get()) {
            (ReadError::Damaged { partition, near, .. }, Some(mend)) => {
                mend(*partition, Offset::new(*near)).await
            }
            _ => false,
        }
    }

    pub(crate) fn log(&self) -> &Log {
        &self.0.log
    }

    pub(crate) fn group(&self) -> GroupId {
        self.0.group
    }

    /// Returns the header of `entry`, computed once while the entry is in memory.
    pub(crate) fn header(&self, entry: &RaftEntry) -> Arc<EntryHeader> {
        let kept = self.tail().header(entry.log_id.index());
        kept.unwrap_or_else(|| Arc::new(to_log(self.0.group, entry).header()))
    }

    fn append_one(
        &self,
        entry: RaftEntry,
        flushed: impl FnOnce(Result<(), AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        let stored = to_log(self.0.group, &entry);
        let index = stored.index;
        let (header, bytes) = (Arc::new(stored.header()), stored.payload_bytes());
        self.tail().push(entry, header, bytes);
        let inner = Arc::downgrade(&self.0);
        self.0.log.append(stored, move |result| {
            if let Some(inner) = inner.upgrade() {
                inner.note_flushed(result.is_ok().then_some(index));
            }
            flushed(result);
        })
    }

    /// Waits until the entry `index` is on this node's disk. openraft applies entries that most nodes have,
    /// perhaps without this node. But readers look for applied records on this disk, and the log must not
    /// mark entries as applied that it could lose.
    ///
    /// # Errors
    /// Fails when the log has stopped.
    pub(crate) async fn until_flushed(&self, index: u64) -> io::Result<()> {
        if planted(Bug::ApplyUnflushed) {
            return Ok(());
        }
        let mut flushed = self.0.flushed.subscribe();
        let there = flushed.wait_for(|f| f.is_none_or(|last| last >= index)).await;
        if there.map_err(io::Error::other)?.is_some() {
            Ok(())
        } else {
            Err(io::Error::other("the log stopped"))
        }
    }

    /// Restarts the log behind `at`, after the installation of a snapshot.
    pub(crate) fn restart(&self, at: EntryId) {
        self.tail().restart(at);
        self.0.note_flushed(Some(at.index));
    }

    /// Reads entries of `[start, end)` from disk and memory. May end early at a limit, but not before the
    /// first.
    async fn read(&self, start: u64, end: u64, max_bytes: usize, of: Payloads) -> io::Result<Vec<RaftEntry>> {
        let (from, mut in_memory) = self.tail().range(start, end, max_bytes);
        if from <= start || start >= end {
            return Ok(in_memory);
        }
        let mut entries = self.read_disk(start, from.min(end), max_bytes, of).await?;
        let complete = entries.last().is_some_and(|e| e.log_id.index() + 1 == from);
        if complete && max_bytes == usize::MAX {
            entries.append(&mut in_memory);
        }
        Ok(entries)
    }

    async fn read_disk(
        &self,
        start: u64,
        end: u64,
        max_bytes: usize,
        of: Payloads,
    ) -> io::Result<Vec<RaftEntry>> {
        loop {
            let (done, read) = oneshot::channel();
            let reply = move |r| drop(done.send(r));
            let log = &self.0.log;
            log.entries(self.0.group, start, end, max_bytes, of, reply)
                .map_err(io::Error::other)?;
            match read.await.map_err(io::Error::other)? {
                Ok(entries) => return Ok(entries.into_iter().map(from_log).collect()),
                Err(e) if self.mended(&e).await => {}
                Err(e) => return Err(io::Error::other(e)),
            }
        }
    }
}

impl Inner {
    fn note_flushed(&self, index: Option<u64>) {
        if let Some(index) = index {
            let mut tail = self.tail.lock();
            tail.flushed(index);
        }
        // A failure is final.
        let note = |f: &mut Option<u64>| *f = f.zip(index).map(|(before, now)| before.max(now));
        self.flushed.send_modify(note);
    }
}

pub(crate) async fn wait(
    start: impl FnOnce(Box<dyn FnOnce(Result<(), AppendError>) + Send>) -> Result<(), AppendError>,
) -> io::Result<()> {
    let (done, waiting) = oneshot::channel();
    start(Box::new(move |r| drop(done.send(r)))).map_err(io::Error::other)?;
    waiting.await.map_err(io::Error::other)?.map_err(io::Error::other)
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<RaftEntry>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let (start, end) = {
            let tail = self.tail();
            (start.max(tail.purged.index + 1), end.min(tail.last.index + 1))
        };
        // Read by consensus to apply entries and find members, even before a damaged batch could be repaired.
        self.read(start, end, usize::MAX, Payloads::Left).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.tail().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        let end = end.min(start.saturating_add(REPLICATE_ENTRIES_MAX));
        self.read(start, end, REPLICATE_BYTES_MAX, Payloads::Read).await
    }
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let tail = self.tail();
        Ok(LogState {
            last_purged_log_id: Some(log_id(tail.purged)),
            last_log_id: Some(log_id(tail.last)),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let row = postcard::to_allocvec(&StoredVote::from(vote)).map_err(io::Error::other)?;
        let key = vote_key(self.0.group);
        if !planted(Bug::VoteNotStored) {
            wait(|done| self.0.log.put_local(key, row, done)).await?;
        }
        self.tail().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut entries = entries.into_iter().peekable();
        let mut callback = Some(callback);
        if planted(Bug::AcknowledgeUnwritten)
            && let Some(callback) = callback.take()
        {
            callback.io_completed(Ok(()));
        }
        while let Some(entry) = entries.next() {
            // Entries reach the disk in order: the last stands for all.
            let callback = entries.peek().is_none().then(|| callback.take()).flatten();
            let flushed = move |result: Result<(), AppendError>| {
                if let Some(callback) = callback {
                    callback.io_completed(result.map_err(io::Error::other));
                }
            };
            self.append_one(entry, flushed).map_err(io::Error::other)?;
        }
        if let Some(callback) = callback {
            callback.io_completed(Ok(()));
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let last = last.map_or(EntryId::default(), |id| entry_id(&id));
        if !planted(Bug::TailKeepsTruncated) {
            self.tail().truncate(last);
        }
        if planted(Bug::TruncateNothing) {
            return Ok(());
        }
        let truncated = wait(|done| self.0.log.truncate(self.0.group, last.index + 1, done)).await;
        if planted(Bug::TailKeepsTruncated) {
            return truncated;
        }
        // Again: removed entries may have been flushed meanwhile.
        self.tail().truncate(last);
        let back = |f: &mut Option<u64>| *f = f.map(|index| index.min(last.index));
        self.0.flushed.send_modify(back);
        truncated
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let upto = entry_id(&upto);
        wait(|done| self.0.log.purge(self.0.group, upto.index, done)).await?;
        self.tail().purged(upto);
        Ok(())
    }
}

pub(super) fn vote_key(group: GroupId) -> StateKey {
    StateKey::new(StateKind::Vote, &group.0.to_be_bytes())
}
