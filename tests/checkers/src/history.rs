//! Histories of clients, one JSON object a line.

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

/// Outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The call took effect.
    Ok,
    /// The call was refused: no effect may show.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// A record that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Place of the record.
    pub offset: u64,
    /// Value: unique in a history.
    pub value: u64,
}

/// A call of a client. A history is in the order of completion; calls of the same client stand in their
/// order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// `client` sent `value`.
    Send {
        /// Client of the call.
        client: u32,
        /// Partition of the record.
        #[serde(flatten)]
        place: Place,
        /// Value of the record.
        value: u64,
        /// Outcome of the call.
        outcome: Outcome,
        /// Acknowledged offset, if acknowledged.
        offset: Option<u64>,
    },
    /// Moves `client` to `offset`: the next read need not follow the last.
    Seek {
        /// Client of the call.
        client: u32,
        /// Of which.
        #[serde(flatten)]
        place: Place,
        /// From where.
        offset: u64,
    },
    /// `client` read records.
    Poll {
        /// Client of the call.
        client: u32,
        /// From which.
        #[serde(flatten)]
        place: Place,
        /// Records in the order of their arrival.
        records: Vec<Seen>,
    },
    /// A group's offset was committed.
    Commit {
        /// Group of the offset.
        group: String,
        /// Of which.
        #[serde(flatten)]
        place: Place,
        /// The next to be read.
        offset: u64,
        /// Outcome of the call.
        outcome: Outcome,
    },
    /// A group's committed offset was asked for.
    Committed {
        /// Group of the offset.
        group: String,
        /// Of which.
        #[serde(flatten)]
        place: Place,
        /// The answer, if any.
        offset: Option<u64>,
    },
    /// All that `node` has of a partition when everything has come to rest.
    Final {
        /// Number of the node.
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
/// Names the first line that is not an event.
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
