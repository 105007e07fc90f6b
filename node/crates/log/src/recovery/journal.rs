//! Looks at fjall's journals before fjall does, because its recovery is weaker than our promise.
//!
//! fjall 3.1.13 takes any unreadable frame for a torn tail and drops what follows, synced or not; a checksum
//! that does not fit keeps it from opening at all. Here the two are told apart: a bad
//! *last* frame is what a power cut leaves and is cut off; a bad frame with whole ones behind it, or after an
//! orderly stop, is damage. What is whole in it by itself, batches and headers of entries, goes on in a frame
//! of its own, and only the rest is taken out. The journal as it was is kept under `quarantine/`. Start and
//! end marks, which no checksum covers, are repaired where the frame's checksum vouches for what lies between
//! them.
//!
//! Frame layout, little-endian (fjall `src/journal/entry.rs`):
//! ```text
//! start: 1u8, items u32, seqno u64
//! item:  2u8, type u8, compression u8, keyspace u64, key length u16, value length u32, stored length u32, key, value
//! clear: 4u8, keyspace u64
//! end:   3u8, xxh3 of all items u64, "FJL\x03"
//! ```

use crate::recovery::carve::{Item, Region, Value, find, is_batch_of, is_header};
use std::fs::{self, File};
use std::io;
use std::path::Path;

const MARK_BYTES: usize = 13;
const ITEM_HEAD_BYTES: usize = 21;
const TRAILER: &[u8; 4] = b"FJL\x03";

/// Findings and repairs of a check of the journals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Bytes of a frame that a power cut left unfinished.
    pub(crate) torn_bytes: u64,
    /// Damaged frames between whole frames, now removed.
    pub(crate) frames_lost: u64,
    /// Frames whose start or end mark was repaired.
    pub(crate) frames_repaired: u64,
    /// A database exists, but no journal has content: fjall writes a journal from its first start on.
    pub(crate) are_gone: bool,
}

/// Checks and repairs every journal of the database in `db`. After an orderly stop (`is_closed`) no frame may
/// be unfinished.
pub(crate) fn check(db: &Path, quarantine: &Path, is_closed: bool) -> io::Result<Findings> {
    let mut journals = Vec::new();
    if !db.exists() {
        return Ok(Findings::default());
    }
    for dirent in fs::read_dir(db)? {
        let path = dirent?.path();
        if path.extension().is_some_and(|e| e == "jnl")
            && let Some(id) = path
                .file_stem()
                .and_then(|s| s.to_str())
                .and_then(|s| s.parse::<u64>().ok())
        {
            journals.push((id, path));
        }
    }
    journals.sort();
    let mut findings = Findings {
        are_gone: true,
        ..Findings::default()
    };
    let mut seqno = None;
    for (_, path) in &journals {
        let bytes = fs::read(path)?;
        findings.are_gone &= bytes.is_empty();
        let walk = walk(&bytes, &mut seqno, is_closed);
        findings.frames_repaired += walk.repaired;
        findings.frames_lost += walk.lost;
        findings.torn_bytes += walk.torn_bytes;
        if walk.repaired + walk.lost > 0 || walk.torn_bytes > 0 {
            mend(path, &bytes, &walk, quarantine)?;
        }
    }
    Ok(findings)
}

