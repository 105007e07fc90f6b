//! Tables of the database, block by block, without their index.
//!
//! lsm-tree 3.1 (`src/table`): a block is `LSM\x03`, type u8, xxh3-128 of its data, length u32, length before
//! compression u32, and the low 32 bits of the xxh3-128 of those, little-endian; then its data. A block of
//! rows has, one after the other: type u8, sequence number varint, and the key: whole at each restart (length
//! varint, bytes), else by what it shares with the restart's (shared varint, rest varint, rest). A value has
//! its length varint before it. Behind them are 255, the offsets of the restarts, and a trailer of 31 bytes.

use crate::recovery::carve::{Item, Region, Value};

const MAGIC: &[u8] = b"LSM\x03";
const HEADER_BYTES: usize = 33;
const TRAILER_BYTES: usize = 31;
const TYPE_ROWS: u8 = 0;
const END_OF_ROWS: u8 = 255;
/// Rows from a restart to the next: of new tables and of merged ones (fjall's
/// `data_block_restart_interval_policy`).
const RESTARTS: [usize; 2] = [10, 16];

/// Passes on all rows of whole blocks, and the regions between them.
pub(super) fn read<'a>(bytes: &'a [u8], rows: &mut dyn FnMut(Item<'a>), bad: &mut dyn FnMut(Region<'a>)) {
    let (mut at, mut begun) = (0, None);
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(block) = Block::at(rest) else {
            begun.get_or_insert(at);
            at += 1 + next(rest.get(1..).unwrap_or_default());
            continue;
        };
        if let Some(begun) = begun.take() {
            bad(Region::of(bytes, begun, at));
        }
        if block.is_of_rows {
            match block.is_whole && items(block.data, restarts_every(block.data), 0, rows).is_some() {
                true => {}
                false => bad(Region {
                    bytes: block.data,
                    from: at + HEADER_BYTES,
                }),
            }
        }
        at += HEADER_BYTES + block.data.len();
    }
    if let Some(begun) = begun {
        bad(Region::of(bytes, begun, at));
    }
}

/// Passes on possible rows of a region without a checksum: each may be wrong.
pub(super) fn guess<'a>(region: &Region<'a>, rows: &mut dyn FnMut(Item<'a>)) {
    let data = region.bytes;
    for every in RESTARTS {
        for skipped in [0, HEADER_BYTES] {
            let _ = items(data.get(skipped..).unwrap_or_default(), every, 0, rows);
        }
    }
    let every = restarts_every(data);
    for restart in restarts(data) {
        let _ = items(data, every, restart, &mut |item| rows(item));
    }
}

fn next(bytes: &[u8]) -> usize {
    let found = bytes.windows(MAGIC.len()).position(|w| w == MAGIC);
    found.unwrap_or(bytes.len())
}

struct Block<'a> {
    data: &'a [u8],
    is_of_rows: bool,
    is_whole: bool,
}

impl<'a> Block<'a> {
    /// Parses the block at the start of `bytes`, or returns `None` when the header is not whole.
    fn at(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.get(..HEADER_BYTES)?;
        let (fields, sum) = header.split_at(HEADER_BYTES - 4);
        let made = xxhash_rust::xxh3::xxh3_128(fields) as u32;
        if !header.starts_with(MAGIC) || u32::from_le_bytes(*sum.first_chunk()?) != made {
            return None;
        }
        let stored = u128::from_le_bytes(*fields.get(5..)?.first_chunk()?);
        let len = u32::from_le_bytes(*fields.get(21..)?.first_chunk()?) as usize;
        let data = bytes.get(HEADER_BYTES..HEADER_BYTES.checked_add(len)?)?;
        Some(Self {
            data,
            is_of_rows: fields.get(4) == Some(&TYPE_ROWS),
            is_whole: xxhash_rust::xxh3::xxh3_128(data) == stored,
        })
    }
}

fn restarts_every(data: &[u8]) -> usize {
    let trailer = data.len().checked_sub(TRAILER_BYTES).and_then(|at| data.get(at));
    trailer.map_or(RESTARTS[0], |n| usize::from(*n)).max(1)
}

/// Returns the offsets at which runs of rows begin, from the trailer.
fn restarts(data: &[u8]) -> Vec<usize> {
    let read = || {
        let trailer = data.get(data.len().checked_sub(TRAILER_BYTES)?..)?;
        let (step, rest) = trailer.get(1..)?.split_first()?;
        let count = u32::from_le_bytes(*rest.first_chunk()?) as usize;
        let from = u32::from_le_bytes(*rest.get(4..)?.first_chunk()?) as usize;
        let step = usize::from(*step);
        let offsets = data.get(from..from.checked_add(count.checked_mul(step)?)?)?;
        Some(offsets.chunks_exact(step.max(1)).map(|o| match *o {
            [a, b] => usize::from(u16::from_le_bytes([a, b])),
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]) as usize,
            _ => usize::MAX,
        }))
    };
    read().map(Iterator::collect).unwrap_or_default()
}

/// Reads rows from `at` to their end. Returns `None` when they do not end properly.
fn items<'a>(data: &'a [u8], every: usize, mut at: usize, rows: &mut dyn FnMut(Item<'a>)) -> Option<()> {
    let mut restart: &[u8] = &[];
    for n in 0usize.. {
        let kind = *data.get(at)?;
        if kind == END_OF_ROWS {
            return Some(());
        }
        at += 1;
        let seqno = varint(data, &mut at)?;
        let key = if n.is_multiple_of(every) {
            restart = bytes(data, &mut at)?;
            restart.to_vec()
        } else {
            let shared = usize::try_from(varint(data, &mut at)?).ok()?;
            let rest = bytes(data, &mut at)?;
            [restart.get(..shared)?, rest].concat()
        };
        let value = match kind {
            0 => Value::Here(bytes(data, &mut at)?),
            1 | 2 => Value::Removed,
            4 => {
                let mut within = 0;
                let handle = bytes(data, &mut at)?;
                let offset = varint(handle, &mut within)?;
                let file = varint(handle, &mut within)?;
                let len = varint(handle, &mut within)?;
                Value::Blob { file, offset, len }
            }
            _ => return None,
        };
        rows(Item { key, seqno, value });
    }
    None
}

fn bytes<'a>(data: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let len = usize::try_from(varint(data, at)?).ok()?;
    let end = at.checked_add(len)?;
    let found = data.get(*at..end)?;
    *at = end;
    Some(found)
}

/// Reads a LEB128 number, as the crate `varint-rs` writes it.
fn varint(data: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *data.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
