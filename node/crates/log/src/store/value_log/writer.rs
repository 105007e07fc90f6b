//! The writing side of the value log, owned by the writer's thread.

use crate::format::keys::{StateKey, StateKind, data_key};
use crate::store::keyspaces::Keyspaces;
use crate::store::kv::{Keyspace, WriteBatch};
use crate::store::value_log::frame::{FRAME_BYTES, FrameHeader, Pointer};
use crate::store::value_log::{ValueLog, segment_key, segment_row};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use weir_types::{Offset, PartitionId};

/// Frames below this size go through a buffer; larger frames are written directly.
const BUFFER_BYTES: usize = 64 << 10;
/// Frames examined by a step of a sweep: some 20 ms of look-ups. At the smallest size that is 8 MiB, twice
/// the bytes written between two steps.
const SWEEP_FRAMES_MAX: usize = 8_192;

/// The segment being written.
#[derive(Debug)]
struct Current {
    segment: u32,
    file: BufWriter<File>,
    end: u64,
}

/// Account of a segment.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    len: u64,
    /// Bytes of frames that `data` points to.
    live: u64,
}

/// A step of a walk over the frames of a segment.
enum Walk {
    /// A frame.
    Frame(FrameHeader, Pointer),
    /// The end of the segment, the remains of an unfinished frame, or damage.
    End { whole: bool },
    /// The segment cannot be read now.
    Failed(io::Error),
}

/// Settings of the value log.
#[derive(Clone, Debug)]
pub(crate) struct ValueOptions {
    /// Size from which a segment is full.
    pub(crate) segment_bytes: u64,
    /// After damage, the place of segments without references, and of segments that cannot be walked to their
    /// end: they may be the last copy. `None` removes them.
    pub(crate) quarantine: Option<PathBuf>,
}

/// Appends payloads, and keeps the accounts of live bytes.
pub(crate) struct ValueWriter {
    log: Arc<ValueLog>,
    options: ValueOptions,
    data: Keyspace,
    state: Keyspace,
    current: Option<Current>,
    next: u32,
    accounts: BTreeMap<u32, Account>,
    /// Segments whose account is not in a batch yet.
    touched: BTreeSet<u32>,
    /// Dead segments, removed once their removal from `data` is synced.
    dead: VecDeque<u32>,
    /// Segment and position of the sweep under way.
    sweep: Option<(u32, u64)>,
    /// Bytes were freed since the last search for a sparse segment.
    freed: bool,
    /// The log is being opened: dead segments died in an earlier run.
    opening: bool,
    /// Segments that cannot be emptied before the next start.
    stuck: BTreeSet<u32>,
}

impl ValueWriter {
    /// Continues behind the existing segments, and removes dead segments.
    ///
    /// # Errors
    /// Fails when the directory or the accounts cannot be read.
    pub(crate) fn open(keyspaces: &Keyspaces, options: ValueOptions) -> fjall::Result<Self> {
        let log = Arc::clone(&keyspaces.values);
        let mut accounts: BTreeMap<u32, Account> = BTreeMap::new();
        for guard in keyspaces.state.prefix([StateKind::Segment as u8]) {
            let (key, value) = guard.into_inner()?;
            if let Some((segment, live)) = segment_row(&key, &value) {
                accounts.insert(segment, Account { len: 0, live });
            }
        }
        let mut next = accounts.last_key_value().map_or(1, |(s, _)| s.saturating_add(1));
        let (mut total, mut dead) = (0, VecDeque::new());
        for (segment, len) in log.files()? {
            next = next.max(segment.saturating_add(1));
            total += len;
            match accounts.get_mut(&segment) {
                Some(account) => account.len = len,
                None => dead.push_back(segment),
            }
        }
        log.bytes.store(total, Ordering::Relaxed);
        // The last run's current segment may be empty: nothing else would check it again.
        let touched = accounts
            .iter()
            .filter(|(_, a)| a.live == 0)
            .map(|(s, _)| *s)
            .collect();
        let mut writer = Self {
            log,
            options,
            data: keyspaces.data.clone(),
            state: keyspaces.state.clone(),
            current: None,
            next,
            accounts,
            touched,
            dead,
            sweep: None,
            freed: true,
            opening: true,
            stuck: BTreeSet::new(),
        };
        while writer.has_dead() {
            writer.remove_dead();
        }
        writer.opening = false;
        Ok(writer)
    }

