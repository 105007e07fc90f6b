//! Reserved disk space for the day another program fills the disk: a file without content of value. A node
//! that starts on a full disk removes the file to make room. Opening a log writes a little, and a node that
//! does not start serves no reads either.

use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

const FILE: &str = "ballast";
/// Bytes that opening a log writes: a fresh journal and tables, and the contents of memory at a power
/// failure.
const BYTES: u64 = 64 << 20;
/// Divisor of the disk size: on a small disk the file takes no more than this part.
const PART_OF_DISK: u64 = 32;
/// Free bytes below which a running node counts as out of space: a sync writes a megabyte.
const LAST_BYTES: u64 = 2 << 20;
/// The file is created if free space is at least this multiple of its size.
const ROOM: u64 = 4;

/// The file in a node's directory.
pub(crate) struct Ballast {
    path: PathBuf,
}

impl Ballast {
    pub(crate) fn of(data: &Path) -> Self {
        Self {
            path: data.join(FILE),
        }
    }

    /// Returns the size of the file on this disk, and the free bytes of the disk.
    fn wanted_and_free(&self) -> Result<(u64, u64)> {
        let dir = self.path.parent().unwrap_or(&self.path);
        let disk = statvfs(dir).with_context(|| format!("cannot examine the disk of `{}`", dir.display()))?;
        let total = disk.f_blocks * disk.f_frsize;
        Ok((BYTES.min(total / PART_OF_DISK), disk.f_bavail * disk.f_frsize))
    }

    /// Removes the file if there is no room to start otherwise. Returns true if the disk is full.
    ///
    /// # Errors
    /// If the disk cannot be examined, or the file cannot be removed.
    pub(crate) fn let_go_if_full(&self) -> Result<bool> {
        let (wanted, free) = self.wanted_and_free()?;
        if free >= wanted {
            return Ok(false);
        }
        match fs::remove_file(&self.path) {
            Ok(()) => tracing::warn!(
                free,
                "the disk is full: the node starts with its reserve. It serves reads, but accepts no records until there is room: \
                 remove other files from the disk, lower `retention` of a topic, or delete a topic"
            ),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("cannot remove `{}`", self.path.display())),
        }
        Ok(true)
    }

    /// Removes the file of a running node once another program has filled the disk completely: data in memory
    /// must be written, or the node ends.
    pub(crate) fn let_go_if_nothing_is_left(&self) {
        if !self.wanted_and_free().is_ok_and(|(_, free)| free < LAST_BYTES) {
            return;
        }
        if fs::remove_file(&self.path).is_ok() {
            tracing::warn!(
                "the disk is full: the node continues with its reserve. Remove other files from the disk"
            );
        }
    }

    /// Creates the file if it is missing and there is room. A node also works without the file.
    pub(crate) fn take_if_room(&self) {
        if self.path.exists() {
            return;
        }
        let made = self.wanted_and_free().and_then(|(wanted, free)| {
            if free < wanted * ROOM {
                return Ok(());
            }
            let fresh = self.path.with_extension("new");
            match fs::remove_file(&fresh) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
            let mut file = File::create_new(&fresh)?;
            if fallocate(&file, FallocateFlags::empty(), 0, wanted).is_err() {
                // Not every file system can reserve space: zeros take the same room.
                let zeros = vec![0; 1 << 20];
                for _ in 0..wanted >> 20 {
                    file.write_all(&zeros)?;
                }
            }
            file.sync_all()?;
            Ok(fs::rename(&fresh, &self.path)?)
        });
        if let Err(error) = made {
            tracing::warn!(path = %self.path.display(), %error, "cannot reserve room for a full disk");
        }
    }
}
