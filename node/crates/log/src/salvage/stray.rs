//! Batches in bytes that nothing vouches for: each has a checksum of its own.

use super::Region;
use bytes::Bytes;
use weir_types::batch::HEADER_BYTES;
use weir_types::{Batch, PartitionId};

/// Where the magic number of a batch is, and its value.
const MAGIC_AT: usize = 16;
const MAGIC: u8 = 2;

/// A batch, and the partition that the bytes before it name, which may be wrong.
#[derive(Clone, Debug)]
pub(crate) struct Stray {
    pub(crate) partition: Option<PartitionId>,
    pub(crate) batch: Batch,
    /// Where it begins in its file.
    pub(crate) at: usize,
}

/// All whole batches in `region`. The key of a batch, partition and base offset, begins `key_before` bytes before it, if
/// it has one there.
pub(crate) fn find(region: &Region<'_>, key_before: Option<usize>, each: &mut dyn FnMut(Stray)) {
    let bytes = region.bytes;
    let mut at = 0;
    while at + HEADER_BYTES <= bytes.len() {
        let Some(batch) = batch_at(bytes, at) else {
            at += 1;
            continue;
        };
        let key = key_before
            .and_then(|before| at.checked_sub(before))
            .and_then(|from| bytes.get(from..)?.first_chunk::<4>())
            .map(|partition| PartitionId(u32::from_be_bytes(*partition)));
        let len = batch.bytes().len();
        each(Stray {
            partition: key,
            batch,
            at: region.from + at,
        });
        at += len;
    }
}

/// The batch that begins at `at`, if a whole one does.
fn batch_at(bytes: &[u8], at: usize) -> Option<Batch> {
    if bytes.get(at + MAGIC_AT) != Some(&MAGIC) {
        return None;
    }
    let len = u32::from_be_bytes(*bytes.get(at + 8..)?.first_chunk()?) as usize;
    let whole = bytes.get(at..at.checked_add(len)?.checked_add(12)?)?;
    // The rest of the header is plausible before anything is copied.
    if len + 12 < HEADER_BYTES {
        return None;
    }
    let stored = u32::from_be_bytes(*whole.get(17..)?.first_chunk()?);
    if crc32c::crc32c(whole.get(21..)?) != stored {
        return None;
    }
    Batch::parse(Bytes::copy_from_slice(whole)).ok()
}
