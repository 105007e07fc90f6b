//! The writing side, owned by the one thread that writes.

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

/// Frames below this go through a buffer; larger ones are handed over as they are.
const BUFFER_BYTES: usize = 64 << 10;
/// Frames that one step of a sweep looks at: some 20 ms of look-ups. At the smallest size that is 8 MiB, twice of what
/// is written between two steps.
const SWEEP_FRAMES_MAX: usize = 8_192;

/// The file that is being written.
#[derive(Debug)]
struct Current {
    segment: u32,
    file: BufWriter<File>,
    end: u64,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    len: u64,
    /// Bytes of frames that `data` points to.
    live: u64,
}

/// What a walk over the frames of a file came to.
enum Walk {
    /// A frame.
    Frame(FrameHeader, Pointer),
    /// The end of the file, or what a power cut left of the last frame, or damage.
    End { whole: bool },
    /// It cannot be read now.
    Failed(io::Error),
}

/// How the files are kept.
#[derive(Clone, Debug)]
pub(crate) struct ValueOptions {
    /// A file is full from here on.
    pub(crate) segment_bytes: u64,
    /// Where files go, after damage, that nothing points to when the log is opened, or that cannot be walked to their
    /// end: what they hold may be all that is left. Otherwise they are removed.
    pub(crate) quarantine: Option<PathBuf>,
}

/// Adds payloads, and keeps the account of which files still hold any that count.
pub(crate) struct ValueWriter {
    log: Arc<ValueLog>,
    options: ValueOptions,
    data: Keyspace,
    state: Keyspace,
    current: Option<Current>,
    next: u32,
    accounts: BTreeMap<u32, Account>,
    /// Segments whose account is not yet in a batch.
    touched: BTreeSet<u32>,
    /// Nothing points to them any more; they go once that is on the disk.
    dead: VecDeque<u32>,
    /// Where the emptying of a segment goes on.
    sweep: Option<(u32, u64)>,
    /// Something was freed since no file was found to be worth emptying.
    freed: bool,
    /// The log is being opened: what is dead now was not seen to die.
    opening: bool,
    /// Segments that could not be emptied: not tried again before the next start.
    stuck: BTreeSet<u32>,
}

impl ValueWriter {
    /// Goes on behind what is there, and removes the files that hold nothing that counts.
    ///
    /// # Errors
    /// When the directory or the accounts cannot be read.
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
        // The last run's current file may have been drained: nothing else would look at it again.
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

    /// Adds a round's payloads and syncs them. Returns their pointers, in order.
    ///
    /// # Errors
    /// When that failed: some may be there, and nothing points to them.
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

    /// The file to write to, a new one when the last is full.
    fn roll(&mut self) -> io::Result<&mut Current> {
        let current = match self.current.take() {
            Some(current) if current.end < self.options.segment_bytes => current,
            full => {
                // Everything of it may be gone already: its account is looked at once more.
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

    /// Says that nothing points to `pointer` any more.
    pub(crate) fn free(&mut self, pointer: Pointer) {
        if let Some(account) = self.accounts.get_mut(&pointer.segment) {
            account.live = account.live.saturating_sub(pointer.frame_bytes());
            self.touched.insert(pointer.segment);
            self.freed = true;
        }
    }

    /// Puts the accounts that changed into the batch that changes them.
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

    /// Whether files wait for a sync to be removed.
    pub(crate) fn has_dead(&self) -> bool {
        !self.dead.is_empty()
    }

    /// Removes a file that nothing points to; everything staged so far is on the disk. One at a time: looking at its
    /// frames once more takes a while, and whoever waits for a sync waits for it.
    pub(crate) fn remove_dead(&mut self) {
        let Some(segment) = self.dead.pop_front() else {
            return;
        };
        // The account alone is not enough to remove a file by: journals can be damaged.
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
            // It goes at the next start.
            tracing::warn!(segment, %error, "cannot remove a file of the value log");
        }
    }

    /// Bytes of frames in `segment` that `data` does point to, of all that could be walked, and whether that is all.
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

    /// The next payloads to move out of a file of which more than half is gone, up to about `max_bytes`, so that
    /// the file can go. Empty when there is nothing to do, or nothing was found this time.
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
                    // What was found now is all that is left of it, whatever its account says.
                    if let Some(account) = self.accounts.get_mut(&segment) {
                        account.live = bytes;
                        self.touched.insert(segment);
                    }
                    return found;
                }
                // Behind damage there may be more. What is left stays.
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
                // A row that cannot be read must not be written either.
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

    /// Leaves `segment` as it is.
    pub(crate) fn give_up(&mut self, segment: u32) {
        self.sweep.take_if(|(s, _)| *s == segment);
        self.stuck.insert(segment);
    }

    /// The emptiest of the full files of which more than half is gone.
    fn sparse(&mut self) -> Option<u32> {
        if !std::mem::take(&mut self.freed) {
            return None;
        }
        let current = self.current.as_ref().map(|c| c.segment);
        let sparse = self.accounts.iter().filter(|(segment, account)| {
            Some(**segment) != current && !self.stuck.contains(segment) && account.live < account.len / 2
        });
        let (segment, _) = sparse.min_by_key(|(_, account)| account.live)?;
        // There may be another.
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
