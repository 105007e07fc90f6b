//! How much room the disk has.

use std::{io, path::Path};

/// Bytes that this user may still write on the file system of `path`, and its size.
pub(crate) fn free_and_total(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path)?;
    Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
}
