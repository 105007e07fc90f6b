//! Counts of unsupported requests by client, for operators.

use std::collections::BTreeMap;
use weir_types::limits::UNSERVED_MAX;
use weir_types::sync::Mutex;

/// An unsupported request, with its version and the client's software.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unserved {
    /// Name of the request, or its number if unknown.
    pub request: String,
    /// Version of the request.
    pub version: i16,
    /// Name and version of the client's software, if given.
    pub client: String,
}

/// Counts by request, version and client.
#[derive(Debug, Default)]
pub struct UnservedCounts(Mutex<BTreeMap<Unserved, u64>>);

impl UnservedCounts {
    /// Counts a request. Beyond [`UNSERVED_MAX`] kinds, all others count as `other`.
    pub fn count(&self, asked: Unserved) {
        let mut counts = self.0.lock();
        let is_room = counts.len() < UNSERVED_MAX;
        let asked = if counts.contains_key(&asked) || is_room {
            asked
        } else {
            Unserved {
                request: "other".to_owned(),
                version: -1,
                client: String::new(),
            }
        };
        *counts.entry(asked).or_default() += 1;
    }

    /// Returns all counts.
    pub fn all(&self) -> Vec<(Unserved, u64)> {
        let counts = self.0.lock();
        counts.iter().map(|(asked, n)| (asked.clone(), *n)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_only_so_many_kinds() {
        let counts = UnservedCounts::default();
        for n in 0..3 * UNSERVED_MAX {
            let asked = Unserved {
                request: n.to_string(),
                version: 0,
                client: String::new(),
            };
            counts.count(asked.clone());
            counts.count(asked);
        }
        let all = counts.all();
        assert_eq!(all.len(), UNSERVED_MAX + 1);
        assert_eq!(all.iter().map(|(_, n)| *n).sum::<u64>(), 6 * UNSERVED_MAX as u64);
    }
}
