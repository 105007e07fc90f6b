//! Making a database again from what can be read of one that is damaged.
//!
//! Everything that lies on the disk is read once, whatever the database's own metadata say of it: journals, tables and
//! blob files ([`table`], [`blob`], [`crate::journal`]), the files of the value log, and the second copy of the rows that
//! say what there is ([`crate::copy`]). Of what several places say of a key, the newest counts, by fjall's sequence
//! numbers; what no checksum vouches for counts only when nothing else says anything, and a batch has a checksum of its
//! own. The new database is made beside the old one and put in its place when it is whole; nothing is removed.

mod blob;
mod gather;
mod shelter;
mod stray;
mod table;

use crate::keys::{rlog_index, split_data_key};
#[cfg(any(test, feature = "testing"))]
use crate::log::Keyspaces;
use crate::log::Options;
use crate::refused::{operating_system, unusable};
use crate::value_log::{VALUES, ValueLog, segment_of};
use crate::watermark::WatermarkFile;
use crate::{EntryHeader, OpenError, Recovered, journal, opening};
use bytes::Bytes;
use fjall::KeyspaceCreateOptions;
use gather::{Newest, Salvage};
pub(crate) use shelter::Shelter;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
pub(crate) use stray::{Stray, find};
use weir_types::{Batch, GroupId, PartitionId};

/// The new database while it is made, and when it is whole.
const MAKING: &str = "db.making";
pub(crate) const MADE: &str = "db.made";
/// What was lost with the database that this one was made for, until somebody has been told.
pub(crate) const REPAIRED: &str = "repaired";
/// How new each row of it is: removed with the last row.
const NEWEST: &str = "db.newest";
/// A file larger than this is none of ours: tables, blob files and files of the value log have some 64 MiB, and are read
/// whole.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Bytes of batches from damaged stretches that are held in memory: a disk that is damaged all over is another matter.
const STRAYS_BYTES_MAX: usize = 256 << 20;
/// fjall's numbers of the keyspaces, in the order in which they are made. Its own is 0.
const RLOG: u64 = 1;
const DATA: u64 = 2;
const STATE: u64 = 3;

/// A row, as some file has it.
pub(crate) struct Item<'a> {
    pub(crate) key: Vec<u8>,
    pub(crate) seqno: u64,
    pub(crate) value: Value<'a>,
}

/// What a row says.
pub(crate) enum Value<'a> {
    Here(&'a [u8]),
    Removed,
    /// It is in a blob file.
    Blob {
        file: u64,
        offset: u64,
        len: u64,
    },
}

/// A stretch of a file that is in no whole block or frame.
pub(crate) struct Region<'a> {
    pub(crate) bytes: &'a [u8],
    /// Where it begins in the file.
    pub(crate) from: usize,
}

impl<'a> Region<'a> {
    fn of(bytes: &'a [u8], from: usize, to: usize) -> Self {
        Self {
            bytes: bytes.get(from..to).unwrap_or_default(),
            from,
        }
    }
}

/// What came back of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CameBack {
    /// Batches.
    pub batches: u64,
    /// Records in them, counted by their frames.
    pub records: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Their largest timestamp, in milliseconds.
    pub max_timestamp: i64,
}

/// What a database was made again from, and what of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// By partition.
    pub partitions: BTreeMap<PartitionId, CameBack>,
    /// Stretches of files that could not be read as what they should be. What is in them by itself has come back.
    pub unreadable: Vec<String>,
    /// What opening it found: the ranges that are lost.
    pub recovered: Recovered,
}