/// Copies the journal to quarantine, then writes the good frames in its place.
fn mend(path: &Path, bytes: &[u8], walk: &Walk, quarantine: &Path) -> io::Result<()> {
    fs::create_dir_all(quarantine)?;
    let name = path.file_name().unwrap_or_default();
    let copy = (0u32..)
        .map(|n| quarantine.join(format!("{}.{n}", name.to_string_lossy())))
        .find(|p| !p.exists())
        .unwrap_or_else(|| quarantine.join("journal"));
    // Zeros after the last non-zero byte are preallocation.
    let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
    fs::write(&copy, bytes.get(..used).unwrap_or_default())?;
    File::open(&copy)?.sync_all()?;
    let fresh = path.with_extension("mended");
    fs::write(&fresh, &walk.good)?;
    File::open(&fresh)?.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

#[derive(Debug, Default)]
struct Walk {
    /// All whole frames, repaired.
    good: Vec<u8>,
    repaired: u64,
    lost: u64,
    torn_bytes: u64,
}

/// fjall's numbers of the keyspaces, in the log's order of creation.
const RLOG: u64 = 1;
const DATA: u64 = 2;

impl Walk {
    /// Returns the numbers of the keyspaces of headers and of batches, as whole frames use them.
    fn keyspaces(&self) -> (u64, u64) {
        let (mut rlog, mut data) = (RLOG, DATA);
        for (keyspace, item) in rows(&self.good) {
            match item.value {
                Value::Here(value) if is_header(&item.key, value) => rlog = keyspace,
                Value::Here(value) if is_batch_of(&item.key, value) => data = keyspace,
                _ => {}
            }
        }
        (rlog, data)
    }

    /// Keeps the whole rows and batches of a damaged stretch.
    fn rescue(&mut self, damaged: &[u8], seqno: &mut Option<u64>) {
        self.lost += 1;
        let (rlog, data) = self.keyspaces();
        let mut kept: Vec<(u64, Vec<u8>, Vec<u8>)> = Vec::new();
        let mut within: Vec<std::ops::Range<usize>> = Vec::new();
        let mut at = 0;
        while at < damaged.len() {
            let rest = damaged.get(at..).unwrap_or_default();
            let Some((_, item, len)) = row(rest) else {
                at += 1;
                continue;
            };
            let keyspace = match item.value {
                Value::Here(value) if is_header(&item.key, value) => Some(rlog),
                Value::Here(value) if is_batch_of(&item.key, value) => Some(data),
                _ => None,
            };
            // A record may contain bytes that look like a row: skip the inside of a row whose length is
            // right.
            let is_one = keyspace.is_some() || matches!(rest.get(len), None | Some(2..=4));
            if let (Some(keyspace), Value::Here(value)) = (keyspace, item.value) {
                kept.push((keyspace, item.key, value.to_vec()));
            }
            if is_one {
                within.push(at..at + len);
            }
            at += if is_one { len } else { 1 };
        }
        // A batch behind a damaged row head still follows its key directly.
        let region = Region {
            bytes: damaged,
            from: 0,
        };
        find(&region, Some(DATA_KEY_BYTES), &mut |stray| {
            let key = stray
                .partition
                .map(|partition| crate::format::keys::data_key(partition, stray.batch.base_offset()));
            let key = key.filter(|key| {
                stray
                    .at
                    .checked_sub(DATA_KEY_BYTES)
                    .and_then(|from| damaged.get(from..stray.at))
                    == Some(key)
            });
            let is_within = within.iter().any(|range| range.contains(&stray.at));
            if let Some(key) = key.filter(|key| !is_within && !kept.iter().any(|(_, k, _)| k == key)) {
                kept.push((data, key.to_vec(), stray.batch.into_bytes().to_vec()));
            }
        });
        if kept.is_empty() {
            return;
        }
        let mut body = Vec::new();
        for (keyspace, key, value) in &kept {
            let len = (value.len() as u32).to_le_bytes();
            body.extend([2, 0, 0]);
            body.extend(keyspace.to_le_bytes());
            body.extend((key.len() as u16).to_le_bytes());
            body.extend(len);
            body.extend(len);
            body.extend(key);
            body.extend(value);
        }
        let frame = Frame {
            len: 0,
            items: kept.len() as u32,
            checksum: xxhash_rust::xxh3::xxh3_64(&body),
        };
        // Use the sequence number after the previous frame's: the frame's own may be damaged.
        let start = frame.start(&[], *seqno, None);
        *seqno = u64_at(&start, 5);
        self.good.extend_from_slice(&start);
        self.good.extend_from_slice(&body);
        self.good.extend_from_slice(&frame.end());
    }
}

/// Walks a journal. `seqno` is the number of the last good frame so far: numbers only ascend.
fn walk(bytes: &[u8], seqno: &mut Option<u64>, is_closed: bool) -> Walk {
    let mut walk = Walk::default();
    let mut at = 0;
    // Start of a run of bytes outside of any frame.
    let mut bad: Option<usize> = None;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        match Frame::parse(rest, bad.is_none()) {
            Some(frame) => {
                if let Some(begun) = bad.take() {
                    // The previous frame had a smaller number; if unknown, at most this number minus 1.
                    *seqno = seqno.or_else(|| u64_at(rest, 5).and_then(|next| next.checked_sub(2)));
                    walk.rescue(bytes.get(begun..at).unwrap_or_default(), seqno);
                }
                let next = next_seqno(rest.get(frame.len..).unwrap_or_default());
                let start = frame.start(rest, *seqno, next);
                *seqno = u64_at(&start, 5);
                let end = frame.end();
                let body = rest.get(MARK_BYTES..frame.len - MARK_BYTES).unwrap_or_default();
                if rest.get(..MARK_BYTES) != Some(&start[..])
                    || rest.get(frame.len - MARK_BYTES..frame.len) != Some(&end[..])
                {
                    walk.repaired += 1;
                }
                walk.good.extend_from_slice(&start);
                walk.good.extend_from_slice(body);
                walk.good.extend_from_slice(&end);
                at += frame.len;
            }
            None => {
                let begun = *bad.get_or_insert(at);
                at += match skip_damaged(rest).filter(|_| begun == at) {
                    Some(len) => len,
                    // The next byte that may begin a frame.
                    None => 1 + rest.iter().skip(1).position(|b| *b == 1).unwrap_or(rest.len()),
                };
            }
        }
    }
    if let Some(begun) = bad {
        let tail = bytes.get(begun..).unwrap_or_default();
        // Zeros after the last non-zero byte are preallocation.
        let used = tail.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
        if is_closed && used > 0 {
            walk.rescue(tail.get(..used).unwrap_or_default(), seqno);
        } else {
            walk.torn_bytes = used as u64;
        }
    }
    walk
}