    /// Appends and syncs a round's payloads. Returns their pointers, in order.
    ///
    /// # Errors
    /// Fails when the write or the sync failed: some payloads may be stored, but nothing points to them.
    pub(crate) fn append<'a>(
        &mut self,
        values: impl Iterator<Item = (PartitionId, Offset, &'a [u8])>,
    ) -> io::Result<Vec<Pointer>> {
        let current = self.roll()?;
        let begun = current.end;
        let mut pointers = Vec::new();
        for (partition, base, bytes) in values {
            let len = bytes.len() as u32;
            let header = FrameHeader { partition, base, len };
            current.file.write_all(&header.encode())?;
            current.file.write_all(bytes)?;
            let pointer = Pointer {
                segment: current.segment,
                at: current.end + FRAME_BYTES as u64,
                len,
            };
            current.end += pointer.frame_bytes();
            pointers.push(pointer);
        }
        current.file.flush()?;
        current.file.get_ref().sync_data()?;
        let (segment, grown) = (current.segment, current.end - begun);
        let account = self.accounts.entry(segment).or_default();
        account.len += grown;
        account.live += grown;
        self.touched.insert(segment);
        self.log.bytes.fetch_add(grown, Ordering::Relaxed);
        Ok(pointers)
    }

    /// Returns the segment to write to, a new segment when the last is full.
    fn roll(&mut self) -> io::Result<&mut Current> {
        let current = match self.current.take() {
            Some(current) if current.end < self.options.segment_bytes => current,
            full => {
                // The full segment may be dead already: check its account again.
                self.touched.extend(full.map(|c| c.segment));
                self.freed = true;
                let segment = self.next;
                self.next += 1;
                let file = OpenOptions::new()
                    .append(true)
                    .create_new(true)
                    .open(self.log.path(segment))?;
                File::open(&self.log.dir)?.sync_all()?;
                Current {
                    segment,
                    file: BufWriter::with_capacity(BUFFER_BYTES, file),
                    end: 0,
                }
            }
        };
        Ok(self.current.insert(current))
    }

    /// Notes that nothing points to `pointer` any more.
    pub(crate) fn free(&mut self, pointer: Pointer) {
        if let Some(account) = self.accounts.get_mut(&pointer.segment) {
            account.live = account.live.saturating_sub(pointer.frame_bytes());
            self.touched.insert(pointer.segment);
            self.freed = true;
        }
    }

    /// Stages the changed accounts into the batch that changes them.
    pub(crate) fn stage(&mut self, batch: &mut WriteBatch, state: &Keyspace) {
        let current = self.current.as_ref().map(|c| c.segment);
        for segment in std::mem::take(&mut self.touched) {
            let live = self.accounts.get(&segment).map_or(0, |a| a.live);
            let key = segment_key(segment);
            if live == 0 && current != Some(segment) {
                batch.remove(state, key.as_bytes());
                self.accounts.remove(&segment);
                self.dead.push_back(segment);
            } else {
                batch.insert(state, key.as_bytes(), live.to_be_bytes());
            }
        }
    }

    /// Returns true when dead segments wait for a sync.
    pub(crate) fn has_dead(&self) -> bool {
        !self.dead.is_empty()
    }

