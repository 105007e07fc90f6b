//! Keeping what the database removes while it is opened.
//!
//! fjall 3.1 removes, when it opens, each keyspace, table and blob file that its metadata do not name (`src/recovery.rs`;
//! lsm-tree's `src/tree/mod.rs`). After a crash those are leftovers. When the metadata are damaged they may be all there
//! is. So each file has a second name while the database is opened; what lost its first one goes to
//! `quarantine/removed` if the database turns out to be damaged, where [`crate::rebuild`] reads it.

use crate::recovery::markers::{REMOVED, remove_dir};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The second names, while the database is opened.
const SHELTER: &str = "db.opening";

pub(crate) struct Shelter {
    dir: PathBuf,
}

impl Shelter {
    /// Gives each table and blob file of the database in `dir` a second name, where that can be.
    pub(crate) fn of(dir: &Path) -> Self {
        // Those of a start that was interrupted stay: whether that database was damaged was not known.
        if let Err(error) = link_all(dir) {
            // A full disk, or a file system that has no such names: no reason not to start.
            tracing::warn!(%error, "files of the database have no second name while it is opened");
        }
        Self { dir: dir.to_owned() }
    }

    /// The database is open, or does not open. What it removed is kept if it is damaged.
    pub(crate) fn settle(&self, is_damaged: bool) -> io::Result<()> {
        let home = self.dir.join(SHELTER);
        if is_damaged {
            for (from, under) in files(&home)? {
                // Its first name is gone.
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
        // A number may have come again.
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

/// The files two levels below the folders in `home`, each with its path below it: `2/tables/7`.
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
