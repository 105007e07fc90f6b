//! What a module remembers of one partition, with what it changed since: the whole of it in memory.
//!
//! Reads never wait for a disk, a scan is a walk, and what a failed call wrote is taken back row by row. The durable form
//! is rows of the log, and is somebody else's: it takes [`Table::changes`] once a batch.

use std::collections::BTreeMap;
use std::ops::Bound;
use weir_types::limits::STATE_CHANGES_BYTES_MAX;

/// Longest key, in bytes.
pub const STATE_KEY_BYTES_MAX: usize = 4 << 10;
/// Longest value, in bytes.
pub const STATE_VALUE_BYTES_MAX: usize = 1 << 20;
/// What a row costs beyond its bytes, about: two allocations and its share of a tree's node. Counted against the quota,
/// or a million empty values would be free.
const ROW_BYTES: usize = 64;

type Key = Box<[u8]>;
type Value = Box<[u8]>;

/// Rows of bytes, and a way back. See the module's docs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    rows: BTreeMap<Key, Value>,
    /// What each changed row was before, in the order of the changes.
    journal: Vec<(Key, Option<Value>)>,
    /// Bytes of keys and values that changed, those that were taken back left out.
    changed: usize,
    bytes: usize,
    bytes_max: usize,
}

/// A place to come back to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    changes: usize,
    changed: usize,
}

/// Why a row was not written. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum StateError {
    #[error("a key of its state has {0} bytes; at most {STATE_KEY_BYTES_MAX} are allowed")]
    Key(usize),
    #[error("a value of its state has {0} bytes; at most {STATE_VALUE_BYTES_MAX} are allowed")]
    Value(usize),
    #[error(
        "its state has reached {0} bytes: have it remove what it does not need, or raise `limits.state_bytes`"
    )]
    Quota(usize),
    #[error("a batch changes more than {STATE_CHANGES_BYTES_MAX} bytes of its state: send smaller ones")]
    Changes,
}

