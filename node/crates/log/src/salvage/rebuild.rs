//! A repair, from the check of the old files to the new database in its place.

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

/// Folder of the sequence numbers of the new rows, removed with the last row.
const NEWEST: &str = "db.newest";

/// The result of a repair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Restored records, by partition.
    pub partitions: BTreeMap<PartitionId, CameBack>,
    /// Unreadable regions of files. Whole batches inside have been restored.
    pub unreadable: Vec<String>,
    /// Result of opening the new database, with the lost ranges.
    pub recovered: Recovered,
}

/// Rebuilds the database of the log in `dir` from everything that can be read, and keeps the old one under
/// `quarantine/`. Losses become `lost` gaps, so that no offset is assigned twice. Safe to repeat after an
/// interruption.
///
/// # Errors
/// Fails without changes when the directory is in use, or when a file cannot be read or written for a reason
/// other than damage.
pub fn rebuild(dir: &Path) -> Result<Rebuilt, OpenError> {
    let io = |source| io_at(dir, source);
    let lock = files::lock(dir)?;
    // Read each file to its end: files refused by the disk may be whole.
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
        // Close them before their files are removed or opened again.
        drop((salvage.keyspaces, salvage.newest));
        remove_dir(&dir.join(NEWEST)).map_err(io)?;
        made.recovered = open::mend_rebuilt(dir, &dir.join(MAKING), &options, findings)?;
        // The next start must know the losses, also after an interruption here.
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

/// A segment from quarantine.
struct Brought {
    /// Its path in quarantine.
    aside: PathBuf,
    /// Its path for the repair.
    to: PathBuf,
}

/// Links quarantined segments into the value log. The quarantined names stay until the repair is done: the
/// next start removes segments that nothing points to.
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
        let files = if is_dir {
            entries(&path).map_err(|e| io::Error::other(format!("{e:?}")))?
        } else {
            vec![path]
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
            // The number may be in use again; frames name their own keys.
            let free = (1u32..).map(|n| dir.join(VALUES).join(format!("{n:010}.val")));
            let own = dir.join(VALUES).join(name);
            let to = std::iter::once(own).chain(free).find(|to| !to.exists());
            if let Some(to) = to {
                // Copy, where the file system has no hard links.
                std::fs::hard_link(&file, &to).or_else(|_| std::fs::copy(&file, &to).map(drop))?;
                brought.push(Brought { aside: file, to });
            }
        }
    }
    sync(&dir.join(VALUES))?;
    Ok(brought)
}