/// Makes the database of the log in `dir` again from all that can be read, and sets the old one aside under `quarantine/`. What is lost
/// becomes `lost` gaps, so that no offset is given out twice. Safe to repeat when it was interrupted.
///
/// # Errors
/// When the directory is in use; or something in it cannot be read or written for a reason that is not damage: nothing is
/// changed then.
pub fn rebuild(dir: &Path) -> Result<Rebuilt, OpenError> {
    let io = |source| io_at(dir, source);
    let lock = opening::lock(dir)?;
    // Each file is read to its end: what the disk refuses may be whole.
    let disk = io::Error::from(rustix::io::Errno::IO);
    if let Some((path, source)) = unusable(dir, Some(&disk)) {
        return Err(OpenError::Io { path, source });
    }
    let (watermark, marked) = WatermarkFile::load(dir).map_err(io)?;
    for name in [MAKING, NEWEST] {
        remove_dir(&dir.join(name)).map_err(io)?;
    }
    let db = dir.join("db");
    let mut findings = journal::Findings {
        are_gone: true,
        ..journal::Findings::default()
    };
    if db.exists() {
        remove_dir(&dir.join(MADE)).map_err(io)?;
        findings = journal::check(&db, &dir.join("quarantine"), watermark.value.clean).map_err(io)?;
        let noted = std::fs::read_to_string(dir.join(opening::DAMAGED)).unwrap_or_default();
        findings.are_gone |= noted.contains(opening::JOURNALS_GONE);
    }
    let failed = |e: fjall::Error| {
        let source = operating_system(&e).unwrap_or_else(|| io::Error::other(e.to_string()));
        io_at(dir, source)
    };
    let options = Options::default();
    let mut made = Rebuilt::default();
    if !dir.join(MADE).exists() {
        let values = Arc::new(ValueLog::new(dir.join(VALUES)));
        values.make_dir().map_err(io)?;
        bring_back(dir).map_err(io)?;
        let keyspaces = opening::open_keyspaces(&dir.join(MAKING), values, &options)
            .map_err(|_| io(io::Error::other("a new database cannot be made")))?;
        let newest = fjall::Database::builder(dir.join(NEWEST))
            .open()
            .and_then(|db| {
                let seen = db.keyspace("seen", KeyspaceCreateOptions::default)?;
                Ok(Newest { _db: db, seen })
            })
            .map_err(failed)?;
        let mut salvage = Salvage {
            keyspaces,
            newest: Some(newest),
            watermark: &watermark,
            marked,
            strays: Vec::new(),
            stray_bytes: 0,
            unreadable: Vec::new(),
            partitions: BTreeMap::new(),
        };
        salvage.files(dir).map_err(|e| e.at(dir))?;
        salvage.finish(dir).map_err(|e| e.at(dir))?;
        (made.partitions, made.unreadable) = (salvage.partitions, salvage.unreadable);
        drop(salvage.keyspaces);
        remove_dir(&dir.join(NEWEST)).map_err(io)?;
        made.recovered = opening::mend_rebuilt(dir, &dir.join(MAKING), &options, findings)?;
        // Whoever opens it next must know, also if this ends here.
        std::fs::write(dir.join(REPAIRED), made.recovered.damage.to_string()).map_err(io)?;
        File::open(dir.join(REPAIRED))
            .and_then(|f| f.sync_all())
            .map_err(io)?;
        std::fs::rename(dir.join(MAKING), dir.join(MADE)).map_err(io)?;
        sync(dir).map_err(io)?;
    }
    put_in_place(dir).map_err(io)?;
    match std::fs::remove_file(dir.join(opening::DAMAGED)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io(e)),
        _ => {}
    }
    sync(dir).map_err(io)?;
    drop(lock);
    Ok(made)
}

/// Fills `keyspaces`, which are empty, with what lies beside the database in `dir`.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn from_values(dir: &Path, keyspaces: Keyspaces) -> Result<(), OpenError> {
    let (watermark, marked) = WatermarkFile::load(dir).map_err(|e| io_at(dir, e))?;
    let mut salvage = Salvage {
        keyspaces,
        newest: None,
        watermark: &watermark,
        marked,
        strays: Vec::new(),
        stray_bytes: 0,
        unreadable: Vec::new(),
        partitions: BTreeMap::new(),
    };
    salvage.finish(dir).map_err(|e| e.at(dir))
}

/// What a repair has lost is noted elsewhere: opening the log in `dir` tells of it no more.
///
/// # Errors
/// When the note cannot be removed.
pub fn repair_is_noted(dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(dir.join(REPAIRED)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => sync(dir),
    }
}

