//! A module's state for a partition, rows and timers, with the changes since the last batch: all of it in
//! memory.
//!
//! Reads never wait for a disk, a scan is a walk, and writes of a failed call are taken back row by row. The
//! durable form is rows of the log, written by the caller, who takes [`Table::changes`] once per batch.

use crate::error::StateError;
use crate::limits::{STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX};
use crate::state::quota::{Quota, Share};
use crate::state::timers::{Clocks, Timer, TimerClock, Timers};
use smallvec::SmallVec;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use weir_types::limits::STATE_CHANGES_BYTES_MAX;

/// Approximate cost of a row beyond its bytes: a slot of 56, its place among hashes and in the order of 64,
/// and an allocation. Counted against the quota, or a million empty values would be free.
const ROW_BYTES: usize = 128;

type Key = Arc<[u8]>;
/// Most values are a number or two, which need no allocation in the table or the journal.
type Value = SmallVec<[u8; 16]>;

/// Rows of bytes, with roll-back: see the module's docs.
///
/// Rows are looked up by hash, the cost of each record. The order is kept apart, and changes only when a key
/// comes or goes.
#[derive(Clone, Debug)]
pub struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slot of each key. No answer depends on the order of this map.
    by_hash: HashMap<Key, u32, foldhash::fast::RandomState>,
    by_key: BTreeMap<Key, u32>,
    /// Changed slots since [`Table::take_changes`], each once, in the order of first changes.
    changed: Vec<u32>,
    journal: Vec<Change>,
    clocks: Clocks,
    /// Bytes of changed keys and values, without those taken back.
    changed_bytes: usize,
    /// Changed bytes at the begin of the batch.
    changed_before: usize,
    /// All rows may change.
    is_migrating: bool,
    rows: usize,
    bytes: usize,
    share: Share,
}

#[derive(Clone, Debug)]
struct Slot {
    key: Key,
    /// `None` for a removed row, which keeps its slot until the removal is passed on or taken back.
    value: Option<Value>,
    is_changed: bool,
}

/// A step of a roll-back.
#[derive(Clone, Debug)]
struct Change {
    slot: u32,
    old: Option<Value>,
    /// Effect of the step besides the value.
    did: Did,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Did {
    /// Created the slot.
    Create,
    /// Changed the slot for the first time.
    Touch,
    /// No other effect.
    Again,
}

/// A point to roll back to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    changes: usize,
    timers: usize,
    changed: usize,
}

impl Table {
    /// Makes an empty table of at most about `bytes_max` bytes of memory.
    pub fn new(bytes_max: usize) -> Self {
        Self::within(&Quota::alone(bytes_max))
    }

