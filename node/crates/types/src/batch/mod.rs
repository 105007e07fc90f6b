//! Kafka's RecordBatch v2: the one form in which records are sent, stored and read.
//!
//! A [`Batch`] is bytes whose frame was checked (length, magic, CRC32C, codec, counts); its records are
//! walked only when somebody asks, and stay where they are. Layout:
//! <https://kafka.apache.org/documentation/#recordbatch>, all big-endian:
//!
//! ```text
//!  0 base offset i64 | 8 length i32 (of what follows) | 12 leader epoch i32 | 16 magic i8 | 17 crc u32
//! 21 attributes i16 | 23 last offset delta i32 | 27 base timestamp i64 | 35 max timestamp i64
//! 43 producer id i64 | 51 producer epoch i16 | 53 base sequence i32 | 57 record count i32 | 61 records
//! ```
//!
//! The CRC covers everything from the attributes on, so base offset and leader epoch can be stamped without
//! it.

mod body;
mod builder;
mod codec;
mod error;
#[cfg(test)]
mod tests;
pub(crate) mod varint;

pub use body::{Body, Cursor, Records};
pub use builder::BatchBuilder;
pub use codec::Codec;
pub use error::BatchError;

use crate::id::Offset;
use crate::limits::{BATCH_BYTES_MAX, BATCH_INFLATED_BYTES_MAX, BATCH_RECORDS_MAX};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// Bytes before the first record.
pub const HEADER_BYTES: usize = 61;
/// Bytes that the length field does not count: itself and the base offset.
pub const LENGTH_PREFIX_BYTES: usize = 12;
/// The smallest record: a length, attributes, two deltas, two lengths of null and no headers.
pub const RECORD_BYTES_MIN: usize = 7;
const CRC_FROM: usize = 21;
/// Bits of the attributes beside the codec's.
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// Identity and sequence of a producer that numbers its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producer {
    /// Assigned by the broker; never negative.
    pub id: i64,
    /// Rises when the producer restarts: older epochs are fenced.
    pub epoch: i16,
    /// Sequence number of the first record for the partition; wraps at 2^31.
    pub sequence: i32,
}

/// A batch with a checked frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    bytes: Bytes,
    count: u32,
    last_offset_delta: u32,
    codec: Codec,
}

