//! The records of a batch, in place.

use crate::batch::error::BatchError;
use crate::batch::varint;
use crate::id::Offset;
use crate::limits::RECORD_HEADERS_MAX;
use crate::record::{Headers, RecordRef};
use bytes::Bytes;

/// Decompressed records of a batch.
#[derive(Clone, Debug)]
pub struct Body {
    pub(super) bytes: Bytes,
    pub(super) base_offset: Offset,
    pub(super) base_timestamp: i64,
    pub(super) max_timestamp: i64,
    /// Attribute bit 3: the broker's time overrules every record's.
    pub(super) log_append_time: bool,
    pub(super) count: u32,
    pub(super) span: u32,
}

impl Body {
    /// Returns the records' bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Walks the records. Ends with an error at the first malformed record, and after the last record if
    /// bytes are left.
    pub fn records(&self) -> Records<'_> {
        self.records_at(Cursor::default())
    }

    /// Walks the records from `cursor` on, which an earlier walk over the same records returned.
    pub fn records_at(&self, cursor: Cursor) -> Records<'_> {
        Records {
            body: self,
            rest: self.bytes.get(cursor.position..).unwrap_or_default(),
            index: cursor.index,
            next_delta: cursor.next_delta,
            failed: cursor.failed,
        }
    }
}

/// Progress of a walk over a batch's records, for callers that cannot hold a borrow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    position: usize,
    index: u32,
    next_delta: i64,
    failed: bool,
}

/// Iterator over a batch's records.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    body: &'a Body,
    rest: &'a [u8],
    index: u32,
    next_delta: i64,
    failed: bool,
}

impl<'a> Records<'a> {
    /// Returns the bytes of the body up to the next record.
    pub fn position(&self) -> usize {
        self.body.bytes.len() - self.rest.len()
    }

    /// Returns the progress, for [`Body::records_at`].
    pub fn cursor(&self) -> Cursor {
        Cursor {
            position: self.position(),
            index: self.index,
            next_delta: self.next_delta,
            failed: self.failed,
        }
    }

    fn parse(&mut self) -> Result<RecordRef<'a>, &'static str> {
        let len = varint::read_i32(&mut self.rest).ok_or("its length is cut short")?;
        let len = usize::try_from(len).map_err(|_| "its length is negative")?;
        let (mut record, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or("it is longer than the batch")?;
        self.rest = rest;
        record.split_off_first().ok_or("its attributes are missing")?;
        let timestamp = varint::read_i64(&mut record).ok_or("its timestamp is cut short")?;
        let delta = i64::from(varint::read_i32(&mut record).ok_or("its offset is cut short")?);
        if delta < self.next_delta || delta >= i64::from(self.body.span) {
            return Err("its offset is out of order");
        }
        self.next_delta = delta + 1;
        let key = varint::read_bytes(&mut record).ok_or("its key is cut short")?;
        let value = varint::read_bytes(&mut record).ok_or("its value is cut short")?;
        let raw = record;
        walk_headers(&mut record)?;
        if !record.is_empty() {
            return Err("bytes are left after its headers");
        }
        Ok(RecordRef {
            offset: self.body.base_offset.plus(delta as u64),
            timestamp: if self.body.log_append_time {
                self.body.max_timestamp
            } else {
                self.body.base_timestamp.wrapping_add(timestamp)
            },
            key,
            value,
            headers: Headers::walked(raw),
        })
    }
}

fn walk_headers(record: &mut &[u8]) -> Result<(), &'static str> {
    let count = varint::read_i32(record).ok_or("its header count is cut short")?;
    if count == 0 {
        return Ok(());
    }
    if count < 0 || count > RECORD_HEADERS_MAX as i32 {
        return Err("its header count is negative or over 10,000");
    }
    for _ in 0..count {
        varint::read_bytes(record)
            .flatten()
            .ok_or("a header's name is missing or cut short")?;
        varint::read_bytes(record).ok_or("a header's value is cut short")?;
    }
    Ok(())
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordRef<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let index = self.index;
        let result = if index == self.body.count {
            if self.rest.is_empty() {
                return None;
            }
            Err("bytes are left after the last record")
        } else {
            self.index += 1;
            self.parse()
        };
        self.failed = result.is_err();
        Some(result.map_err(|what| BatchError::Record { index, what }))
    }
}
