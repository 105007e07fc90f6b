//! Dead letters: records that a module failed on or rejected, with the error in their headers.

use crate::stages::batches::has_room;
use std::sync::Arc;
use weir_broker::OFFSET_DIGITS;
use weir_runtime::Digest;
use weir_types::limits::{RECORD_BYTES_MAX, RECORD_HEADERS_MAX};
use weir_types::{BatchBuilder, Codec, HeaderBuf, RecordRef};

/// A dead letter.
#[derive(Clone, Debug)]
pub(crate) struct DeadLetter {
    /// Index of the record in the producer's batch.
    pub(crate) source: u32,
    /// Digest of the module that failed.
    pub(crate) digest: Digest,
    /// Name and version of the module.
    pub(crate) module: Arc<str>,
    /// The error.
    pub(crate) error: String,
    /// Number of attempts.
    pub(crate) attempts: u32,
}

/// Names of the headers that a dead letter has after its source's own.
pub mod header {
    /// Topic of the source.
    pub const TOPIC: &str = "weir.source.topic";
    /// Partition of the source.
    pub const PARTITION: &str = "weir.source.partition";
    /// Offset of the source, with leading zeros.
    pub const OFFSET: &str = "weir.source.offset";
    /// Digest of the module that failed.
    pub const MODULE: &str = "weir.module";
    /// Name and version of the module that failed.
    pub const MODULE_NAME: &str = "weir.module.name";
    /// The error, cut to 1 KiB.
    pub const ERROR: &str = "weir.error";
    /// Number of attempts.
    pub const ATTEMPTS: &str = "weir.attempts";
    /// For a timer, instead of the source's offset: the time at which the timer was due.
    pub const TIMER: &str = "weir.timer";
    /// All header names. A dead letter has either of the last two.
    pub const ALL: [&str; 8] = [
        TOPIC,
        PARTITION,
        MODULE,
        MODULE_NAME,
        ERROR,
        ATTEMPTS,
        OFFSET,
        TIMER,
    ];
}

/// Headers that a dead letter adds: all but the unused name of `OFFSET` and `TIMER`.
const OWN_HEADERS: usize = header::ALL.len() - 1;

/// Upper bound for the bytes of the added headers.
const OWN_BYTES: usize = 4 << 10;

/// Longest error that a header keeps, in bytes.
const ERROR_BYTES_MAX: usize = 1 << 10;

/// Upper bound for the bytes of the header names, a digest, a topic's name and numbers.
const OWN_FIXED_BYTES: usize = 600;

/// Returns an upper bound for the bytes that a dead letter adds to its record.
pub(crate) fn own_bytes(module: &str, error: &str) -> usize {
    OWN_FIXED_BYTES + module.len() + error.len().min(ERROR_BYTES_MAX)
}

/// Origin of the records that dead letters are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provenance {
    /// Records of a batch that is not stored yet. Their offsets become known when the entry is made.
    Batch,
    /// Stored records.
    Stored,
    /// Timers.
    Timers,
}

/// Builds batches of dead letters, usually a single batch. The numbers beside each batch say where the
/// offsets of which sources belong.
///
/// A dead letter has the source's key, value, time and headers, followed by the headers of [`header`]. A dead
/// letter of a timer has `weir.timer` instead of an offset.
pub(crate) fn batches(
    letters: &[DeadLetter],
    (records, own_times): (&[RecordRef<'_>], &[i64]),
    (topic, partition): (&str, u32),
    provenance: Provenance,
) -> Vec<(BatchBuilder, Vec<(usize, u32)>)> {
    let mut batches: Vec<(BatchBuilder, Vec<(usize, u32)>)> = Vec::new();
    for letter in letters {
        let Some(record) = records.get(letter.source as usize) else {
            continue;
        };
        // A record with the maximum of headers loses the last ones.
        let most = RECORD_HEADERS_MAX as usize - OWN_HEADERS;
        let mut headers = HeaderBuf::copied_up_to(most, record.headers);
        let end = letter.error.floor_char_boundary(ERROR_BYTES_MAX);
        let error = letter.error.get(..end).unwrap_or_default();
        headers.push(header::TOPIC.as_bytes(), Some(topic.as_bytes()));
        headers.push(
            header::PARTITION.as_bytes(),
            Some(partition.to_string().as_bytes()),
        );
        headers.push(
            header::MODULE.as_bytes(),
            Some(letter.digest.to_string().as_bytes()),
        );
        headers.push(header::MODULE_NAME.as_bytes(), Some(letter.module.as_bytes()));
        headers.push(header::ERROR.as_bytes(), Some(error.as_bytes()));
        headers.push(
            header::ATTEMPTS.as_bytes(),
            Some(letter.attempts.to_string().as_bytes()),
        );
        // A record that arrived compressed may exceed the limit of a batch. Its dead letter is compressed, so
        // no offset can be written later.
        let is_large = record.bytes() + OWN_BYTES > RECORD_BYTES_MAX;
        match provenance {
            Provenance::Batch if is_large => {}
            Provenance::Batch => headers.push(header::OFFSET.as_bytes(), Some(&[b'0'; OFFSET_DIGITS])),
            Provenance::Stored => headers.push(
                header::OFFSET.as_bytes(),
                Some(record.offset.to_string().as_bytes()),
            ),
            Provenance::Timers => headers.push(
                header::TIMER.as_bytes(),
                Some(record.timestamp.to_string().as_bytes()),
            ),
        }
        let encoded = headers.encoded();
        let own_time = own_times.get(letter.source as usize);
        let letter = RecordRef {
            headers: HeaderBuf::view(&encoded),
            timestamp: own_time.copied().unwrap_or(record.timestamp),
            ..*record
        };
        let bytes = letter.bytes();
        if !batches.last().is_some_and(|(batch, _)| has_room(batch, bytes)) {
            batches.push((BatchBuilder::new(Codec::None), Vec::new()));
        }
        let Some((batch, slots)) = batches.last_mut() else {
            continue;
        };
        batch.push_ref(&letter);
        if provenance == Provenance::Batch && !is_large {
            // The last bytes of the record are the last header's value.
            slots.push((batch.bytes() - OFFSET_DIGITS, record.offset.get() as u32));
        }
    }
    batches
}
