//! What lies beside the database while it is opened or made again, so that whoever comes after an interruption knows.

use std::fs::File;
use std::io;
use std::path::Path;

/// The new database while it is made, and when it is whole.
pub(crate) const MAKING: &str = "db.making";
pub(crate) const MADE: &str = "db.made";
/// What was lost with the database that this one was made for, until somebody has been told.
pub(crate) const REPAIRED: &str = "repaired";
/// Said when what was written last is gone, and nothing says how far it went. Opening the database makes a journal: a repair goes by this.
pub(crate) const JOURNALS_GONE: &str = "the journals are not there, and with them what was written last";
/// Said when the marks beside it are gone, too.
pub(crate) const ENDS_GONE: &str = "how far each partition went is not known: what was written last is gone, and its offsets may be given out \
     again; have consumers that committed such offsets begin at the end";
/// Why a log did not open, until a repair: in its directory.
pub(crate) const DAMAGED: &str = "damaged";
/// Where files are kept that the database has removed and should not have, under `quarantine/`.
pub(crate) const REMOVED: &str = "removed";

/// Notes why a log does not open: opening its database has changed that, and the next start might not see what this one saw. The first
/// reason stays.
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

/// Makes sure of what is in a directory.
pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Removes a directory that may be there.
pub(crate) fn remove_dir(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