/// A frame whose checksum matches the bytes between its marks.
struct Frame {
    len: usize,
    items: u32,
    checksum: u64,
}

impl Frame {
    /// Parses the frame at the start of `bytes`. Where a frame is `expected` (directly after a good frame),
    /// damaged marks are tolerated; elsewhere both marks must be whole.
    fn parse(bytes: &[u8], expected: bool) -> Option<Self> {
        if !expected && bytes.first() != Some(&1) {
            return None;
        }
        let (body_len, items) = items(bytes.get(MARK_BYTES..)?);
        if items == 0 {
            return None;
        }
        let checksum = xxhash_rust::xxh3::xxh3_64(bytes.get(MARK_BYTES..MARK_BYTES + body_len)?);
        let end = bytes.get(MARK_BYTES + body_len..MARK_BYTES * 2 + body_len)?;
        let sum_fits = u64_at(end, 1) == Some(checksum);
        let marks_fit = end.first() == Some(&3) && end.ends_with(TRAILER);
        let whole = sum_fits && (marks_fit || expected);
        whole.then_some(Self {
            len: body_len + 2 * MARK_BYTES,
            items,
            checksum,
        })
    }

    /// Returns the frame's start mark. A sequence number out of line with its neighbours is replaced.
    fn start(&self, bytes: &[u8], previous: Option<u64>, next: Option<u64>) -> [u8; MARK_BYTES] {
        let stored = u64_at(bytes, 5).unwrap_or_default();
        let floor = previous.map_or(0, |p| p + 1);
        let in_line = stored >= floor && next.is_none_or(|n| stored < n || n < floor);
        let tag_fits = bytes.first() == Some(&1);
        let seqno = if in_line && tag_fits { stored } else { floor };
        let mut mark = [0; MARK_BYTES];
        mark[0] = 1;
        mark[1..5].copy_from_slice(&self.items.to_le_bytes());
        mark[5..].copy_from_slice(&seqno.to_le_bytes());
        mark
    }

    fn end(&self) -> [u8; MARK_BYTES] {
        let mut mark = [0; MARK_BYTES];
        mark[0] = 3;
        mark[1..9].copy_from_slice(&self.checksum.to_le_bytes());
        mark[9..].copy_from_slice(TRAILER);
        mark
    }
}

/// Returns the length of a frame with well-formed items but a wrong checksum: the next frame begins there.
fn skip_damaged(bytes: &[u8]) -> Option<usize> {
    let (body_len, items) = items(bytes.get(MARK_BYTES..)?);
    let end = bytes.get(MARK_BYTES + body_len..MARK_BYTES * 2 + body_len)?;
    (items > 0 && end.first() == Some(&3) && end.ends_with(TRAILER)).then_some(body_len + 2 * MARK_BYTES)
}

/// Returns all rows of the whole frames in `bytes`, each with the number of its keyspace.
pub(crate) fn rows(bytes: &[u8]) -> Vec<(u64, Item<'_>)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(frame) = Frame::parse(rest, false) else {
            at += 1;
            continue;
        };
        let seqno = u64_at(rest, 5).unwrap_or_default();
        let mut body = rest.get(MARK_BYTES..frame.len - MARK_BYTES).unwrap_or_default();
        while let Some((keyspace, item, len)) = row(body) {
            found.push((keyspace, Item { seqno, ..item }));
            body = body.get(len..).unwrap_or_default();
        }
        at += frame.len;
    }
    found
}

/// Bytes of a key of `data`.
const DATA_KEY_BYTES: usize = 12;