    /// Removes a dead segment; everything staged so far must be synced. One segment a call: the recount takes
    /// a while, and waiters for a sync wait for the recount.
    pub(crate) fn remove_dead(&mut self) {
        let Some(segment) = self.dead.pop_front() else {
            return;
        };
        // The account alone is not enough to remove a segment: journals can be damaged.
        let (live, len, whole) = match self.recount(segment) {
            Ok(counted) => counted,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                tracing::warn!(segment, %error, "cannot look at a file of the value log: it stays until the next start");
                return;
            }
        };
        if live > 0 {
            tracing::error!(
                segment,
                live,
                "records are in a file that was taken for empty: it stays"
            );
            self.accounts.insert(segment, Account { len, live });
            self.touched.insert(segment);
            self.stuck.insert(segment);
            return;
        }
        let quarantine = self.options.quarantine.as_deref();
        let gone = match quarantine.filter(|_| self.opening || !whole) {
            Some(quarantine) => self.log.set_aside(segment, quarantine),
            None => self.log.remove(segment),
        };
        if let Err(error) = gone {
            // The next start removes the segment.
            tracing::warn!(segment, %error, "cannot remove a file of the value log");
        }
    }

    /// Counts the bytes of frames in `segment` that `data` points to, and all bytes walked. The last value is
    /// true when the walk reached the end.
    fn recount(&self, segment: u32) -> io::Result<(u64, u64, bool)> {
        let (mut live, mut at) = (0, 0);
        loop {
            match self.walk(segment, at) {
                Walk::Frame(header, pointer) => {
                    at += pointer.frame_bytes();
                    if self.points_to(&header, pointer).map_err(io::Error::other)? {
                        live += pointer.frame_bytes();
                    }
                }
                Walk::End { whole } => return Ok((live, at, whole)),
                Walk::Failed(error) => return Err(error),
            }
        }
    }

    /// Returns the next payloads to move out of a segment that is more than half dead, up to about
    /// `max_bytes`. Empty when there is nothing to do, or when this step found nothing.
    pub(crate) fn movable(&mut self, max_bytes: u64) -> Vec<(FrameHeader, Pointer)> {
        let mut found = Vec::new();
        let Some((segment, mut at)) = self.sweep.take().or_else(|| self.sparse().map(|s| (s, 0))) else {
            return found;
        };
        let mut bytes = 0;
        for _ in 0..SWEEP_FRAMES_MAX {
            let (header, pointer) = match self.walk(segment, at) {
                Walk::Frame(header, pointer) => (header, pointer),
                Walk::End { whole: true } => {
                    // The frames found now are all that is live, whatever the account says.
                    if let Some(account) = self.accounts.get_mut(&segment) {
                        account.live = bytes;
                        self.touched.insert(segment);
                    }
                    return found;
                }
                // There may be more frames behind damage: leave them.
                Walk::End { whole: false } | Walk::Failed(_) => {
                    self.stuck.insert(segment);
                    return found;
                }
            };
            at += pointer.frame_bytes();
            match self.points_to(&header, pointer) {
                Ok(true) => {
                    bytes += pointer.frame_bytes();
                    found.push((header, pointer));
                }
                Ok(false) => {}
                // A row that cannot be read must not be written.
                Err(_) => {
                    self.stuck.insert(segment);
                    return found;
                }
            }
            if bytes >= max_bytes {
                break;
            }
        }
        self.sweep = Some((segment, at));
        found
    }

    /// Leaves `segment` as it is until the next start.
    pub(crate) fn give_up(&mut self, segment: u32) {
        self.sweep.take_if(|(s, _)| *s == segment);
        self.stuck.insert(segment);
    }

    /// Returns the emptiest full segment that is more than half dead.
    fn sparse(&mut self) -> Option<u32> {
        if !std::mem::take(&mut self.freed) {
            return None;
        }
        let current = self.current.as_ref().map(|c| c.segment);
        let sparse = self.accounts.iter().filter(|(segment, account)| {
            Some(**segment) != current && !self.stuck.contains(segment) && account.live < account.len / 2
        });
        let (segment, _) = sparse.min_by_key(|(_, account)| account.live)?;
        // There may be another sparse segment.
        self.freed = true;
        Some(*segment)
    }

    fn walk(&self, segment: u32, at: u64) -> Walk {
        let mut bytes = [0; FRAME_BYTES];
        let file = match self.log.file(segment) {
            Ok(file) => file,
            Err(error) => return Walk::Failed(error),
        };
        match file.read_exact_at(&mut bytes, at) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                let len = file.metadata().map_or(0, |m| m.len());
                return Walk::End { whole: len == at };
            }
            Err(error) => return Walk::Failed(error),
        }
        let Some(header) = FrameHeader::decode(&bytes) else {
            return Walk::End { whole: false };
        };
        let pointer = Pointer {
            segment,
            at: at + FRAME_BYTES as u64,
            len: header.len,
        };
        Walk::Frame(header, pointer)
    }

    fn points_to(&self, header: &FrameHeader, pointer: Pointer) -> fjall::Result<bool> {
        let key = data_key(header.partition, header.base);
        let incoming = StateKey::new(StateKind::Incoming, &key);
        for row in [self.data.get(key)?, self.state.get(incoming.as_bytes())?] {
            if row.and_then(|r| Pointer::decode(&r)) == Some(pointer) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
