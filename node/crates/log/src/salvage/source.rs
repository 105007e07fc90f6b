//! The files of a damaged database, as a repair reads them.

use crate::error::OpenError;
use crate::recovery::carve::{Item, Value};
use crate::salvage::{blob, table};
use crate::store::os_error::operating_system;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Limit on the size of a file: tables, blob files and segments have some 64 MiB, and are read whole.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 30;

/// Bytes of batches from damaged regions held in memory. A disk that is damaged all over needs other tools.
pub(super) const STRAYS_BYTES_MAX: usize = 256 << 20;

/// fjall's numbers of the keyspaces, in order of creation. fjall's own keyspace is 0.
pub(super) const RLOG: u64 = 1;

pub(super) const DATA: u64 = 2;

pub(super) const STATE: u64 = 3;

/// Records restored in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CameBack {
    /// Restored batches.
    pub batches: u64,
    /// Restored records, counted by their frames.
    pub records: u64,
    /// Restored bytes.
    pub bytes: u64,
    /// Largest restored timestamp, in milliseconds.
    pub max_timestamp: i64,
}

/// A repair that cannot continue.
#[derive(Debug)]
pub(crate) enum Failure {
    File(PathBuf, io::Error),
    Store(fjall::Error),
}

impl Failure {
    pub(super) fn at(self, dir: &Path) -> OpenError {
        match self {
            Self::File(path, source) => OpenError::Io { path, source },
            Self::Store(e) => io_at(
                dir,
                operating_system(&e).unwrap_or_else(|| io::Error::other(e.to_string())),
            ),
        }
    }
}

impl From<fjall::Error> for Failure {
    fn from(e: fjall::Error) -> Self {
        Self::Store(e)
    }
}

pub(super) fn io_at(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Returns the files of a directory in order of their numbers; empty without a directory.
pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |e| Failure::File(dir.to_owned(), e);
    let mut found = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found
            .map_err(failed)?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(failed)?,
    };
    found.retain(|path| path.is_file());
    found.sort();
    Ok(found)
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |e| Failure::File(path.to_owned(), e);
    let len = std::fs::metadata(path).map_err(failed)?.len();
    if len > FILE_BYTES_MAX {
        return Err(failed(io::Error::other(format!(
            "its {len} bytes are more than any such file has"
        ))));
    }
    std::fs::read(path).map_err(failed)
}

/// Reads the value in a blob file that a row points to.
pub(super) fn blob_at(path: &Path, offset: u64, key_bytes: usize, len: u64) -> Option<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let file = File::open(path).ok()?;
    let at = offset.checked_add((blob::HEADER_BYTES + key_bytes) as u64)?;
    if at.checked_add(len)? > file.metadata().ok()?.len() {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    file.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}

/// Returns the keyspace of each number, from the database's own keyspace where readable, else in order of
/// creation. A row of `n` and a number u64 there has the name (fjall's `src/meta_keyspace.rs`).
pub(super) fn named_keyspaces(db: &Path) -> Result<BTreeMap<u64, u64>, Failure> {
    let mut named = BTreeMap::new();
    for path in entries(&db.join("keyspaces").join("0").join("tables"))? {
        let bytes = read(&path)?;
        let mut note = |item: Item<'_>| {
            let number = item.key.strip_prefix(b"n").and_then(|rest| rest.first_chunk());
            let keyspace = match item.value {
                Value::Here(b"rlog") => Some(RLOG),
                Value::Here(b"data") => Some(DATA),
                Value::Here(b"state") => Some(STATE),
                _ => None,
            };
            named.extend(number.map(|n| u64::from_be_bytes(*n)).zip(keyspace));
        };
        table::read(&bytes, &mut note, &mut |_| {});
    }
    // After damage to its own keyspace fjall has made others, and files of the first may remain.
    for keyspace in [RLOG, DATA, STATE] {
        named.entry(keyspace).or_insert(keyspace);
    }
    Ok(named)
}
