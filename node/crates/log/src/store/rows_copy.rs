//! A second copy of the rows of `state` that nothing else on the disk tells: topics, groups, committed
//! offsets, members, votes.
//!
//! Only [`crate::rebuild`] reads the copy. Its file, `rows.copy`, is synced apart from the database. The
//! writer adds a frame after each batch with such rows, and rewrites the file when it has grown to twice its
//! live bytes. A frame, big-endian: CRC32C u32 of the rest, length u32 of the rows, number u64, and the rows
//! in postcard: keys, each with its value, or none for a removal. The first frame of a file has all rows.
//!
//! Each batch followed by such a frame has the frame's number in a row, [`StateKind::Copied`]. The number
//! tells whether the copy is as new as the database.

use crate::format::keys::{StateKey, StateKind};
use crate::store::kv::{Keyspace, WriteBatch};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Name of the file, beside the database.
pub(crate) const FILE: &str = "rows.copy";
const HEADER_BYTES: usize = 16;
/// Limit on a frame: all rows of 10,000 topics and as many groups take some 10 MiB.
const FRAME_BYTES_MAX: usize = 256 << 20;
/// Bytes beyond twice the live bytes at which the file is rewritten.
const SLACK_BYTES: u64 = 1 << 20;
/// Longest delay of a sync of committed offsets. After a loss, consumers read the records again, as they must
/// tolerate anyway.
const SYNC_AFTER: Duration = Duration::from_secs(10);

/// Kinds of copied rows: few, small, and told by nothing else on the disk.
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

/// Contents of a file.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Number of the last frame, 0 when there is none.
    pub(crate) sequence: u64,
    /// The file was read to its end.
    pub(crate) is_whole: bool,
    bytes: u64,
}

impl Found {
    /// Restores missing rows of `state`. A copy as new as `state` wins, and rows missing from the copy are
    /// removed; an older copy only fills gaps.
    ///
    /// # Errors
    /// Fails when `state` cannot be read.
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

/// Returns the number of the last frame before the newest row of `state`.
fn copied(state: &Keyspace) -> fjall::Result<Option<u64>> {
    let row = state.get([StateKind::Copied as u8])?;
    Ok(row.and_then(|n| n.first_chunk().map(|n| u64::from_be_bytes(*n))))
}

/// The copy, as kept by the writer.
#[derive(Debug)]
pub(crate) struct RowsCopy {
    dir: PathBuf,
    file: Option<File>,
    /// Number of the last frame that was written.
    sequence: u64,
    bytes: u64,
    /// Bytes at the last rewrite.
    whole_bytes: u64,
    /// Changes of the next batch.
    pending: Vec<Change>,
    /// A pending change must be synced at once.
    is_urgent: bool,
    unsynced: Option<Instant>,
    /// Time of a failed write; retried from then on.
    failed: Option<Instant>,
}

impl RowsCopy {
    /// Makes a copy in `dir`, of unknown contents.
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

    /// Makes a copy that writes nothing, for replays that rewrite the copy afterwards.
    pub(crate) fn unused() -> Self {
        Self::new(Path::new(""))
    }

    /// Reads the whole frames of the copy in `dir`.
    ///
    /// # Errors
    /// Fails when the file exists and cannot be read.
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

    /// Makes the copy match `state`. A copy that cannot be written does not stop the opening.
    ///
    /// # Errors
    /// Fails when `state` cannot be read.
    pub(crate) fn catch_up(&mut self, state: &Keyspace) -> fjall::Result<Option<u64>> {
        let rows = all(state)?;
        let known = copied(state)?;
        let found = match Self::load(&self.dir) {
            Ok(found) => found,
            Err(error) => {
                // The copy may be whole: do not overwrite it.
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

    /// Notes a change of the next batch.
    pub(crate) fn note(&mut self, key: &[u8], value: Option<&[u8]>) {
        let kind = key.first().copied().and_then(StateKind::from_byte);
        if let Some(kind) = kind.filter(|kind| KINDS.contains(kind)) {
            self.is_urgent |= !matches!(kind, StateKind::GroupOffset | StateKind::Group);
            self.pending.push((key.to_vec(), value.map(<[u8]>::to_vec)));
        }
    }

    /// Returns the row that joins the next batch, if a row is to be copied.
    pub(crate) fn row(&self) -> Option<(StateKey, [u8; 8])> {
        let number = (self.sequence + 1).to_be_bytes();
        (!self.pending.is_empty()).then(|| (StateKey::new(StateKind::Copied, &[]), number))
    }

    /// Adds the noted changes, after their batch is written.
    ///
    /// # Errors
    /// Fails when the copy must be rewritten and `state` cannot be read.
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

    /// Syncs changes that have waited too long, or all with `now`.
    ///
    /// # Errors
    /// Never fails: a copy that cannot be synced is rewritten later.
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

    /// Notes that the next batch changes all of `state`.
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

/// Reads all rows of `state` that are copied.
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

/// Parses the frame at the start of `bytes`: number, changes, length.
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
