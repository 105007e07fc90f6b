//! Records that a module failed on or refused, with what happened in their headers.

use crate::stages::batches::has_room;
use std::sync::Arc;
use weir_broker::OFFSET_DIGITS;
use weir_runtime::Digest;
use weir_types::limits::{RECORD_BYTES_MAX, RECORD_HEADERS_MAX};
use weir_types::{BatchBuilder, Codec, HeaderBuf, RecordRef};

/// One dead letter.
#[derive(Clone, Debug)]
pub(crate) struct DeadLetter {
    /// Index in the producer's batch.
    pub(crate) source: u32,
    /// The module that failed on it.
    pub(crate) digest: Digest,
    /// Its name and version.
    pub(crate) module: Arc<str>,
    /// What happened.
    pub(crate) error: String,
    /// How often it was tried.
    pub(crate) attempts: u32,
}

/// The headers that a dead letter has behind its source's own, by their names.
pub mod header {
    /// The topic of the source.
    pub const TOPIC: &str = "weir.source.topic";
    /// The partition of the source.
    pub const PARTITION: &str = "weir.source.partition";
    /// The offset of the source, with zeros in front.
    pub const OFFSET: &str = "weir.source.offset";
    /// The digest of the module that failed on it.
    pub const MODULE: &str = "weir.module";
    /// The name and version of that module.
    pub const MODULE_NAME: &str = "weir.module.name";
    /// What happened.
    pub const ERROR: &str = "weir.error";
    /// How often it was tried.
    pub const ATTEMPTS: &str = "weir.attempts";
    /// When the timer was due that it comes of, instead of the source's offset.
    pub const TIMER: &str = "weir.timer";
    /// All of these. A letter has one of the last two.
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

/// Headers that a dead letter has more than its source: of where a timer or a record comes from, it has one.
const OWN_HEADERS: usize = header::ALL.len() - 1;

/// Bytes of those, at most: an error, and names and numbers.
const OWN_BYTES: usize = 4 << 10;

/// Longest error that a header keeps.
const ERROR_BYTES_MAX: usize = 1 << 10;

/// Names of its headers, a digest, a topic's name and numbers.
const OWN_FIXED_BYTES: usize = 600;

/// What a dead letter has more than its record, at most.
pub(crate) fn own_bytes(module: &str, error: &str) -> usize {
    OWN_FIXED_BYTES + module.len() + error.len().min(ERROR_BYTES_MAX)
}

/// What the records are that dead letters stem from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provenance {
    /// Of a batch that is not stored yet: their offsets become known when its entry is made.
    Batch,
    /// Stored.
    Stored,
    /// Timers.
    Timers,
}

/// Dead letters as batches, one as a rule, and the places in each where the source's offsets belong: a record each, with the
/// source's key, value, time and headers, and `weir.source.topic`, `weir.source.partition`, `weir.module`,
/// `weir.module.name`, `weir.error`, `weir.attempts` and `weir.source.offset` behind those. Of a timer there is no offset: `weir.timer` says when it
/// was due.
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
        // Of a record that has as many as may be, the last ones make room.
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
        // What came in compressed may be larger than a batch may be that is not; and into one that is nothing can be written later.
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