/// Puts the database that was made in the place of the damaged one.
pub(crate) fn put_in_place(dir: &Path) -> io::Result<()> {
    let (db, quarantine) = (dir.join("db"), dir.join("quarantine"));
    std::fs::create_dir_all(&quarantine)?;
    // What was removed from it goes with it, and is not read again.
    for (from, name) in [(quarantine.join(shelter::REMOVED), "removed"), (db.clone(), "db")] {
        let aside = (0u32..)
            .map(|n| quarantine.join(format!("{name}.{n}")))
            .find(|aside| !aside.exists());
        match aside.map(|aside| std::fs::rename(&from, aside)) {
            Some(Err(e)) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    sync(&quarantine)?;
    std::fs::rename(dir.join(MADE), &db)?;
    sync(dir)
}

/// Puts files of the value log that were set aside where they are looked for, unless something else is there.
fn bring_back(dir: &Path) -> io::Result<()> {
    let quarantine = dir.join("quarantine");
    let aside = match std::fs::read_dir(&quarantine) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        aside => aside?,
    };
    for entry in aside {
        let path = entry?.path();
        let is_dir = path.is_dir();
        let files = match is_dir {
            true => entries(&path).map_err(|e| io::Error::other(format!("{e:?}")))?,
            false => vec![path],
        };
        for file in files {
            let plain = if is_dir {
                file.clone()
            } else {
                file.with_extension("")
            };
            let Some(name) = plain.file_name().filter(|_| segment_of(&plain).is_some()) else {
                continue;
            };
            // A number may be in use again; frames say by themselves what they are.
            let free = (1u32..).map(|n| dir.join(VALUES).join(format!("{n:010}.val")));
            let own = dir.join(VALUES).join(name);
            let to = std::iter::once(own).chain(free).find(|to| !to.exists());
            if let Some(to) = to {
                std::fs::rename(&file, to)?;
            }
        }
    }
    sync(&dir.join(VALUES))
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn remove_dir(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn io_at(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Why it does not go on.
#[derive(Debug)]
pub(crate) enum Failure {
    File(PathBuf, io::Error),
    Store(fjall::Error),
}

impl Failure {
    fn at(self, dir: &Path) -> OpenError {
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

/// Which keyspace each number stands for: as the database's own keyspace says, as far as that can be read; else as they are made.
/// There a row of `n` and a number u64 has the name (fjall's `src/meta_keyspace.rs`).
fn named_keyspaces(db: &Path) -> Result<BTreeMap<u64, u64>, Failure> {
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
    // When its own keyspace was damaged, it has made others since, and files of the first may be there.
    for keyspace in [RLOG, DATA, STATE] {
        named.entry(keyspace).or_insert(keyspace);
    }
    Ok(named)
}

/// The files of a directory in order of their numbers; none where there is no directory.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
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

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |e| Failure::File(path.to_owned(), e);
    let len = std::fs::metadata(path).map_err(failed)?.len();
    if len > FILE_BYTES_MAX {
        return Err(failed(io::Error::other(format!(
            "its {len} bytes are more than any such file has"
        ))));
    }
    std::fs::read(path).map_err(failed)
}

/// What lies in a blob file where a row says so.
fn blob_at(path: &Path, offset: u64, key_bytes: usize, len: u64) -> Option<Vec<u8>> {
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

/// Whether `value` is a whole batch with the first offset that `key` names.
pub(crate) fn is_batch_of(key: &[u8], value: &[u8]) -> bool {
    let base = split_data_key(key)
        .filter(|_| key.len() == 12)
        .map(|(_, base)| base);
    let batch = base.and_then(|_| Batch::parse(Bytes::copy_from_slice(value)).ok());
    batch.is_some_and(|batch| Some(batch.base_offset()) == base)
}

/// Whether `value` is the whole header of the entry that `key` names.
pub(crate) fn is_header(key: &[u8], value: &[u8]) -> bool {
    let group = key.first_chunk().map(|g| GroupId(u16::from_be_bytes(*g)));
    let named = group.zip(rlog_index(key)).filter(|_| key.len() == 10);
    named.is_some_and(|(group, index)| EntryHeader::decode(group, index, value).is_ok())
}
