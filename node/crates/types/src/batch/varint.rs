//! Zigzag varints and length-prefixed bytes, as in Kafka's record format (which takes them from Protocol
//! Buffers).

/// Reads a varint of at most 64 bits and advances `from`; `None` when the varint is short or too long.
pub(crate) fn read_i64(from: &mut &[u8]) -> Option<i64> {
    // A single byte is by far the commonest: lengths and deltas under 64.
    if let Some((&first, rest)) = from.split_first()
        && first < 0x80
    {
        *from = rest;
        return Some(zigzag(u64::from(first)));
    }
    let mut value = 0u64;
    for (i, &byte) in from.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            // The tenth byte has room for a single bit.
            if i == 9 && byte > 1 {
                return None;
            }
            *from = from.get(i + 1..)?;
            return Some(zigzag(value));
        }
    }
    None
}

/// Reads a varint that must fit in 32 bits.
pub(crate) fn read_i32(from: &mut &[u8]) -> Option<i32> {
    i32::try_from(read_i64(from)?).ok()
}

/// Reads bytes after their length; the inner `None` is null (length -1). Fails when bytes are missing.
#[expect(clippy::option_option, reason = "null and cut short are different things")]
pub(crate) fn read_bytes<'a>(from: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match read_i32(from)? {
        -1 => Some(None),
        len => {
            let (bytes, rest) = from.split_at_checked(usize::try_from(len).ok()?)?;
            *from = rest;
            Some(Some(bytes))
        }
    }
}

/// Writes `value`.
pub(crate) fn write_i64(out: &mut Vec<u8>, value: i64) {
    let mut v = ((value << 1) ^ (value >> 63)) as u64;
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// Writes bytes after their length; null as -1.
pub(crate) fn write_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => write_i64(out, -1),
        Some(b) => {
            write_i64(out, b.len() as i64);
            out.extend_from_slice(b);
        }
    }
}

/// Returns the bytes that [`write_i64`] uses for `value`.
pub(crate) fn len_i64(value: i64) -> usize {
    let v = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (v | 1).leading_zeros() as usize).div_ceil(7)
}

/// Returns the bytes that [`write_bytes`] uses.
pub(crate) fn len_bytes(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |b| len_i64(b.len() as i64) + b.len())
}

fn zigzag(v: u64) -> i64 {
    ((v >> 1) as i64) ^ -((v & 1) as i64)
}
