//! Result of a shadow run, for operators.

use crate::worker::trace::OutputContent;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use weir_types::Offset;

/// Largest number of differences that are shown.
pub(crate) const EXAMPLES_MAX: usize = 10;

/// Bytes of a key or value that are shown.
const TOLD_BYTES: usize = 200;

/// Result of a shadow run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shadowed {
    /// Name of the pipeline.
    pub name: String,
    /// Duration, in seconds.
    pub seconds: f64,
    /// Counters of the candidate.
    pub candidate: Side,
    /// Counters of the live pipeline, if there is one.
    pub live: Option<Side>,
    /// Number of records with different outputs.
    pub differences: u64,
    /// The first differences.
    pub examples: Vec<Example>,
    /// Outputs of timers differ. They are counted and hashed, but not shown.
    pub timers_differ: bool,
}

/// Counters of a side of a shadow run. `wasm_ns` is in nanoseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Side {
    /// Revision, for the live pipeline.
    pub revision: Option<u64>,
    /// Records processed.
    pub records: u64,
    /// Records that stayed unchanged in the stream.
    pub kept: u64,
    /// Records that are in no output.
    pub dropped: u64,
    /// New records in the stream.
    pub emitted: u64,
    /// Records by named output.
    pub routed: BTreeMap<String, u64>,
    /// Records that became dead letters.
    pub dead_letters: u64,
    /// Records dropped by the `skip` policy.
    pub skipped: u64,
    /// Failed calls of modules.
    pub failures: u64,
    /// Timers that have fired.
    pub timers_fired: u64,
    /// Nanoseconds spent in modules.
    pub wasm_ns: u64,
    /// Reason for an early halt.
    pub halted: Option<String>,
}

/// A record with different outputs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Example {
    /// Source topic.
    pub topic: String,
    /// Source partition.
    pub partition: u32,
    /// Offset of the source record.
    pub offset: Offset,
    /// Outputs of the live pipeline.
    pub live: Vec<Told>,
    /// Outputs of the candidate.
    pub candidate: Vec<Told>,
}

/// An output for display, as text, cut to 200 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Name of the output, or `dead` for a dead letter.
    pub output: String,
    /// Key, or `None` for an unchanged record.
    pub key: Option<String>,
    /// Value, or `None` for an unchanged record. For a dead letter, the error.
    pub value: Option<String>,
}

pub(crate) fn told(what: &OutputContent) -> Told {
    let text = |bytes: &bytes::Bytes| {
        let cut = bytes.get(..TOLD_BYTES).map(String::from_utf8_lossy);
        match cut {
            Some(cut) => format!("{cut}…"),
            None => String::from_utf8_lossy(bytes).into_owned(),
        }
    };
    let made = what.made.as_ref();
    Told {
        output: what.output.clone(),
        key: made.and_then(|made| made.key.as_ref().map(text)),
        value: what
            .why
            .clone()
            .or_else(|| made.and_then(|made| made.value.as_ref().map(text))),
    }
}