impl Batch {
    /// Checks the frame of a single batch. Records are not walked: see [`Batch::body`].
    ///
    /// # Errors
    /// Fails when the bytes are not a whole, intact batch within the limits.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let have = bytes.len();
        let need = frame_bytes(&bytes)?;
        if have != need {
            return Err(BatchError::Short { have, need });
        }
        let magic = bytes.get(16).map_or(0, |b| *b as i8);
        if magic != 2 {
            return Err(BatchError::Magic(magic));
        }
        let (stored, made) = (
            u32_at(&bytes, 17),
            crc32c::crc32c(bytes.get(CRC_FROM..).unwrap_or_default()),
        );
        if stored != made {
            return Err(BatchError::Checksum { have: stored, made });
        }
        let codec = Codec::from_attributes(i16_at(&bytes, 21))?;
        let count = i64::from(i32_at(&bytes, 57));
        let room = match codec {
            Codec::None => (have - HEADER_BYTES) / RECORD_BYTES_MIN,
            _ => BATCH_INFLATED_BYTES_MAX / RECORD_BYTES_MIN,
        };
        let count = u32::try_from(count)
            .ok()
            .filter(|n| *n <= BATCH_RECORDS_MAX && *n as usize <= room)
            .ok_or(BatchError::Count(count))?;
        let last = i64::from(i32_at(&bytes, 23));
        // A sparse batch may span more offsets than records, even without records; never fewer.
        let last_offset_delta = u32::try_from(last)
            .ok()
            .filter(|last| *last < BATCH_RECORDS_MAX && (*last as u64) + 1 >= u64::from(count))
            .ok_or(BatchError::Delta { last, count })?;
        Ok(Self {
            bytes,
            count,
            last_offset_delta,
            codec,
        })
    }

    /// Takes the first of several consecutive batches, and leaves the rest in `from`.
    ///
    /// # Errors
    /// Fails when the bytes do not begin with a whole, intact batch within the limits.
    pub fn parse_first(from: &mut Bytes) -> Result<Self, BatchError> {
        let need = frame_bytes(from)?;
        if from.len() < need {
            return Err(BatchError::Short {
                have: from.len(),
                need,
            });
        }
        Self::parse(from.split_to(need))
    }

    /// Returns the stored bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns the stored bytes.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Returns the offset of the first record.
    pub fn base_offset(&self) -> Offset {
        Offset::new(u64_at(&self.bytes, 0))
    }

    /// Returns the first offset after the batch.
    pub fn end_offset(&self) -> Offset {
        self.base_offset().plus(u64::from(self.last_offset_delta) + 1)
    }

    /// Returns the number of offsets: at least the number of records.
    pub fn span(&self) -> u32 {
        self.last_offset_delta + 1
    }

    /// Returns the number of records.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Returns the codec of the records.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Returns the stored checksum.
    pub fn crc(&self) -> u32 {
        u32_at(&self.bytes, 17)
    }

    /// Returns the timestamp that the records' deltas count from, in milliseconds.
    pub fn base_timestamp(&self) -> i64 {
        u64_at(&self.bytes, 27) as i64
    }

    /// Returns the largest timestamp in the batch, in milliseconds.
    pub fn max_timestamp(&self) -> i64 {
        u64_at(&self.bytes, 35) as i64
    }

    /// Returns the producer's numbering, if any.
    pub fn producer(&self) -> Option<Producer> {
        let id = u64_at(&self.bytes, 43) as i64;
        (id >= 0).then(|| Producer {
            id,
            epoch: i16_at(&self.bytes, 51),
            sequence: i32_at(&self.bytes, 53),
        })
    }

    /// Decompresses the records.
    ///
    /// # Errors
    /// Fails when the records do not decompress, or exceed [`BATCH_INFLATED_BYTES_MAX`].
    pub fn body(&self) -> Result<Body, BatchError> {
        self.body_within(BATCH_INFLATED_BYTES_MAX)
    }

    /// Returns the usual limit on the inflated size of the batch.
    pub fn usual_bytes_max(&self) -> usize {
        codec::usual_bytes_max(self.bytes.len())
    }

    /// Decompresses the records, or returns `None` when they exceed the usual size.
    ///
    /// # Errors
    /// Fails when the records do not decompress, or exceed [`BATCH_INFLATED_BYTES_MAX`].
    pub fn usual_body(&self) -> Result<Option<Body>, BatchError> {
        match self.body_within(codec::usual_bytes_max(self.bytes.len())) {
            Err(BatchError::Bomb { limit, .. }) if limit < BATCH_INFLATED_BYTES_MAX => Ok(None),
            body => body.map(Some),
        }
    }

    fn body_within(&self, limit: usize) -> Result<Body, BatchError> {
        let packed = self.bytes.slice(HEADER_BYTES..);
        let records = match self.codec {
            Codec::None => packed,
            codec => Bytes::from(codec::inflate(codec, &packed, limit)?),
        };
        Ok(Body {
            bytes: records,
            base_offset: self.base_offset(),
            base_timestamp: self.base_timestamp(),
            max_timestamp: self.max_timestamp(),
            log_append_time: self.is_log_append_time(),
            count: self.count(),
            span: self.span(),
        })
    }

    /// Moves the batch to `base`. Copies only when the bytes are shared.
    #[must_use]
    pub fn at(self, base: Offset) -> Self {
        if self.base_offset() == base {
            return self;
        }
        let mut bytes = self.into_mut();
        if let Some(field) = bytes.0.first_chunk_mut::<8>() {
            *field = base.get().to_be_bytes();
        }
        bytes.seal()
    }

    /// Overwrites bytes of the batch with `patches`, each a position with its bytes, for headers whose value
    /// is known late. Positions are within the records of an uncompressed batch.
    #[must_use]
    pub fn patched<const N: usize>(self, patches: &[(usize, [u8; N])]) -> Self {
        let mut bytes = self.into_mut();
        for (at, patch) in patches.iter().filter(|(at, _)| *at >= HEADER_BYTES) {
            if let Some(field) = bytes.0.get_mut(*at..*at + N) {
                field.copy_from_slice(patch);
            }
        }
        bytes.checksum();
        bytes.seal()
    }

    /// Sets the producer's numbering.
    #[must_use]
    pub fn by(self, producer: Producer) -> Self {
        let mut bytes = self.into_mut();
        if let Some(field) = bytes.0.get_mut(43..).and_then(|b| b.first_chunk_mut::<8>()) {
            *field = producer.id.to_be_bytes();
        }
        if let Some(field) = bytes.0.get_mut(51..).and_then(|b| b.first_chunk_mut::<2>()) {
            *field = producer.epoch.to_be_bytes();
        }
        if let Some(field) = bytes.0.get_mut(53..).and_then(|b| b.first_chunk_mut::<4>()) {
            *field = producer.sequence.to_be_bytes();
        }
        bytes.checksum();
        bytes.seal()
    }

    /// Sets the leader's epoch, which the checksum does not cover.
    #[must_use]
    pub fn led_in(self, epoch: i32) -> Self {
        let mut bytes = self.into_mut();
        if let Some(field) = bytes.0.get_mut(12..).and_then(|b| b.first_chunk_mut::<4>()) {
            *field = epoch.to_be_bytes();
        }
        bytes.seal()
    }

    /// Sets the timestamp of all records to `now`, in milliseconds (Kafka's log-append time). The records are
    /// unchanged; the header overrules them.
    #[must_use]
    pub fn stamped(self, now: i64) -> Self {
        let attributes = i16_at(&self.bytes, 21) | LOG_APPEND_TIME;
        let mut bytes = self.into_mut();
        if let Some(field) = bytes.0.get_mut(21..).and_then(|b| b.first_chunk_mut::<2>()) {
            *field = attributes.to_be_bytes();
        }
        if let Some(field) = bytes.0.get_mut(35..).and_then(|b| b.first_chunk_mut::<8>()) {
            *field = now.to_be_bytes();
        }
        bytes.checksum();
        bytes.seal()
    }

    /// Sets the largest timestamp in the header to `latest`, in milliseconds.
    #[must_use]
    pub fn dated(self, latest: i64) -> Self {
        let mut bytes = self.into_mut();
        if let Some(field) = bytes.0.get_mut(35..).and_then(|b| b.first_chunk_mut::<8>()) {
            *field = latest.to_be_bytes();
        }
        bytes.checksum();
        bytes.seal()
    }

    /// Returns true when all records have the time of storing.
    pub fn is_log_append_time(&self) -> bool {
        i16_at(&self.bytes, 21) & LOG_APPEND_TIME != 0
    }

    /// Returns true for a batch of a transaction, or a transaction marker.
    pub fn is_transactional(&self) -> bool {
        i16_at(&self.bytes, 21) & (TRANSACTIONAL | CONTROL) != 0
    }

    fn into_mut(self) -> Unsealed {
        let bytes = self.bytes.try_into_mut();
        let bytes = bytes.unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
        let batch = Self {
            bytes: Bytes::new(),
            ..self
        };
        Unsealed(bytes, batch)
    }
}

