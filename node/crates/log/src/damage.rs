//! What a log lacks.

use std::fmt;
use weir_types::{Gap, PartitionId};

/// What is missing, exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Offsets whose records are lost.
    pub lost: Vec<(PartitionId, Gap)>,
    /// What else was found.
    pub notes: Vec<String>,
}

impl Damage {
    /// Whether nothing is missing.
    pub fn is_none(&self) -> bool {
        self.lost.is_empty() && self.notes.is_empty()
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = self
            .lost
            .iter()
            .map(|(p, g)| format!("partition {p}: lost [{}, {})", g.start, g.end));
        let all: Vec<String> = lost.chain(self.notes.iter().cloned()).collect();
        f.write_str(&if all.is_empty() {
            "nothing".to_owned()
        } else {
            all.join("; ")
        })
    }
}
