//! A second copy of the rows of `state` that say what there is: topics, groups and what they committed, members, votes.
//!
//! It is for [`crate::rebuild`] alone, and lies in a file of its own, `rows.copy`, synced apart from the database. The
//! writer adds a frame after each batch with such rows; when the file has grown to twice what counts, it is written anew.
//! A frame, big-endian: CRC32C u32 of all that follows, length u32 of the rows, number u64, and the rows in postcard: keys,
//! each with its value or none if it was removed. The first frame of a file has all rows.
//!
//! Each batch that such a frame follows has the frame's number in a row, [`StateKind::Copied`]: so it can be told whether
//! the copy is as new as the database.

use crate::format::keys::{StateKey, StateKind};
use crate::store::kv::{Keyspace, WriteBatch};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Its name, beside the database.
pub(crate) const FILE: &str = "rows.copy";
const HEADER_BYTES: usize = 16;
/// A frame larger than this is none of ours: all rows of 10,000 topics and as many groups take some 10 MiB.
const FRAME_BYTES_MAX: usize = 256 << 20;
/// The file is written anew when it has this much beyond twice the bytes that count.
const SLACK_BYTES: u64 = 1 << 20;
/// What consumers commit is synced this late at most: it is read again otherwise, which they must bear anyway.
const SYNC_AFTER: Duration = Duration::from_secs(10);

/// The kinds whose rows are copied: few, small, and of which nothing else on the disk tells.
pub(crate) const KINDS: [StateKind; 17] = [
    StateKind::Vote,
    StateKind::Members,
    StateKind::Topic,
    StateKind::GroupOffset,
    StateKind::Counter,
    StateKind::Pipeline,
    StateKind::Module,
    StateKind::Group,
    StateKind::Site,
    StateKind::ReplicaGroup,
    StateKind::Located,
    StateKind::Move,
    StateKind::Sealed,
    StateKind::Forgotten,
    StateKind::Heeded,
    StateKind::Revision,
    StateKind::Channel,
];

type Change = (Vec<u8>, Option<Vec<u8>>);

/// What a file has.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Number of the last frame, 0 when there is none.
    pub(crate) sequence: u64,
    /// It was read to its end.
    pub(crate) is_whole: bool,
    bytes: u64,
}

