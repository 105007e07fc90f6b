//! Moving a log out of the way, so that a new log begins in its directory.

use crate::error::OpenError;
use crate::recovery::files;
use crate::recovery::markers::{DAMAGED, REPAIRED};
use std::path::Path;

/// Moves all files of the log in `dir` to `dir/to`, so that the next log begins empty. Files moved by an
/// earlier call stay, and newer ones are removed. Safe to repeat after an interruption.
///
/// # Errors
/// Fails when the directory cannot be changed or is in use.
pub fn set_aside(dir: &Path, to: &str) -> Result<(), OpenError> {
    let io = |source| OpenError::Io {
        path: dir.to_owned(),
        source,
    };
    let _lock = files::lock(dir)?;
    let aside = dir.join(to);
    std::fs::create_dir_all(&aside).map_err(io)?;
    // The database last: its presence means that other files may still have to move.
    for name in [
        "watermark.a",
        "watermark.b",
        crate::store::rows_copy::FILE,
        DAMAGED,
        REPAIRED,
        "quarantine",
        crate::store::value_log::VALUES,
        "db",
    ] {
        let (from, there) = (dir.join(name), aside.join(name));
        let moved = match (from.is_dir(), there.exists()) {
            (_, false) => std::fs::rename(&from, there),
            (true, true) => std::fs::remove_dir_all(&from),
            (false, true) => std::fs::remove_file(&from),
        };
        match moved {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(e)),
            _ => {}
        }
    }
    let synced = std::fs::File::open(aside).and_then(|d| d.sync_all());
    synced.map_err(io)?;
    std::fs::File::open(dir).and_then(|d| d.sync_all()).map_err(io)
}
