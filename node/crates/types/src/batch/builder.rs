//! Writing batches: from records, or from the records that a filter keeps.

use crate::batch::body::Body;
use crate::batch::codec::{self, Codec};
use crate::batch::error::BatchError;
use crate::batch::{Batch, CRC_FROM, HEADER_BYTES, Producer, varint};
use crate::id::Offset;
use crate::record::{Headers, Record, RecordRef};
use bytes::Bytes;

/// Collects records and writes them as a batch.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    codec: Codec,
    /// Space for the header, then the records in stored form.
    buf: Vec<u8>,
    count: u32,
    /// Offsets so far: records and skipped offsets.
    span: u32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// Makes an empty batch.
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            buf: vec![0; HEADER_BYTES],
            count: 0,
            span: 0,
            base_timestamp: 0,
            max_timestamp: 0,
        }
    }

    /// Changes the codec.
    #[must_use]
    pub fn with_codec(self, codec: Codec) -> Self {
        Self { codec, ..self }
    }

    /// Returns the number of records so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Returns true before the first record.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the bytes so far, before compression.
    pub fn bytes(&self) -> usize {
        self.buf.len()
    }

    /// Adds a record at the next offset.
    pub fn push(&mut self, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: Headers<'_>) {
        if self.count == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        let offset_delta = i64::from(self.span);
        let len = 1
            + varint::len_i64(timestamp_delta)
            + varint::len_i64(offset_delta)
            + varint::len_bytes(key)
            + varint::len_bytes(value)
            + headers.raw().len();
        self.buf.reserve(len + 5);
        varint::write_i64(&mut self.buf, len as i64);
        self.buf.push(0);
        varint::write_i64(&mut self.buf, timestamp_delta);
        varint::write_i64(&mut self.buf, offset_delta);
        varint::write_bytes(&mut self.buf, key);
        varint::write_bytes(&mut self.buf, value);
        self.buf.extend_from_slice(headers.raw());
        self.count += 1;
        self.span += 1;
    }

    /// Skips `offsets` without records.
    pub fn skip(&mut self, offsets: u32) {
        self.span += offsets;
    }

    /// Adds the records of `batch` at the next offsets, with their gaps.
    ///
    /// # Errors
    /// Fails when the batch's records are malformed.
    pub fn push_batch(&mut self, batch: &Batch) -> Result<(), BatchError> {
        let start = self.span;
        for record in batch.body()?.records() {
            let record = record?;
            let at = start + record.offset.since(batch.base_offset()) as u32;
            self.skip(at - self.span);
            self.push_ref(&record);
        }
        self.span = start + batch.span();
        Ok(())
    }

    /// Adds `record` at the next offset.
    pub fn push_record(&mut self, record: &Record) {
        if record.headers.is_empty() {
            return self.push(
                record.timestamp,
                record.key.as_deref(),
                record.value.as_deref(),
                Headers::NONE,
            );
        }
        let headers = record.header_buf().encoded();
        self.push(
            record.timestamp,
            record.key.as_deref(),
            record.value.as_deref(),
            Headers::walked(&headers),
        );
    }

    /// Adds a copy of `record` at the next offset.
    pub fn push_ref(&mut self, record: &RecordRef<'_>) {
        self.push(record.timestamp, record.key, record.value, record.headers);
    }

    /// Writes the batch with its first record at `base`.
    ///
    /// # Errors
    /// Fails when the batch is over a limit, or the compression fails.
    pub fn build(self, base: Offset, producer: Option<Producer>) -> Result<Batch, BatchError> {
        let span = self.span.max(1);
        let frame = Frame {
            codec: self.codec,
            base,
            span,
            count: self.count,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer,
            flags: 0,
        };
        frame.write(self.buf)
    }
}

/// Fields of a batch's header.
struct Frame {
    codec: Codec,
    base: Offset,
    span: u32,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer: Option<Producer>,
    /// Attribute bits above the codec's.
    flags: i16,
}

impl Frame {
    /// Fills in the header before the records in `buf`, and compresses the records.
    fn write(&self, mut buf: Vec<u8>) -> Result<Batch, BatchError> {
        if self.codec != Codec::None {
            let packed =
                codec::deflate(self.codec, buf.get(HEADER_BYTES..).unwrap_or_default()).map_err(|e| {
                    BatchError::Inflate {
                        codec: self.codec.name(),
                        why: e.to_string(),
                    }
                })?;
            buf.truncate(HEADER_BYTES);
            buf.extend_from_slice(&packed);
        }
        let producer = self.producer.unwrap_or(Producer {
            id: -1,
            epoch: -1,
            sequence: -1,
        });
        let length = (buf.len() - super::LENGTH_PREFIX_BYTES) as i32;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&self.base.get().to_be_bytes());
        header.extend_from_slice(&length.to_be_bytes());
        header.extend_from_slice(&0i32.to_be_bytes());
        header.push(2);
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(&(self.flags | self.codec as i16).to_be_bytes());
        header.extend_from_slice(&(self.span as i32 - 1).to_be_bytes());
        header.extend_from_slice(&self.base_timestamp.to_be_bytes());
        header.extend_from_slice(&self.max_timestamp.to_be_bytes());
        header.extend_from_slice(&producer.id.to_be_bytes());
        header.extend_from_slice(&producer.epoch.to_be_bytes());
        header.extend_from_slice(&producer.sequence.to_be_bytes());
        header.extend_from_slice(&(self.count as i32).to_be_bytes());
        buf.splice(..HEADER_BYTES, header);
        let crc = crc32c::crc32c(buf.get(CRC_FROM..).unwrap_or_default());
        if let Some(field) = buf.get_mut(17..).and_then(|b| b.first_chunk_mut::<4>()) {
            *field = crc.to_be_bytes();
        }
        Batch::parse(Bytes::from(buf))
    }
}

impl Batch {
    /// Keeps only the records with `keep`. Base offset, span and producer stay, as after Kafka's compaction.
    /// `body` must belong to this batch, and `spans[i]` is the end of record `i` in the body.
    ///
    /// # Errors
    /// Fails when the compression fails.
    pub fn sparse(&self, spans: &[u32], body: &Body, keep: &[bool]) -> Result<Self, BatchError> {
        let mut buf = vec![0; HEADER_BYTES];
        buf.reserve(body.bytes().len());
        let mut count = 0;
        let mut start = 0;
        // Look-ups by time use the header, which must not promise dropped records.
        let mut latest: Option<i64> = None;
        for ((end, keep), record) in spans
            .iter()
            .map(|end| *end as usize)
            .zip(keep)
            .zip(body.records())
        {
            if *keep {
                // Offsets and timestamps count from the same base: copy the bytes.
                latest = latest.max(Some(record?.timestamp));
                buf.extend_from_slice(body.bytes().get(start..end).unwrap_or_default());
                count += 1;
            }
            start = end;
        }
        let frame = Frame {
            // Some readers cannot read compressed emptiness.
            codec: if count == 0 { Codec::None } else { self.codec() },
            base: self.base_offset(),
            span: self.span(),
            count,
            base_timestamp: self.base_timestamp(),
            // Kafka's value for no timestamp.
            max_timestamp: latest.unwrap_or(-1),
            producer: self.producer(),
            flags: crate::batch::i16_at(self.bytes(), 21) & !7,
        };
        frame.write(buf)
    }
}