impl Found {
    /// Puts the rows into `state`, of which some are missing. Where the copy is as new as `state` it counts for more, and what
    /// it does not have is removed; otherwise it fills gaps.
    ///
    /// # Errors
    /// When `state` cannot be read.
    pub(crate) fn restore(&self, state: &Keyspace, batch: &mut WriteBatch) -> fjall::Result<()> {
        let known = copied(state)?;
        let is_as_new = self.is_whole && known.is_none_or(|known| known <= self.sequence);
        for (key, value) in &self.rows {
            if is_as_new || state.get(key)?.is_none() {
                batch.insert(state, key.as_slice(), value.as_slice());
            }
        }
        if is_as_new {
            for kind in KINDS {
                for row in state.prefix([kind as u8]) {
                    let key = row.key()?;
                    if !self.rows.contains_key(&key[..]) {
                        batch.remove(state, key);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Number of the last frame that was written before what `state` has.
fn copied(state: &Keyspace) -> fjall::Result<Option<u64>> {
    let row = state.get([StateKind::Copied as u8])?;
    Ok(row.and_then(|n| n.first_chunk().map(|n| u64::from_be_bytes(*n))))
}

/// The copy, as the writer keeps it.
#[derive(Debug)]
pub(crate) struct RowsCopy {
    dir: PathBuf,
    file: Option<File>,
    /// Number of the last frame that was written.
    sequence: u64,
    bytes: u64,
    /// Bytes when it was last written anew.
    whole_bytes: u64,
    /// Changes that are in the next batch.
    pending: Vec<Change>,
    /// One of them is to be synced at once.
    is_urgent: bool,
    unsynced: Option<Instant>,
    /// It could not be written: tried again from then on.
    failed: Option<Instant>,
}

impl RowsCopy {
    /// A copy in `dir`, of which nothing is known yet.
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            file: None,
            sequence: 0,
            bytes: 0,
            whole_bytes: 0,
            pending: Vec::new(),
            is_urgent: false,
            unsynced: None,
            failed: None,
        }
    }

    /// None, where rows are made again and the copy is looked at afterwards.
    pub(crate) fn unused() -> Self {
        Self::new(Path::new(""))
    }

    /// Reads the copy in `dir`, as far as it is whole.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub(crate) fn load(dir: &Path) -> io::Result<Found> {
        let mut found = Found::default();
        let bytes = match std::fs::read(dir.join(FILE)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
            read => read?,
        };
        let mut rest = &bytes[..];
        while let Some((sequence, changes, len)) = frame(rest) {
            found.sequence = sequence;
            for (key, value) in changes {
                match value {
                    Some(value) => drop(found.rows.insert(key, value)),
                    None => drop(found.rows.remove(&key)),
                }
            }
            rest = rest.get(len..).unwrap_or_default();
            found.bytes += len as u64;
        }
        found.is_whole = rest.is_empty() && found.sequence > 0;
        Ok(found)
    }

    /// Makes sure that the copy in its directory is one of `state`. A copy that cannot be written keeps nothing from opening.
    ///
    /// # Errors
    /// When `state` cannot be read.
    pub(crate) fn catch_up(&mut self, state: &Keyspace) -> fjall::Result<Option<u64>> {
        let rows = all(state)?;
        let known = copied(state)?;
        let found = match Self::load(&self.dir) {
            Ok(found) => found,
            Err(error) => {
                // It may be whole, and is not written over for that.
                self.note_failure(&error);
                return Ok(None);
            }
        };
        self.sequence = found.sequence.max(known.unwrap_or_default());
        let is_the_same = found.is_whole && known.is_none_or(|known| known <= found.sequence);
        if is_the_same && found.rows == rows {
            self.bytes = found.bytes;
            self.whole_bytes = found.bytes;
            match OpenOptions::new().append(true).open(self.dir.join(FILE)) {
                Ok(file) => self.file = Some(file),
                Err(error) => self.note_failure(&error),
            }
            return Ok(None);
        }
        if rows.is_empty() && found.sequence == 0 {
            return Ok(None);
        }
        self.sequence += 1;
        self.write_all(rows);
        Ok(Some(self.sequence))
    }

    /// A row changes with the next batch.
    pub(crate) fn note(&mut self, key: &[u8], value: Option<&[u8]>) {
        let kind = key.first().copied().and_then(StateKind::from_byte);
        if let Some(kind) = kind.filter(|kind| KINDS.contains(kind)) {
            self.is_urgent |= !matches!(kind, StateKind::GroupOffset | StateKind::Group);
            self.pending.push((key.to_vec(), value.map(<[u8]>::to_vec)));
        }
    }

    /// The row that goes with the next batch, if one is to be copied.
    pub(crate) fn row(&self) -> Option<(StateKey, [u8; 8])> {
        let number = (self.sequence + 1).to_be_bytes();
        (!self.pending.is_empty()).then(|| (StateKey::new(StateKind::Copied, &[]), number))
    }

    /// The batch is written: adds what changed.
    ///
    /// # Errors
    /// When `state` cannot be read, if it has to be copied anew.
    pub(crate) fn written(&mut self, state: &Keyspace) -> fjall::Result<()> {
        if self.pending.is_empty() {
            return self.sync_in_time(false);
        }
        self.sequence += 1;
        let is_due = self.failed.is_none_or(|since| since.elapsed() >= SYNC_AFTER);
        let is_full = self.bytes > 2 * self.whole_bytes + SLACK_BYTES;
        if self.file.is_none() || is_full {
            self.pending.clear();
            if is_due {
                let rows = all(state)?;
                self.write_all(rows);
            }
            return Ok(());
        }
        let changes = std::mem::take(&mut self.pending);
        let frame = encode(self.sequence, &changes);
        self.bytes += frame.len() as u64;
        self.unsynced.get_or_insert_with(Instant::now);
        if let Some(Err(error)) = self.file.as_mut().map(|file| file.write_all(&frame)) {
            self.note_failure(&error);
        }
        let is_urgent = std::mem::take(&mut self.is_urgent);
        self.sync_in_time(is_urgent)
    }

    /// Syncs what has waited for long, or all of it.
    ///
    /// # Errors
    /// None: a copy that cannot be synced is made anew later.
    pub(crate) fn sync_in_time(&mut self, now: bool) -> fjall::Result<()> {
        let is_due = self
            .unsynced
            .is_some_and(|since| now || since.elapsed() >= SYNC_AFTER);
        if is_due {
            self.unsynced = None;
            if let Some(Err(error)) = self.file.as_ref().map(File::sync_data) {
                self.note_failure(&error);
            }
        }
        Ok(())
    }

    /// `state` changes as a whole with the next batch.
    pub(crate) fn note_all(&mut self) {
        self.file = None;
        self.pending.push((Vec::new(), None));
    }

    fn write_all(&mut self, rows: BTreeMap<Vec<u8>, Vec<u8>>) {
        let changes: Vec<Change> = rows.into_iter().map(|(key, value)| (key, Some(value))).collect();
        let frame = encode(self.sequence, &changes);
        let write = || {
            let (fresh, path) = (self.dir.join("rows.copy.new"), self.dir.join(FILE));
            let mut file = File::create(&fresh)?;
            file.write_all(&frame)?;
            file.sync_all()?;
            std::fs::rename(&fresh, path)?;
            File::open(&self.dir)?.sync_all()?;
            OpenOptions::new().append(true).open(self.dir.join(FILE))
        };
        match write() {
            Ok(file) => {
                self.file = Some(file);
                self.bytes = frame.len() as u64;
                self.whole_bytes = self.bytes;
                (self.unsynced, self.failed, self.is_urgent) = (None, None, false);
            }
            Err(error) => self.note_failure(&error),
        }
    }

    fn note_failure(&mut self, error: &io::Error) {
        if self.failed.is_none() {
            tracing::warn!(%error, "the second copy of rows (`rows.copy`) cannot be written; it is tried again");
        }
        self.failed = Some(Instant::now());
        self.file = None;
    }
}

/// All rows of `state` that are copied.
fn all(state: &Keyspace) -> fjall::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut rows = BTreeMap::new();
    for kind in KINDS {
        for row in state.prefix([kind as u8]) {
            let (key, value) = row.into_inner()?;
            rows.insert(key.to_vec(), value.to_vec());
        }
    }
    Ok(rows)
}

fn encode(sequence: u64, changes: &[Change]) -> Vec<u8> {
    let out = postcard::to_extend(changes, vec![0; HEADER_BYTES]);
    let mut out = out.expect("lists of bytes have a stored form");
    let len = (out.len() - HEADER_BYTES) as u32;
    out[4..8].copy_from_slice(&len.to_be_bytes());
    out[8..16].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c::crc32c(&out[4..]);
    out[..4].copy_from_slice(&crc.to_be_bytes());
    out
}

/// The frame that `bytes` begin with: its number, its changes, its length.
fn frame(bytes: &[u8]) -> Option<(u64, Vec<Change>, usize)> {
    let crc = u32::from_be_bytes(*bytes.first_chunk()?);
    let len = u32::from_be_bytes(*bytes.get(4..)?.first_chunk()?) as usize;
    let sequence = u64::from_be_bytes(*bytes.get(8..)?.first_chunk()?);
    if len > FRAME_BYTES_MAX {
        return None;
    }
    let end = HEADER_BYTES + len;
    if crc32c::crc32c(bytes.get(4..end)?) != crc {
        return None;
    }
    let changes = postcard::from_bytes(bytes.get(HEADER_BYTES..end)?).ok()?;
    Some((sequence, changes, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_bytes() {
        let frame_bytes = encode(7, &[(vec![16, b'a'], Some(vec![1])), (vec![18], None)]);
        let want = [
            0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 7, 2, 2, 16, b'a', 1, 1, 1, 1, 18, 0,
        ];
        assert_eq!(frame_bytes[4..], want);
        let (sequence, changes, len) = frame(&frame_bytes).unwrap();
        assert_eq!((sequence, changes.len(), len), (7, 2, frame_bytes.len()));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = frame(&bytes);
        }

        #[test]
        fn a_frame_that_is_not_whole_is_none(cut in 0usize..20, flip in 0usize..160) {
            let mut bytes = encode(3, &[(vec![16, 1], Some(vec![2]))]);
            let whole = bytes.len();
            prop_assert!(frame(&bytes[..whole - 1 - cut.min(whole - 1)]).is_none());
            bytes[flip / 8 % whole] ^= 1 << (flip % 8);
            prop_assert!(frame(&bytes).is_none());
        }
    }
}