impl Table {
    /// An empty one that may grow to about `bytes_max` bytes of memory.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            ..Self::default()
        }
    }

    /// Adds a row that is stored already. Not a change, and taken whatever the quota is now.
    pub fn load(&mut self, key: &[u8], value: &[u8]) {
        self.bytes += cost(key, value);
        if let Some(old) = self.rows.insert(key.into(), value.into()) {
            self.bytes -= cost(key, &old);
        }
    }

    /// The value under `key`.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.rows.get(key).map(AsRef::as_ref)
    }

    /// Sets the value under `key`, or removes it.
    ///
    /// # Errors
    /// When it would be too large.
    pub fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StateError> {
        if key.len() > STATE_KEY_BYTES_MAX {
            return Err(StateError::Key(key.len()));
        }
        let changed = self.changed + key.len() + value.map_or(0, <[u8]>::len);
        if changed > STATE_CHANGES_BYTES_MAX {
            return Err(StateError::Changes);
        }
        let Some(value) = value else {
            self.changed = changed;
            if let Some((key, old)) = self.rows.remove_entry(key) {
                self.bytes -= cost(&key, &old);
                self.journal.push((key, Some(old)));
            }
            return Ok(());
        };
        if value.len() > STATE_VALUE_BYTES_MAX {
            return Err(StateError::Value(value.len()));
        }
        match self.rows.get_mut(key) {
            Some(slot) => {
                let bytes = self.bytes - slot.len() + value.len();
                // What does not grow is taken: a quota that was lowered must not stop a module that shrinks.
                if bytes > self.bytes_max && value.len() > slot.len() {
                    return Err(StateError::Quota(self.bytes_max));
                }
                self.bytes = bytes;
                let old = std::mem::replace(slot, value.into());
                self.journal.push((key.into(), Some(old)));
            }
            None => {
                let bytes = self.bytes + cost(key, value);
                if bytes > self.bytes_max {
                    return Err(StateError::Quota(self.bytes_max));
                }
                self.bytes = bytes;
                self.rows.insert(key.into(), value.into());
                self.journal.push((key.into(), None));
            }
        }
        self.changed = changed;
        Ok(())
    }

    /// Rows whose keys begin with `prefix` and come after `after`, ascending.
    pub fn scan<'a>(
        &'a self,
        prefix: &'a [u8],
        after: Option<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.rows
            .range::<[u8], _>((from, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (&**key, &**value))
    }

    /// A place to come back to.
    pub fn mark(&self) -> Mark {
        Mark {
            changes: self.journal.len(),
            changed: self.changed,
        }
    }

    /// Takes back what changed since `mark`.
    pub fn roll_back(&mut self, mark: Mark) {
        self.changed = self.changed.min(mark.changed);
        while self.journal.len() > mark.changes {
            let Some((key, old)) = self.journal.pop() else {
                return;
            };
            let now = match old {
                Some(old) => {
                    self.bytes += cost(&key, &old);
                    self.rows.insert(key.clone(), old)
                }
                None => self.rows.remove(&key),
            };
            self.bytes -= now.map_or(0, |now| cost(&key, &now));
        }
    }

    /// What each row that changed since the last time says now, by key; there is no way back behind it.
    pub fn changes(&mut self) -> BTreeMap<Box<[u8]>, Option<&[u8]>> {
        self.changed = 0;
        let changed = std::mem::take(&mut self.journal).into_iter();
        changed
            .map(|(key, _)| {
                let now = self.rows.get(&key).map(AsRef::as_ref);
                (key, now)
            })
            .collect()
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of memory that it takes, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn cost(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + ROW_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn op() -> impl Strategy<Value = (u8, Option<Vec<u8>>)> {
        (
            0..20u8,
            proptest::option::of(proptest::collection::vec(any::<u8>(), 0..8)),
        )
    }

    proptest! {
        /// Against a plain map: what is kept, what is taken back, and what is told of it.
        #[test]
        fn it_is_a_map_with_a_way_back(kept in proptest::collection::vec(op(), 0..30), undone in proptest::collection::vec(op(), 0..30)) {
            let mut table = Table::new(usize::MAX);
            let mut model = BTreeMap::new();
            table.load(&[7], b"stored");
            model.insert(vec![7], b"stored".to_vec());
            for (key, value) in &kept {
                table.put(&[*key], value.as_deref()).unwrap();
                match value {
                    Some(v) => drop(model.insert(vec![*key], v.clone())),
                    None => drop(model.remove(&vec![*key])),
                }
            }
            let mark = table.mark();
            for (key, value) in &undone {
                table.put(&[*key], value.as_deref()).unwrap();
            }
            table.roll_back(mark);
            let rows: Vec<_> = table.scan(&[], None).map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
            prop_assert_eq!(&rows, &model.clone().into_iter().collect::<Vec<_>>());
            let bytes: usize = model.iter().map(|(k, v)| cost(k, v)).sum();
            prop_assert_eq!(table.bytes(), bytes);
            // The changes make of what was stored what there is.
            let mut stored = BTreeMap::from([(vec![7], b"stored".to_vec())]);
            for (key, value) in table.changes() {
                match value {
                    Some(v) => drop(stored.insert(key.to_vec(), v.to_vec())),
                    None => drop(stored.remove(&key.to_vec())),
                }
            }
            prop_assert_eq!(stored, model);
            prop_assert!(table.changes().is_empty());
        }
    }

    #[test]
    fn scans_go_on_after_a_key() {
        let mut table = Table::new(usize::MAX);
        for key in ["a", "b1", "b2", "b3", "c"] {
            table.put(key.as_bytes(), Some(b"")).unwrap();
        }
        let keys = |prefix: &str, after: Option<&str>| {
            let rows = table.scan(prefix.as_bytes(), after.map(str::as_bytes));
            rows.map(|(k, _)| String::from_utf8_lossy(k).into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(keys("b", None), ["b1", "b2", "b3"]);
        assert_eq!(keys("b", Some("b2")), ["b3"]);
        assert_eq!(keys("b", Some("a")), ["b1", "b2", "b3"]);
        assert_eq!(keys("b", Some("c")), [""; 0]);
        assert_eq!(keys("", Some("b3")), ["c"]);
    }

    #[test]
    fn what_is_too_large_changes_nothing() {
        let mut table = Table::new(200);
        table.put(b"a", Some(&[1; 50])).unwrap();
        assert_eq!(table.put(b"b", Some(&[1; 50])), Err(StateError::Quota(200)));
        assert_eq!(table.put(b"a", Some(&[1; 150])), Err(StateError::Quota(200)));
        assert_eq!(table.put(&[0; 4097], None), Err(StateError::Key(4097)));
        assert_eq!(
            table.put(b"a", Some(&vec![0; (1 << 20) + 1])),
            Err(StateError::Value((1 << 20) + 1))
        );
        table.put(b"a", Some(&[2; 40])).unwrap();
        let mark = table.mark();
        for _ in 0..STATE_CHANGES_BYTES_MAX / 50 - 2 {
            table.put(b"a", Some(&[3; 49])).unwrap();
        }
        assert_eq!(table.put(b"a", Some(&[3; 100])), Err(StateError::Changes));
        table.roll_back(mark);
        assert_eq!((table.get(b"a"), table.len()), (Some(&[2; 40][..]), 1));
    }
}
