//! Keeping the files that the database removes while it is opened.
//!
//! While opening, fjall 3.1 removes each keyspace, table and blob file that its metadata do not name
//! (`src/recovery.rs`; lsm-tree's `src/tree/mod.rs`). After a crash those files are leftovers. After damage
//! to the metadata they may be the only copy. So each file has a second name while the database is opened. If
//! the database turns out to be damaged, removed files go to `quarantine/removed`, where [`crate::rebuild`]
//! reads them.

use crate::recovery::markers::{REMOVED, remove_dir};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Folder of the second names, while the database is opened.
const SHELTER: &str = "db.opening";

pub(crate) struct Shelter {
    dir: PathBuf,
}

impl Shelter {
    /// Gives each table and blob file of the database in `dir` a second name, where the file system allows
    /// it.
    pub(crate) fn of(dir: &Path) -> Self {
        // Names of an interrupted start stay: its database may be damaged.
        if let Err(error) = link_all(dir) {
            // A full disk, or a file system without hard links, is no reason not to start.
            tracing::warn!(%error, "files of the database have no second name while it is opened");
        }
        Self { dir: dir.to_owned() }
    }

    /// Ends the shelter, after the opening has succeeded or failed. Keeps removed files if the database is
    /// damaged.
    pub(crate) fn settle(&self, is_damaged: bool) -> io::Result<()> {
        let home = self.dir.join(SHELTER);
        if is_damaged {
            for (from, under) in files(&home)? {
                // The first name is gone.
                if fs::metadata(&from)?.nlink() == 1 {
                    let kept = self.dir.join("quarantine").join(REMOVED).join(under);
                    let plain = kept.with_extension("");
                    let kept = if plain.exists() { kept } else { plain };
                    fs::create_dir_all(kept.parent().unwrap_or(&self.dir))?;
                    fs::rename(&from, kept)?;
                }
            }
        }
        remove_dir(&home)
    }
}

fn link_all(dir: &Path) -> io::Result<()> {
    for (from, under) in files(&dir.join("db/keyspaces"))? {
        // A file number may have been used again.
        let number = fs::metadata(&from)?.ino().to_string();
        let to = dir.join(SHELTER).join(under).with_extension(number);
        fs::create_dir_all(to.parent().unwrap_or(dir))?;
        match fs::hard_link(&from, &to) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Returns the files two levels below the folders in `home`, each with its relative path: `2/tables/7`.
fn files(home: &Path) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::new()];
    while let Some(under) = left.pop() {
        let entries = match fs::read_dir(home.join(&under)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let below = under.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                left.push(below);
            } else if below.components().count() == 3 {
                found.push((entry.path(), below));
            }
        }
    }
    Ok(found)
}
