//! How a candidate and the live pipeline differ, for people.

use crate::worker::trace::OutputContent;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use weir_types::Offset;

/// Differences that are told of in full.
pub(crate) const EXAMPLES_MAX: usize = 10;

/// Bytes of a key or value that are told.
const TOLD_BYTES: usize = 200;

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shadowed {
    /// The pipeline's name.
    pub name: String,
    /// Seconds that it took.
    pub seconds: f64,
    /// What was tried.
    pub candidate: Side,
    /// The pipeline of that name as it is, if there is one.
    pub live: Option<Side>,
    /// Records of which the two make something else.
    pub differences: u64,
    /// The first of them.
    pub examples: Vec<Example>,
    /// Whether something else came of timers: their outputs are counted and summed up, not told.
    pub timers_differ: bool,
}

/// What one of the two did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub struct Side {
    pub revision: Option<u64>,
    pub records: u64,
    pub kept: u64,
    pub dropped: u64,
    pub emitted: u64,
    pub routed: BTreeMap<String, u64>,
    pub dead_letters: u64,
    pub skipped: u64,
    pub failures: u64,
    pub timers_fired: u64,
    pub wasm_ns: u64,
    /// Why it stopped before the end.
    pub halted: Option<String>,
}

/// A record of which the two make something else.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub struct Example {
    pub topic: String,
    pub partition: u32,
    pub offset: Offset,
    pub live: Vec<Told>,
    pub candidate: Vec<Told>,
}

/// A record that came out, for people: text where it is some, and not all of it where it is long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The output; `dead` for dead letters.
    pub output: String,
    /// Its key; nothing for one that is as it came.
    pub key: Option<String>,
    /// Its value; nothing for one that is as it came. Of a dead letter, why.
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
