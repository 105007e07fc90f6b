//! Observed outputs of a shadow run.

use crate::stages::dead_letter::Provenance;
use crate::stages::effects::Effects;
use crate::stages::item::{InFlight, NewRecord};
use std::hash::Hash;
use weir_types::{Offset, RecordRef};

/// An output observed in a shadow run.
pub(crate) struct ObservedOutput {
    /// Topic and offset of the source record, or `None` for a timer.
    pub(crate) provenance: Option<(String, Offset)>,
    pub(crate) content: OutputContent,
}

/// Content of an observed output.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct OutputContent {
    pub(crate) output: String,
    pub(crate) made: Option<NewRecord>,
    /// The error of a dead letter.
    pub(crate) why: Option<String>,
}

impl ObservedOutput {
    /// Returns the estimated bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        let made = self.content.made.as_ref().and_then(|made| made.value.as_ref());
        64 + made.map_or(0, bytes::Bytes::len)
    }
}

/// Splits `effects` into observed outputs.
pub(crate) fn lines(
    effects: Effects,
    records: &[RecordRef<'_>],
    topic: &str,
    provenance: Provenance,
) -> impl Iterator<Item = ObservedOutput> {
    let of = move |source: u32| match (provenance, records.get(source as usize)) {
        (Provenance::Stored, Some(record)) => Some((topic.to_owned(), record.offset)),
        _ => None,
    };
    let line = move |output: &str, item: InFlight| ObservedOutput {
        provenance: of(item.source),
        content: OutputContent {
            output: output.to_owned(),
            made: item.made,
            why: None,
        },
    };
    let main = effects.main.into_iter().map(move |item| line("main", item));
    let outputs = effects.outputs.into_iter();
    let outputs = outputs.flat_map(move |(output, items)| {
        let items: Vec<_> = items.into_iter().map(|item| line(&output, item)).collect();
        items
    });
    let dead = effects.dead.into_iter().map(move |letter| ObservedOutput {
        provenance: of(letter.source),
        content: OutputContent {
            output: "dead".to_owned(),
            made: None,
            why: Some(letter.error),
        },
    });
    main.chain(outputs).chain(dead)
}
