//! What clients did and saw, one JSON object a line.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Its topic.
    pub topic: String,
    /// Its number there.
    pub partition: u32,
}

/// What became of something that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Ok,
    /// It was refused: it must not have happened.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// A record that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Where.
    pub offset: u64,
    /// What: every value is sent once in a history.
    pub value: u64,
}

/// One thing that a client did. The order of a history is that of completion; what one client did stands in its order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// `client` sent `value`.
    Send {
        /// Who.
        client: u32,
        /// Where to.
        #[serde(flatten)]
        place: Place,
        /// What.
        value: u64,
        /// What became of it.
        outcome: Outcome,
        /// Where it was said to lie, if that was said.
        offset: Option<u64>,
    },
    /// `client` was told to read from `offset` on: what it reads next need not follow what it read before.
    Seek {
        /// Who.
        client: u32,
        /// Of which.
        #[serde(flatten)]
        place: Place,
        /// From where.
        offset: u64,
    },
    /// `client` read records.
    Poll {
        /// Who.
        client: u32,
        /// From which.
        #[serde(flatten)]
        place: Place,
        /// What, in the order that it came in.
        records: Vec<Seen>,
    },
    /// A group's offset was committed.
    Commit {
        /// Whose.
        group: String,
        /// Of which.
        #[serde(flatten)]
        place: Place,
        /// The next to be read.
        offset: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// A group's committed offset was asked for.
    Committed {
        /// Whose.
        group: String,
        /// Of which.
        #[serde(flatten)]
        place: Place,
        /// The answer, if there is one.
        offset: Option<u64>,
    },
    /// All that `node` has of a partition when everything has come to rest.
    Final {
        /// Which node.
        node: u32,
        /// Of which.
        #[serde(flatten)]
        place: Place,
        /// All records, by offset.
        records: Vec<Seen>,
    },
}

/// Reads a history.
///
/// # Errors
/// Names the first line that is none of it.
pub fn read(from: impl BufRead) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    for (n, line) in from.lines().enumerate() {
        let line = line?;
        if !line.trim().is_empty() {
            events.push(serde_json::from_str(&line).with_context(|| format!("line {}", n + 1))?);
        }
    }
    Ok(events)
}

/// Writes a history.
///
/// # Errors
/// Those of `to`.
pub fn write(events: &[Event], to: &mut impl Write) -> Result<()> {
    for event in events {
        serde_json::to_writer(&mut *to, event)?;
        to.write_all(b"\n")?;
    }
    Ok(())
}
