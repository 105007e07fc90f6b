//! Reading the entries of a replica group, each joined again with its batches.

use crate::error::ReadError;
use crate::format::entry::{Append, Entry, EntryHeader, Op};
use crate::format::keys::{data_key, rlog_index, rlog_key};
use crate::store::keyspaces::Keyspaces;
use std::ops::Range;
use weir_types::{Batch, GroupId};

/// Selects entries with or without their batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payloads {
    /// With all stored batches.
    Read,
    /// Without batches: each is [`Op::Gone`], so damage to batches does not matter.
    Left,
}

/// Reads entries and joins them with their payloads.
pub(crate) fn entries(
    keyspaces: &Keyspaces,
    group: GroupId,
    range: Range<u64>,
    max_bytes: usize,
    of: Payloads,
) -> Result<Vec<Entry>, ReadError> {
    let (mut entries, mut bytes, mut due) = (Vec::new(), 0, range.start);
    for guard in keyspaces
        .rlog
        .range(rlog_key(group, range.start)..rlog_key(group, range.end))
    {
        let damaged = |index: u64, why: String| ReadError::DamagedEntry { index, why };
        let (key, value) = guard.into_inner().map_err(|e| damaged(due, e.to_string()))?;
        let index = rlog_index(&key).unwrap_or_default();
        if index != due {
            return Err(damaged(due, "it is missing".to_owned()));
        }
        let header = EntryHeader::decode(group, index, &value);
        let (header, ..) = header.map_err(|e| damaged(index, e.to_string()))?;
        let entry = join(keyspaces, header, of)?;
        bytes += entry.payload_bytes();
        entries.push(entry);
        due += 1;
        if bytes >= max_bytes {
            break;
        }
    }
    Ok(entries)
}

fn join(keyspaces: &Keyspaces, header: EntryHeader, of: Payloads) -> Result<Entry, ReadError> {
    let mut ops = Vec::with_capacity(header.ops.len());
    for op in header.ops {
        ops.push(op.join(|append| {
            let batch = match of {
                Payloads::Read => payload(keyspaces, &append)?,
                Payloads::Left => None,
            };
            Ok(match batch {
                Some(batch) => Op::Append {
                    partition: append.partition,
                    batch,
                },
                None => Op::Gone(append),
            })
        })?);
    }
    Ok(Entry {
        group: header.group,
        index: header.index,
        term: header.term,
        lazy: false,
        ops,
    })
}

/// Reads the batch named by a header; `None` when retention has removed the batch.
fn payload(keyspaces: &Keyspaces, append: &Append) -> Result<Option<Batch>, ReadError> {
    let damaged = |why: String| ReadError::Damaged {
        partition: append.partition,
        near: append.base.get(),
        why,
    };
    let key = data_key(append.partition, append.base);
    let Some(row) = keyspaces.data.get(key).map_err(|e| damaged(e.to_string()))? else {
        return Ok(None);
    };
    let bytes = match keyspaces.payload(&key, row) {
        Ok(bytes) => bytes,
        // Removed between the two reads.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(damaged(e.to_string())),
    };
    let batch = Batch::parse(bytes).map_err(|e| damaged(e.to_string()))?;
    // The checksum does not cover the first offset.
    let is_it = (batch.base_offset(), batch.span(), batch.crc()) == (append.base, append.span, append.crc);
    if !is_it {
        return Err(damaged("another batch is in its place".to_owned()));
    }
    Ok(Some(batch))
}
