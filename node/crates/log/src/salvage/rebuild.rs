//! A repair from the look at the old files to the new database in its place.

use crate::error::OpenError;
use crate::options::Options;
use crate::recovery::markers::{
    DAMAGED, ENDS_GONE, JOURNALS_GONE, MADE, MAKING, REPAIRED, put_in_place, remove_dir, sync,
};
use crate::recovery::report::Recovered;
use crate::recovery::{files, journal, open};
use crate::salvage::gather::{Newest, Salvage};
use crate::salvage::source::{CameBack, entries, io_at};
use crate::store::os_error::{operating_system, unusable};
use crate::store::value_log::{VALUES, ValueLog, segment_of};
use crate::store::watermark::WatermarkFile;
use fjall::KeyspaceCreateOptions;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_types::PartitionId;

/// How new each row of it is: removed with the last row.
const NEWEST: &str = "db.newest";

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
    let lock = files::lock(dir)?;
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
        let keyspaces = files::open_keyspaces(&dir.join(MAKING), values, &options)
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
        made.recovered = open::mend_rebuilt(dir, &dir.join(MAKING), &options, findings)?;
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