    /// Makes an empty table that shares `quota`.
    pub fn within(quota: &Quota) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_hash: HashMap::default(),
            by_key: BTreeMap::new(),
            changed: Vec::new(),
            journal: Vec::new(),
            clocks: Clocks::default(),
            changed_bytes: 0,
            changed_before: 0,
            is_migrating: false,
            rows: 0,
            bytes: 0,
            share: Share::of(quota),
        }
    }

    /// Adds a stored row. Not a change, and accepted whatever the quota.
    pub fn load(&mut self, key: &[u8], value: &[u8]) {
        let slot = match self.by_hash.get(key) {
            Some(slot) => *slot,
            None => self.create(key),
        };
        self.set(slot, Some(value.into()));
        self.share.have(self.bytes());
    }

    /// Returns the value under `key`.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.value(*self.by_hash.get(key)?)
    }

    /// Sets the value under `key`, or removes it.
    ///
    /// # Errors
    /// Fails when the table would be too large.
    pub fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), StateError> {
        if key.len() > STATE_KEY_BYTES_MAX {
            return Err(StateError::Key(key.len()));
        }
        let len = value.map_or(0, <[u8]>::len);
        if len > STATE_VALUE_BYTES_MAX {
            return Err(StateError::Value(len));
        }
        let changed_bytes = self.changed_bytes + key.len() + len;
        if !self.is_migrating && changed_bytes - self.changed_before > STATE_CHANGES_BYTES_MAX {
            return Err(StateError::Changes);
        }
        let slot = self.by_hash.get(key).copied();
        let before = slot.and_then(|slot| self.value(slot));
        let bytes_before = before.map_or(0, |old| row_bytes(key, old));
        let bytes = value.map_or(0, |value| row_bytes(key, value));
        self.check_quota(bytes_before, bytes)?;
        self.changed_bytes = changed_bytes;
        let (slot, did) = match slot {
            Some(slot) if self.is_changed(slot) => (slot, Did::Again),
            Some(slot) => (slot, Did::Touch),
            None if value.is_none() => return Ok(()),
            None => (self.create(key), Did::Create),
        };
        if did != Did::Again {
            self.changed.push(slot);
            self.mark_changed(slot, true);
        }
        let old = self.set(slot, value.map(SmallVec::from_slice));
        self.journal.push(Change { slot, old, did });
        Ok(())
    }

    /// Returns the rows whose keys begin with `prefix` and come after `after`, ascending.
    pub fn scan<'a>(
        &'a self,
        prefix: &'a [u8],
        after: Option<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.by_key
            .range::<[u8], _>((from, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .filter_map(|(key, slot)| Some((&**key, self.value(*slot)?)))
    }

    /// Begins a batch: its changes are counted from here.
    pub fn begin_batch(&mut self) {
        self.changed_before = self.changed_bytes;
    }

    /// Makes all loaded rows changes of the next batch, for a caller that writes them elsewhere.
    pub fn touch_all(&mut self) {
        let slots: Vec<u32> = self.by_key.values().copied().collect();
        for slot in slots {
            if !self.is_changed(slot) {
                self.changed.push(slot);
                self.mark_changed(slot, true);
            }
        }
        self.clocks.touch_all();
    }

    /// Allows changes to all rows: a migration is not part of an entry of records.
    pub(crate) fn begin_migration(&mut self) {
        self.is_migrating = true;
    }

    /// Returns the bytes of keys and values changed since [`Table::take_changes`].
    pub fn changed_bytes(&self) -> usize {
        self.changed_bytes
    }

    /// Returns the number of rows and timers changed since [`Table::take_changes`].
    pub fn changed_rows(&self) -> usize {
        self.changed.len() + self.clocks.mark()
    }

    /// Returns a point to roll back to.
    pub fn mark(&self) -> Mark {
        Mark {
            changes: self.journal.len(),
            timers: self.clocks.mark(),
            changed: self.changed_bytes,
        }
    }

    /// Takes back all changes since `mark`.
    pub fn roll_back(&mut self, mark: Mark) {
        self.changed_bytes = self.changed_bytes.min(mark.changed);
        self.clocks.roll_back(mark.timers);
        while self.journal.len() > mark.changes {
            let Some(Change { slot, old, did }) = self.journal.pop() else {
                return;
            };
            self.set(slot, old);
            if did != Did::Again {
                // The last slot was touched first: all later slots have been taken back.
                self.changed.pop();
                self.mark_changed(slot, false);
            }
            if did == Did::Create {
                self.destroy(slot);
            }
        }
    }

    /// Passes the present value of every changed row to `each`. Earlier marks become invalid.
    pub fn take_changes(&mut self, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
        (self.changed_bytes, self.changed_before) = (0, 0);
        self.journal.clear();
        self.share.settle(self.bytes());
        for slot in std::mem::take(&mut self.changed) {
            let Some(row) = self.slots.get_mut(slot as usize) else {
                continue;
            };
            row.is_changed = false;
            each(&row.key, row.value.as_deref());
            if row.value.is_none() {
                self.destroy(slot);
            }
        }
    }

    /// Adds a stored timer.
    pub fn load_timer(&mut self, clock: TimerClock, key: &[u8], tag: u32, at: i64) {
        self.clocks.load(clock, key, tag, at);
        self.share.have(self.bytes());
    }

    /// Sets the timer for `key` and `tag`, or clears it.
    ///
    /// # Errors
    /// Fails when the table would be too large.
    pub fn set_timer(
        &mut self,
        clock: TimerClock,
        key: &[u8],
        tag: u32,
        at: Option<i64>,
    ) -> Result<(), StateError> {
        if key.len() > STATE_KEY_BYTES_MAX {
            return Err(StateError::Key(key.len()));
        }
        let changed_bytes = self.changed_bytes + key.len() + size_of::<i64>();
        if !self.is_migrating && changed_bytes - self.changed_before > STATE_CHANGES_BYTES_MAX {
            return Err(StateError::Changes);
        }
        if at.is_some() && self.clocks.see(clock).get(key, tag).is_none() {
            self.check_quota(0, Timers::cost(key))?;
        }
        self.changed_bytes = changed_bytes;
        self.clocks.set(clock, key, tag, at);
        Ok(())
    }

    /// Returns the time of the first timer of `clock`.
    pub fn first_due(&self, clock: TimerClock) -> Option<i64> {
        self.clocks.see(clock).first().map(|timer| timer.at)
    }

    /// Clears and returns the first timer, if due by `until`.
    pub fn pop_due(&mut self, clock: TimerClock, until: i64) -> Option<Timer> {
        self.clocks.pop(clock, until)
    }

    /// Passes the present time of every changed timer to `each`. Earlier marks become invalid.
    pub fn take_timer_changes(&mut self, each: impl FnMut(TimerClock, &[u8], u32, Option<i64>)) {
        self.clocks.take_changes(each);
    }

    /// Returns the number of set timers.
    pub fn timers(&self) -> usize {
        self.clocks.len()
    }

    /// Shrinking is always allowed: a lowered quota must not stop a module that shrinks.
    fn check_quota(&mut self, before: usize, after: usize) -> Result<(), StateError> {
        if after > before {
            self.share.need(self.bytes() - before + after)
        } else {
            Ok(())
        }
    }

    fn value(&self, slot: u32) -> Option<&[u8]> {
        self.slots.get(slot as usize)?.value.as_deref()
    }

    fn is_changed(&self, slot: u32) -> bool {
        self.slots.get(slot as usize).is_some_and(|row| row.is_changed)
    }

    fn mark_changed(&mut self, slot: u32, is_changed: bool) {
        if let Some(row) = self.slots.get_mut(slot as usize) {
            row.is_changed = is_changed;
        }
    }

    /// Sets the value in `slot` and returns the earlier value.
    fn set(&mut self, slot: u32, value: Option<Value>) -> Option<Value> {
        let row = self.slots.get_mut(slot as usize)?;
        let old = std::mem::replace(&mut row.value, value);
        let bytes = |value: &Option<Value>| value.as_ref().map_or(0, |value| row_bytes(&row.key, value));
        self.bytes = self.bytes + bytes(&row.value) - bytes(&old);
        self.rows = self.rows + usize::from(row.value.is_some()) - usize::from(old.is_some());
        old
    }

    /// Creates an empty slot for the new `key`.
    fn create(&mut self, key: &[u8]) -> u32 {
        let key = Key::from(key);
        let row = Slot {
            key: Arc::clone(&key),
            value: None,
            is_changed: false,
        };
        let free = self.free.pop();
        let slot = free.unwrap_or(self.slots.len() as u32);
        match self.slots.get_mut(slot as usize) {
            Some(place) => *place = row,
            None => self.slots.push(row),
        }
        self.by_hash.insert(Arc::clone(&key), slot);
        self.by_key.insert(key, slot);
        slot
    }

    /// Removes an empty slot.
    fn destroy(&mut self, slot: u32) {
        if let Some(row) = self.slots.get_mut(slot as usize) {
            let key = std::mem::take(&mut row.key);
            self.by_hash.remove(&key);
            self.by_key.remove(&key);
            self.free.push(slot);
        }
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Returns true without rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Returns the approximate bytes of memory of the whole table.
    pub fn bytes(&self) -> usize {
        self.bytes + self.clocks.bytes()
    }
}

/// Returns the approximate bytes of memory of a row.
pub fn row_bytes(key: &[u8], value: &[u8]) -> usize {
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
        /// Against a plain map: kept rows, taken back rows, and reported changes.
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
            let bytes: usize = model.iter().map(|(k, v)| row_bytes(k, v)).sum();
            prop_assert_eq!(table.bytes(), bytes);
            // The changes turn the stored rows into the present rows.
            let mut stored = BTreeMap::from([(vec![7], b"stored".to_vec())]);
            table.take_changes(|key, value| match value {
                Some(v) => drop(stored.insert(key.to_vec(), v.to_vec())),
                None => drop(stored.remove(key)),
            });
            prop_assert_eq!(&stored, &model);
            table.take_changes(|key, _| panic!("{key:?} has not changed"));
            // Removed rows leave nothing behind.
            let rows = model.len();
            prop_assert_eq!((table.by_hash.len(), table.by_key.len(), table.slots.len() - table.free.len()), (rows, rows, rows));
        }
    }

    #[test]
    fn timers_have_a_way_back_and_a_quota() {
        let (mut table, clock) = (Table::new(200), TimerClock::Event);
        table.load_timer(clock, b"stored", 1, 7);
        table.set_timer(clock, b"kept", 0, Some(5)).unwrap();
        let mark = table.mark();
        assert_eq!(table.pop_due(clock, 4), None);
        assert_eq!(
            table.pop_due(clock, 5).map(|t| t.key.to_vec()),
            Some(b"kept".to_vec())
        );
        table.set_timer(clock, b"stored", 1, Some(1)).unwrap();
        table
            .set_timer(TimerClock::Processing, b"new", 0, Some(3))
            .unwrap();
        assert_eq!(
            table.set_timer(clock, b"one more", 0, Some(3)),
            Err(StateError::Quota(200))
        );
        assert_eq!(table.put(b"a row", Some(b"x")), Err(StateError::Quota(200)));
        table.roll_back(mark);
        assert_eq!(
            (table.timers(), table.bytes()),
            (2, 2 * crate::state::timers::TIMER_BYTES)
        );
        assert_eq!(table.first_due(TimerClock::Processing), None);
        assert_eq!(table.pop_due(clock, 9).map(|t| t.at), Some(5));
        assert_eq!(table.pop_due(clock, 9).map(|t| t.at), Some(7));
        let mut changes = Vec::new();
        table.take_timer_changes(|_, key, tag, at| changes.push((key.to_vec(), tag, at)));
        assert_eq!(
            changes,
            [(b"kept".to_vec(), 0, None), (b"stored".to_vec(), 1, None)]
        );
        table.take_timer_changes(|_, key, _, _| panic!("{key:?} has not changed"));
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
        let mut table = Table::new(264);
        table.put(b"a", Some(&[1; 50])).unwrap();
        assert_eq!(table.put(b"b", Some(&[1; 50])), Err(StateError::Quota(264)));
        assert_eq!(table.put(b"a", Some(&[1; 150])), Err(StateError::Quota(264)));
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

    #[test]
    fn a_migration_may_change_everything_and_all_of_it_is_told() {
        let mut table = Table::new(64 << 20);
        let large = vec![7; 1 << 20];
        for n in 0..3_u8 {
            table.load(&[n], &large);
        }
        table.load_timer(TimerClock::Event, b"k", 1, 5);
        table.touch_all();
        table.begin_migration();
        let mark = table.mark();
        for n in 0..3_u8 {
            table.put(&[n], Some(&large[1..])).unwrap();
        }
        table.roll_back(mark);
        assert_eq!(table.get(&[0]), Some(&large[..]));
        table.put(&[1], None).unwrap();
        let mut told = Vec::new();
        table.take_changes(|key, value| told.push((key.to_vec(), value.map(<[u8]>::len))));
        assert_eq!(
            told,
            [
                (vec![0], Some(1 << 20)),
                (vec![1], None),
                (vec![2], Some(1 << 20))
            ]
        );
        let mut timers = Vec::new();
        table.take_timer_changes(|clock, key, tag, at| timers.push((clock, key.to_vec(), tag, at)));
        assert_eq!(timers, [(TimerClock::Event, b"k".to_vec(), 1, Some(5))]);
    }
}
