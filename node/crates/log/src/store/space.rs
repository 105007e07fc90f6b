//! Free space on the disk.

use std::io;
use std::path::Path;

/// Returns the bytes that this user may still write on the file system of `path`, and its size.
pub(crate) fn free_and_total(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path)?;
    Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
}

/// Bounds of the default reserve. The least is twice the journals, with room for a compaction. More than the
/// most is never needed at once; Redpanda keeps 5 GiB, too.
const RESERVE_BYTES: std::ops::RangeInclusive<u64> = 256 << 20..=5 << 30;

/// Returns the default reserve of a disk of `total` bytes: 5 % within bounds, and at most a quarter of a
/// small disk.
pub(crate) fn default_reserve(total: u64) -> u64 {
    (total / 20)
        .clamp(*RESERVE_BYTES.start(), *RESERVE_BYTES.end())
        .min(total / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_suits_the_disk() {
        assert_eq!(default_reserve(400 << 20), 100 << 20);
        assert_eq!(default_reserve(2 << 30), 256 << 20);
        assert_eq!(default_reserve(40 << 30), 2 << 30);
        assert_eq!(default_reserve(4 << 40), 5 << 30);
    }
}
