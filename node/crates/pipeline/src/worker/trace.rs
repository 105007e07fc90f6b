//! What came out of a turn, line by line.

use crate::stages::dead_letter::Stem;
use crate::stages::effects::Effects;
use crate::stages::item::{Item, Made};
use std::hash::Hash;
use weir_types::{Offset, RecordRef};

/// Something that came out of a turn.
pub(crate) struct Line {
    /// Topic and offset of the record that it stems from; nothing for a timer.
    pub(crate) stem: Option<(String, Offset)>,
    pub(crate) what: What,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct What {
    pub(crate) output: String,
    pub(crate) made: Option<Made>,
    /// Of a dead letter.
    pub(crate) why: Option<String>,
}

impl Line {
    /// What it counts for in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        let made = self.what.made.as_ref().and_then(|made| made.value.as_ref());
        64 + made.map_or(0, bytes::Bytes::len)
    }
}

/// What `effects` are, line by line.
pub(crate) fn lines(
    effects: Effects,
    records: &[RecordRef<'_>],
    topic: &str,
    stem: Stem,
) -> impl Iterator<Item = Line> {
    let of = move |source: u32| match (stem, records.get(source as usize)) {
        (Stem::Stored, Some(record)) => Some((topic.to_owned(), record.offset)),
        _ => None,
    };
    let line = move |output: &str, item: Item| Line {
        stem: of(item.source),
        what: What {
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
    let dead = effects.dead.into_iter().map(move |letter| Line {
        stem: of(letter.source),
        what: What {
            output: "dead".to_owned(),
            made: None,
            why: Some(letter.error),
        },
    });
    main.chain(outputs).chain(dead)
}
