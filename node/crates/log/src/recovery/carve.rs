//! Carving: the rows, regions and batches in a file of the store, found without the store's own metadata.

use crate::format::entry::EntryHeader;
use crate::format::keys::{rlog_index, split_data_key};
use bytes::Bytes;
use weir_types::batch::HEADER_BYTES;
use weir_types::limits::BATCH_BYTES_MAX;
use weir_types::{Batch, GroupId, PartitionId};

/// A row in a file.
pub(crate) struct Item<'a> {
    pub(crate) key: Vec<u8>,
    pub(crate) seqno: u64,
    pub(crate) value: Value<'a>,
}

/// The value of a row.
pub(crate) enum Value<'a> {
    Here(&'a [u8]),
    Removed,
    /// The value is in a blob file.
    Blob {
        file: u64,
        offset: u64,
        len: u64,
    },
}

/// A stretch of a file outside of every whole block or frame.
pub(crate) struct Region<'a> {
    pub(crate) bytes: &'a [u8],
    /// Start of the stretch in the file.
    pub(crate) from: usize,
}

impl<'a> Region<'a> {
    pub(crate) fn of(bytes: &'a [u8], from: usize, to: usize) -> Self {
        Self {
            bytes: bytes.get(from..to).unwrap_or_default(),
            from,
        }
    }
}

/// Returns true when `value` is a whole batch with the first offset of `key`.
pub(crate) fn is_batch_of(key: &[u8], value: &[u8]) -> bool {
    let base = split_data_key(key)
        .filter(|_| key.len() == 12)
        .map(|(_, base)| base);
    let batch = base.and_then(|_| Batch::parse(Bytes::copy_from_slice(value)).ok());
    batch.is_some_and(|batch| Some(batch.base_offset()) == base)
}

/// Returns true when `value` is the whole header of the entry of `key`.
pub(crate) fn is_header(key: &[u8], value: &[u8]) -> bool {
    let group = key.first_chunk().map(|g| GroupId(u16::from_be_bytes(*g)));
    let named = group.zip(rlog_index(key)).filter(|_| key.len() == 10);
    named.is_some_and(|(group, index)| EntryHeader::decode(group, index, value).is_ok())
}

/// Position and value of the magic number of a batch.
const MAGIC_AT: usize = 16;
const MAGIC: u8 = 2;
/// Bytes of a key of `data`.
const KEY_BYTES: usize = 12;

/// A batch, with the partition of the whole key in front, if there is such a key.
#[derive(Clone, Debug)]
pub(crate) struct Stray {
    pub(crate) partition: Option<PartitionId>,
    pub(crate) batch: Batch,
    /// Start of the batch in its file.
    pub(crate) at: usize,
}

/// Passes each whole batch in `region` to `each`. The batch's key (partition, base offset) may begin
/// `key_before` bytes in front of the batch.
pub(crate) fn find(region: &Region<'_>, key_before: Option<usize>, each: &mut dyn FnMut(Stray)) {
    let bytes = region.bytes;
    let mut at = 0;
    while at + HEADER_BYTES <= bytes.len() {
        let Some(batch) = batch_at(bytes, at) else {
            // A record may contain bytes that look like a batch: the inside of a damaged batch is skipped.
            at += damaged_at(bytes, at).unwrap_or(1);
            continue;
        };
        let key = key_before
            .and_then(|before| at.checked_sub(before))
            .and_then(|from| split_data_key(bytes.get(from..from + KEY_BYTES)?))
            .filter(|(_, base)| *base == batch.base_offset())
            .map(|(partition, _)| partition);
        let len = batch.bytes().len();
        each(Stray {
            partition: key,
            batch,
            at: region.from + at,
        });
        at += len;
    }
}

/// Returns the bytes of the damaged batch that begins at `at`, if its header is plausible.
fn damaged_at(bytes: &[u8], at: usize) -> Option<usize> {
    let header = bytes.get(at..at.checked_add(HEADER_BYTES)?)?;
    let len = u32::from_be_bytes(*header.get(8..)?.first_chunk()?) as usize;
    let attributes = u16::from_be_bytes(*header.get(21..)?.first_chunk()?);
    let last = i32::from_be_bytes(*header.get(23..)?.first_chunk()?);
    let count = i32::from_be_bytes(*header.get(57..)?.first_chunk()?);
    let is_one = header.first_chunk() == Some(&[0; 2])
        && header.get(MAGIC_AT) == Some(&MAGIC)
        && attributes & !0x1f == 0
        && (1..=i64::from(last) + 1).contains(&i64::from(count))
        && (HEADER_BYTES..=BATCH_BYTES_MAX).contains(&(len + 12));
    (is_one && at + len + 12 <= bytes.len()).then_some(len + 12)
}

/// Returns the whole batch that begins at `at`, if there is a batch.
fn batch_at(bytes: &[u8], at: usize) -> Option<Batch> {
    if bytes.get(at + MAGIC_AT) != Some(&MAGIC) {
        return None;
    }
    let len = u32::from_be_bytes(*bytes.get(at + 8..)?.first_chunk()?) as usize;
    let whole = bytes.get(at..at.checked_add(len)?.checked_add(12)?)?;
    // Check the header before anything is copied.
    if len + 12 < HEADER_BYTES {
        return None;
    }
    let stored = u32::from_be_bytes(*whole.get(17..)?.first_chunk()?);
    if crc32c::crc32c(whole.get(21..)?) != stored {
        return None;
    }
    Batch::parse(Bytes::copy_from_slice(whole)).ok()
}
