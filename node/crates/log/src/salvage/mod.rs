//! Making a database again from what can be read of one that is damaged.
//!
//! Everything that lies on the disk is read once, whatever the database's own metadata say of it: journals, tables and
//! blob files ([`table`], [`blob`], [`crate::journal`]), the files of the value log, and the second copy of the rows that
//! say what there is ([`crate::copy`]). Of what several places say of a key, the newest counts, by fjall's sequence
//! numbers; what no checksum vouches for counts only when nothing else says anything, and a batch has a checksum of its
//! own. The new database is made beside the old one and put in its place when it is whole; nothing is removed.

mod blob;
#[cfg(any(test, feature = "testing"))]
mod check;
mod gather;
mod places;
mod table;

#[cfg(any(test, feature = "testing"))]
pub use check::comes_back;

use crate::beside::{
    DAMAGED, ENDS_GONE, JOURNALS_GONE, MADE, MAKING, REPAIRED, put_in_place, remove_dir, sync,
};
use crate::found::{Item, Value};
use crate::refused::{operating_system, unusable};
use crate::store::Options;
use crate::value_log::{VALUES, ValueLog, segment_of};
use crate::watermark::WatermarkFile;
use crate::{OpenError, Recovered, journal, opening, recovery};
use fjall::KeyspaceCreateOptions;
use gather::{Newest, Salvage};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_types::PartitionId;

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
        let noted = std::fs::read_to_string(dir.join(DAMAGED)).unwrap_or_default();
        findings.are_gone |= noted.contains(JOURNALS_GONE) || noted.contains(ENDS_GONE);
    }
    let failed = |e: fjall::Error| {
        let source = operating_system(&e).unwrap_or_else(|| io::Error::other(e.to_string()));
        io_at(dir, source)
    };
    let options = Options::default();
    let (mut made, mut brought): (Rebuilt, Vec<Brought>) = Default::default();
    if !dir.join(MADE).exists() {
        let values = Arc::new(ValueLog::new(dir.join(VALUES)));
        values.make_dir().map_err(io)?;
        brought = bring_back(dir).map_err(io)?;
        let keyspaces = opening::open_keyspaces(&dir.join(MAKING), values, &options)
            .map_err(|_| io(io::Error::other("a new database cannot be made")))?;
        let newest = fjall::Database::builder(dir.join(NEWEST))
            .open()
            .and_then(|db| {
                let seen = db.keyspace("seen", KeyspaceCreateOptions::default)?;
                Ok(Newest { _db: db, seen })
            })
            .map_err(failed)?;
        let mut salvage = Salvage::new(keyspaces, Some(newest), &watermark, marked);
        salvage.files(dir).map_err(|e| e.at(dir))?;
        let names: Vec<PathBuf> = brought.iter().map(|file| file.to.clone()).collect();
        salvage.finish(dir, &names).map_err(|e| e.at(dir))?;
        (made.partitions, made.unreadable) = (salvage.partitions, salvage.unreadable);
        // Closed before their files go, or are opened again.
        drop((salvage.keyspaces, salvage.newest));
        remove_dir(&dir.join(NEWEST)).map_err(io)?;
        made.recovered = recovery::mend_rebuilt(dir, &dir.join(MAKING), &options, findings)?;
        // Whoever opens it next must know, also if this ends here.
        std::fs::write(dir.join(REPAIRED), made.recovered.damage.to_string()).map_err(io)?;
        File::open(dir.join(REPAIRED))
            .and_then(|f| f.sync_all())
            .map_err(io)?;
        std::fs::rename(dir.join(MAKING), dir.join(MADE)).map_err(io)?;
        sync(dir).map_err(io)?;
    }
    put_in_place(dir).map_err(io)?;
    match std::fs::remove_file(dir.join(DAMAGED)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io(e)),
        _ => {}
    }
    for file in brought {
        std::fs::remove_file(file.aside).map_err(io)?;
    }
    sync(dir).map_err(io)?;
    drop(lock);
    Ok(made)
}

/// A file of the value log that was set aside.
struct Brought {
    /// Its first name.
    aside: PathBuf,
    /// Its name for the repair.
    to: PathBuf,
}

/// Gives files of the value log that were set aside a second name where they are looked for. They keep their first until the repair is
/// done: what is not pointed to then goes at the next start.
fn bring_back(dir: &Path) -> io::Result<Vec<Brought>> {
    let quarantine = dir.join("quarantine");
    let mut brought = Vec::new();
    let aside = match std::fs::read_dir(&quarantine) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(brought),
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
                // Where there are no second names, a copy.
                std::fs::hard_link(&file, &to).or_else(|_| std::fs::copy(&file, &to).map(drop))?;
                brought.push(Brought { aside: file, to });
            }
        }
    }
    sync(&dir.join(VALUES))?;
    Ok(brought)
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
