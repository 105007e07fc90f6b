//! Blob files of the database, frame by frame.
//!
//! lsm-tree 3.1 (`src/vlog/blob_file`): `BLOB`, xxh3-128 of key and value, sequence number u64, key's length
//! u16, value's length u32 before and after compression, key, value, little-endian. `META` ends them.

use crate::recovery::carve::{Item, Region, Value};

const MAGIC: &[u8] = b"BLOB";
/// Bytes before the key.
pub(super) const HEADER_BYTES: usize = 38;

/// Passes on all whole frames, and the regions between them.
pub(super) fn read<'a>(bytes: &'a [u8], rows: &mut dyn FnMut(Item<'a>), bad: &mut dyn FnMut(Region<'a>)) {
    let (mut at, mut begun) = (0, None);
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        match frame(rest) {
            Some((item, len)) => {
                if let Some(begun) = begun.take() {
                    bad(Region::of(bytes, begun, at));
                }
                rows(item);
                at += len;
            }
            None => {
                begun.get_or_insert(at);
                let behind = rest.get(1..).unwrap_or_default();
                let next = behind.windows(MAGIC.len()).position(|w| w == MAGIC);
                at += 1 + next.unwrap_or(behind.len());
            }
        }
    }
    if let Some(begun) = begun {
        bad(Region::of(bytes, begun, at));
    }
}

fn frame(bytes: &[u8]) -> Option<(Item<'_>, usize)> {
    if !bytes.starts_with(MAGIC) {
        return None;
    }
    let sum = u128::from_le_bytes(*bytes.get(4..)?.first_chunk()?);
    let seqno = u64::from_le_bytes(*bytes.get(20..)?.first_chunk()?);
    let key_len = usize::from(u16::from_le_bytes(*bytes.get(28..)?.first_chunk()?));
    let len = u32::from_le_bytes(*bytes.get(34..)?.first_chunk()?) as usize;
    let end = HEADER_BYTES.checked_add(key_len)?.checked_add(len)?;
    let (key, value) = bytes.get(HEADER_BYTES..end)?.split_at_checked(key_len)?;
    let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
    hasher.update(key);
    hasher.update(value);
    let item = Item {
        key: key.to_vec(),
        seqno,
        value: Value::Here(value),
    };
    (hasher.digest128() == sum).then_some((item, end))
}
