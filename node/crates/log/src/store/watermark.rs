//! Facts that must survive damage to the database: a file of its own, synced apart from the database.
//!
//! Two slots, `watermark.a` and `watermark.b`, are written in turn, so that an interrupted write leaves the
//! other slot. A slot is `WWM1`, a sequence number u64, the body's length u32 and CRC32C u32 (all
//! big-endian), and the body in postcard.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use weir_types::{GroupId, Offset, PartitionId};

const MAGIC: &[u8; 4] = b"WWM1";
const HEADER_BYTES: usize = 20;
/// 10,000 partitions take about 200 KiB.
const FILE_BYTES_MAX: u64 = 16 << 20;
const SLOTS: [&str; 2] = ["watermark.a", "watermark.b"];

/// The last entry of a group that is known to be synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Synced {
    pub(crate) index: u64,
    /// CRC of the entry's header.
    pub(crate) crc: u32,
}

/// Promises about a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reserve {
    pub(crate) log_start: Offset,
    /// End of the synced records.
    pub(crate) end: Offset,
    /// No offset from here on was ever assigned.
    pub(crate) ceiling: Offset,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Watermark {
    /// Number of times that acknowledged records were lost on this node.
    pub(crate) epoch: u32,
    /// Written by an orderly shutdown: `synced` and `end` are exact.
    pub(crate) clean: bool,
    pub(crate) groups: BTreeMap<GroupId, Synced>,
    pub(crate) partitions: BTreeMap<PartitionId, Reserve>,
}

/// The two slots.
#[derive(Debug)]
pub(crate) struct WatermarkFile {
    dir: PathBuf,
    sequence: u64,
    pub(crate) value: Watermark,
}

impl WatermarkFile {
    /// Reads the newer whole slot. `found` is false when neither slot is whole.
    pub(crate) fn load(dir: &Path) -> io::Result<(Self, bool)> {
        let mut newest = None;
        for slot in SLOTS {
            if let Some((sequence, value)) = read_slot(&dir.join(slot))?
                && newest.as_ref().is_none_or(|(s, _)| sequence > *s)
            {
                newest = Some((sequence, value));
            }
        }
        let found = newest.is_some();
        let (sequence, value) = newest.unwrap_or_default();
        Ok((
            Self {
                dir: dir.to_owned(),
                sequence,
                value,
            },
            found,
        ))
    }

    /// Writes the other slot and syncs it.
    pub(crate) fn save(&mut self) -> io::Result<()> {
        self.sequence += 1;
        let body = postcard::to_allocvec(&self.value).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
        bytes.extend_from_slice(&body);
        let slot = if self.sequence.is_multiple_of(2) {
            SLOTS[0]
        } else {
            SLOTS[1]
        };
        let path = self.dir.join(slot);
        let created = !path.exists();
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        file.write_all(&bytes)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_data()?;
        if created {
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(())
    }

    /// Marks an orderly shutdown in both slots, so that damage to either costs nothing.
    pub(crate) fn save_clean(&mut self) -> io::Result<()> {
        self.value.clean = true;
        self.save()?;
        self.save()
    }
}

fn read_slot(path: &Path) -> io::Result<Option<(u64, Watermark)>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    Ok(decode(&bytes))
}

fn decode(bytes: &[u8]) -> Option<(u64, Watermark)> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let body = rest.get(..u32::from_be_bytes(*len) as usize)?;
    if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
        return None;
    }
    Some((u64::from_be_bytes(*sequence), postcard::from_bytes(body).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_slot_falls_back_to_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, found) = WatermarkFile::load(dir.path()).unwrap();
        assert!(!found);
        file.value.epoch = 1;
        file.save().unwrap();
        file.value.epoch = 2;
        file.save().unwrap();
        assert_eq!(WatermarkFile::load(dir.path()).unwrap().0.value.epoch, 2);
        for at in [0, 9, 30] {
            let path = dir.path().join(SLOTS[0]);
            let good = std::fs::read(&path).unwrap();
            let mut bad = good.clone();
            let at = at.min(bad.len() - 1);
            bad[at] ^= 0xff;
            std::fs::write(&path, bad).unwrap();
            let epoch = WatermarkFile::load(dir.path()).unwrap().0.value.epoch;
            // A damaged sequence number is not under the CRC, but can only make a whole slot look older or
            // newer.
            assert!((1..=2).contains(&epoch));
            std::fs::write(&path, good).unwrap();
        }
    }
}
