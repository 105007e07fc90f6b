//! Files beside the database that record an opening or a repair, for the start after an interruption.

use std::fs::File;
use std::io;
use std::path::Path;

/// Names of the new database while a repair makes it, and once it is whole.
pub(crate) const MAKING: &str = "db.making";
pub(crate) const MADE: &str = "db.made";
/// Losses of the last repair, until somebody has noted them.
pub(crate) const REPAIRED: &str = "repaired";
/// Note on lost journals when their length is unknown. Opening the database makes a new journal, so that a
/// repair relies on this note.
pub(crate) const JOURNALS_GONE: &str = "the journals are not there, and with them what was written last";
/// Note on lost journals and lost watermarks.
pub(crate) const ENDS_GONE: &str = "how far each partition went is not known: what was written last is gone, and its offsets may be given out \
     again; have consumers that committed such offsets begin at the end";
/// File in the log's directory with the reason why the log did not open, until a repair.
pub(crate) const DAMAGED: &str = "damaged";
/// Folder under `quarantine/` for files that the database should not have removed.
pub(crate) const REMOVED: &str = "removed";

/// Records why a log does not open. Opening has changed the database, and the next start might not see the
/// damage. The first reason stays.
pub(crate) fn note_damage(dir: &Path, why: &str, notes: &[String]) {
    let at = dir.join(DAMAGED);
    if at.exists() {
        return;
    }
    let all = format!("{why}\n{}", notes.join("\n"));
    let noted = std::fs::write(&at, all.trim_end()).and_then(|()| File::open(&at)?.sync_all());
    if let Err(error) = noted {
        tracing::error!(%error, "that the log is damaged cannot be noted");
    }
}

/// Drops the record of the last repair's losses, after the caller has noted them elsewhere.
///
/// # Errors
/// Fails when the record cannot be removed.
pub fn repair_is_noted(dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(dir.join(REPAIRED)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => sync(dir),
    }
}

/// Puts the new database in the place of the damaged database.
pub(crate) fn put_in_place(dir: &Path) -> io::Result<()> {
    let (db, quarantine) = (dir.join("db"), dir.join("quarantine"));
    std::fs::create_dir_all(&quarantine)?;
    // Files removed from the old database go with it, so that no repair reads them again.
    for (from, name) in [(quarantine.join(REMOVED), "removed"), (db.clone(), "db")] {
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

/// Syncs a directory.
pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Removes a directory, if present.
pub(crate) fn remove_dir(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