/// A batch whose header is being overwritten.
struct Unsealed(BytesMut, Batch);

impl Unsealed {
    fn checksum(&mut self) {
        let crc = crc32c::crc32c(self.0.get(CRC_FROM..).unwrap_or_default());
        if let Some(field) = self.0.get_mut(17..).and_then(|b| b.first_chunk_mut::<4>()) {
            *field = crc.to_be_bytes();
        }
    }

    fn seal(self) -> Batch {
        Batch {
            bytes: self.0.freeze(),
            ..self.1
        }
    }
}

/// Returns the size of the batch at the start of `bytes`, within the limits.
fn frame_bytes(bytes: &[u8]) -> Result<usize, BatchError> {
    if bytes.len() < HEADER_BYTES {
        return Err(BatchError::Short {
            have: bytes.len(),
            need: HEADER_BYTES,
        });
    }
    let length = i32_at(bytes, 8);
    let total = usize::try_from(length).map_or(0, |n| n + LENGTH_PREFIX_BYTES);
    if total > BATCH_BYTES_MAX {
        return Err(BatchError::TooLarge {
            have: total,
            limit: BATCH_BYTES_MAX,
        });
    }
    if total < HEADER_BYTES {
        return Err(BatchError::Short {
            have: total,
            need: HEADER_BYTES,
        });
    }
    Ok(total)
}

/// Returns the bytes at `at`; zeros past the end, which callers exclude by [`HEADER_BYTES`].
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk::<N>())
        .copied()
        .unwrap_or([0; N])
}
fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(array_at(bytes, at))
}
fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(array_at(bytes, at))
}
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array_at(bytes, at))
}
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array_at(bytes, at))
}