/// Parses the row at the start of `bytes`. Returns its keyspace and its length, too.
fn row(bytes: &[u8]) -> Option<(u64, Item<'_>, usize)> {
    let len = item_bytes(bytes)?;
    if bytes.first() != Some(&2) {
        return None;
    }
    let key_len = usize::from(u16::from_le_bytes(*bytes.get(11..)?.first_chunk()?));
    let (key, value) = bytes.get(ITEM_HEAD_BYTES..len)?.split_at_checked(key_len)?;
    let value = match bytes.get(1)? {
        0 => Value::Here(value),
        _ => Value::Removed,
    };
    let item = Item {
        key: key.to_vec(),
        seqno: 0,
        value,
    };
    Some((u64_at(bytes, 3)?, item, len))
}

/// Returns the length and the number of the items at the start of `bytes`.
fn items(bytes: &[u8]) -> (usize, u32) {
    let (mut at, mut count) = (0, 0);
    while let Some(len) = item_bytes(bytes.get(at..).unwrap_or_default()) {
        at += len;
        count += 1;
    }
    (at, count)
}

fn item_bytes(bytes: &[u8]) -> Option<usize> {
    let len = match bytes.first()? {
        2 => {
            let head = bytes.get(..ITEM_HEAD_BYTES)?;
            // Types 0 to 2 (value, tombstone, weak tombstone); we write no compressed items.
            if *head.get(1)? > 3 || *head.get(2)? != 0 {
                return None;
            }
            let key = usize::from(u16::from_le_bytes(*head.get(11..)?.first_chunk()?));
            let value = u32::from_le_bytes(*head.get(17..)?.first_chunk()?) as usize;
            ITEM_HEAD_BYTES + key + value
        }
        4 => 9,
        _ => return None,
    };
    (len <= bytes.len()).then_some(len)
}

/// Returns the sequence number of the whole frame at the start of `bytes`, if there is a frame.
fn next_seqno(bytes: &[u8]) -> Option<u64> {
    (bytes.first() == Some(&1)).then(|| u64_at(bytes, 5)).flatten()
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(seqno: u64, values: &[&[u8]]) -> Vec<u8> {
        let mut body = Vec::new();
        for value in values {
            body.extend([2, 0, 0]);
            body.extend(1u64.to_le_bytes());
            body.extend(3u16.to_le_bytes());
            body.extend((value.len() as u32).to_le_bytes());
            body.extend((value.len() as u32).to_le_bytes());
            body.extend(b"key");
            body.extend(*value);
        }
        let frame = Frame {
            len: 0,
            items: values.len() as u32,
            checksum: xxhash_rust::xxh3::xxh3_64(&body),
        };
        let mut mark = [0; MARK_BYTES];
        mark[5..].copy_from_slice(&seqno.to_le_bytes());
        mark[0] = 1;
        [&frame.start(&mark, None, None)[..], &body, &frame.end()].concat()
    }

    fn journal() -> (Vec<u8>, usize, usize) {
        let (a, b, c) = (
            frame(4, &[b"one"]),
            frame(5, &[b"two", b"2"]),
            frame(6, &[b"three"]),
        );
        let (from, to) = (a.len(), a.len() + b.len());
        let mut all = [a, b, c].concat();
        all.resize(all.len() + 500, 0);
        (all, from, to)
    }

    #[test]
    fn a_whole_journal_is_left_alone() {
        let (bytes, ..) = journal();
        let walk = walk(&bytes, &mut None, false);
        assert_eq!((walk.repaired, walk.lost, walk.torn_bytes), (0, 0, 0));
    }

    #[test]
    fn every_damaged_byte_mid_journal_is_repaired_or_costs_one_frame() {
        let (bytes, from, to) = journal();
        let whole = &bytes[..bytes.len() - 500];
        for at in from..to {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            let walk = walk(&bad, &mut None, false);
            assert_eq!(walk.torn_bytes, 0, "byte {at}");
            match (walk.repaired, walk.lost) {
                (1, 0) => assert_eq!(walk.good, whole, "byte {at}"),
                (0, 1) => assert_eq!(walk.good, [&whole[..from], &whole[to..]].concat(), "byte {at}"),
                other => panic!("byte {at}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_torn_last_frame_is_cut_and_earlier_ones_stay() {
        let (bytes, _, to) = journal();
        let end = bytes.len() - 500;
        for cut in to + 1..end {
            let mut torn = bytes.clone();
            torn[cut..end].fill(0);
            let walk = walk(&torn, &mut None, false);
            assert_eq!(walk.lost, 0);
            // Only the trailer is missing: all items are present and match their checksum.
            assert!(walk.good == bytes[..to] || walk.good == bytes[..end], "cut {cut}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(0u8..6, 0..400)) {
            let _ = walk(&bytes, &mut None, false);
        }
    }
}
