//! Payloads of large rounds, written once.
//!
//! fjall writes every value twice: into its journal, and into a blob file when the memtable is flushed. A
//! round of many bytes therefore puts its batches into a file of the *value log* first, syncs that, and
//! leaves pointers in `data` (WiscKey, Lu et al., FAST '16, section 3.3: the value log is written before the
//! key that names it). A small round stays in fjall whole, since a second sync would cost more than the
//! second write.
//!
//! `values/NNNNNNNNNN.val` is a sequence of frames. A frame is a header of [`FRAME_BYTES`], all big-endian
//! (partition u32, base offset u64, length u32, CRC32C u32 of those), and the batch, which has a CRC of its
//! own. A file without a row of [`crate::format::keys::StateKind::Segment`] holds nothing that counts, and
//! goes when the log is opened.

pub(crate) mod frame;
pub(crate) mod writer;

use crate::format::keys::{StateKey, split_data_key};
use crate::store::value_log::frame::{FRAME_BYTES, FrameHeader, Pointer};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use weir_types::limits::VALUE_FILES_OPEN_MAX;
use weir_types::sync::Mutex;

/// Directory of the value log, beside the database's.
pub(crate) const VALUES: &str = "values";

/// A file that the operating system does not open. Carried within an [`io::Error`], as its cause.
#[derive(Debug, thiserror::Error)]
#[error("`{}`: {source}", path.display())]
pub(crate) struct Unopened {
    path: PathBuf,
    pub(crate) source: io::Error,
}

/// The segments, and those open for reading.
#[derive(Debug)]
pub(crate) struct ValueLog {
    dir: PathBuf,
    /// Open files, last used first.
    open: Mutex<VecDeque<(u32, Arc<File>)>>,
    /// Bytes of all files.
    bytes: AtomicU64,
}

impl ValueLog {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            open: Mutex::default(),
            bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the bytes of all segments.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Reads the batch under `key` at `pointer`. The caller checks the batch's CRC.
    ///
    /// # Errors
    /// Fails with `NotFound` when the segment is gone, and with `InvalidData` when another batch is there.
    pub(crate) fn read(&self, key: &[u8], pointer: Pointer) -> io::Result<Bytes> {
        let file = self.file(pointer.segment)?;
        let elsewhere = || io::Error::from(io::ErrorKind::InvalidData);
        let begin = pointer.at.checked_sub(FRAME_BYTES as u64).ok_or_else(elsewhere)?;
        let mut bytes = vec![0; FRAME_BYTES + pointer.len as usize];
        file.read_exact_at(&mut bytes, begin)?;
        let header = bytes.first_chunk().and_then(FrameHeader::decode);
        let named = split_data_key(key).map(|(partition, base)| FrameHeader {
            partition,
            base,
            len: pointer.len,
        });
        // A damaged header proves nothing; a whole header of another batch proves that the row is stale.
        if header.is_some() && header != named {
            return Err(elsewhere());
        }
        Ok(Bytes::from(bytes).slice(FRAME_BYTES..))
    }

    fn file(&self, segment: u32) -> io::Result<Arc<File>> {
        let mut open = self.open.lock();
        let found = match open.iter().position(|(s, _)| *s == segment) {
            Some(at) => open.remove(at),
            None => None,
        };
        let (_, file) = match found {
            Some(found) => found,
            None => {
                let path = self.path(segment);
                let file = File::open(&path)
                    .map_err(|source| io::Error::new(source.kind(), Unopened { path, source }))?;
                (segment, Arc::new(file))
            }
        };
        open.push_front((segment, Arc::clone(&file)));
        open.truncate(VALUE_FILES_OPEN_MAX);
        Ok(file)
    }

    /// Makes the directory, and syncs its parent.
    ///
    /// # Errors
    /// Fails when the directory cannot be made.
    pub(crate) fn make_dir(&self) -> io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        // Otherwise a power cut could remove the directory, with synced files inside.
        match self.dir.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }

    fn path(&self, segment: u32) -> PathBuf {
        self.dir.join(format!("{segment:010}.val"))
    }

    /// Returns all segments, with their sizes.
    fn files(&self) -> io::Result<Vec<(u32, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if let Some(segment) = segment_of(&entry.path()).filter(|s| self.path(*s) == entry.path()) {
                files.push((segment, entry.metadata()?.len()));
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    fn remove(&self, segment: u32) -> io::Result<()> {
        self.give_up(segment, |path| std::fs::remove_file(path))
    }

    fn set_aside(&self, segment: u32, quarantine: &Path) -> io::Result<()> {
        std::fs::create_dir_all(quarantine)?;
        self.give_up(segment, |path| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            // A number may be used again after its file is gone: never overwrite a kept file.
            let aside = (0u32..)
                .map(|n| quarantine.join(format!("{name}.{n}")))
                .find(|aside| !aside.exists());
            aside.map_or(Ok(()), |aside| std::fs::rename(path, aside))
        })
    }

    fn give_up(&self, segment: u32, how: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        let path = self.path(segment);
        let len = std::fs::metadata(&path)?.len();
        how(&path)?;
        self.bytes
            .fetch_sub(len.min(self.disk_bytes()), Ordering::Relaxed);
        let mut open = self.open.lock();
        open.retain(|(s, _)| *s != segment);
        Ok(())
    }
}

pub(crate) fn segment_of(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?.strip_suffix(".val")?;
    name.parse().ok()
}

/// Decodes a row of [`crate::format::keys::StateKind::Segment`]: segment and live bytes.
pub(crate) fn segment_row(key: &[u8], value: &[u8]) -> Option<(u32, u64)> {
    let segment = u32::from_be_bytes(*key.get(1..)?.first_chunk()?);
    Some((segment, u64::from_be_bytes(*value.first_chunk()?)))
}

fn segment_key(segment: u32) -> StateKey {
    StateKey::new(crate::format::keys::StateKind::Segment, &segment.to_be_bytes())
}
