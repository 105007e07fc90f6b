//! A simulated disk that can lose unsynced writes, in place of fjall.
//!
//! Rows outlive the log that is opened on the disk, as a disk outlives a process. Batches arrive in order, as
//! in a journal. After a power cut all synced batches are there, and a prefix of the others. There are no
//! tables, caches and journals to damage: those are tested on real files.

use crate::format::entry::EntryHeader;
use crate::format::keys::{StateKey, StateKind, rlog_index, rlog_key};
use crate::format::position::Position;
use fjall::{PersistMode, Slice, UserKey};
use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, MutexGuard};
use weir_types::sync::Mutex;
use weir_types::{GroupId, Offset, PartitionId};

/// The log's keyspaces.
const KEYSPACES: usize = 3;

/// More entries than are ever under way.
const HEADERS_LOOKED_AT: usize = 1_000;

type Key = Vec<u8>;
type Tables = [Arc<BTreeMap<Key, Slice>>; KEYSPACES];
type Write = (usize, Key, Option<Slice>);

/// The disk. Clones are handles to the same disk.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Rows as the process sees them.
    now: Tables,
    /// Rows after a power cut.
    synced: Tables,
    /// Unsynced batches, in order.
    unsynced: Vec<Vec<Write>>,
    /// Number of openings: only the last handle may write.
    opened: u64,
    /// Writes before the power goes.
    cut_in: Option<u32>,
    /// The power is gone.
    dark: bool,
    /// Acknowledge syncs without doing them: a lying disk, or an injected bug.
    lies: bool,
    /// Bytes that may still be written; `None` for no limit.
    left: Option<u64>,
}

impl Disk {
    /// Cuts the power: of the unsynced batches, the first `keep` thousandths survive.
    pub fn cut_power(&self, keep: u32) {
        let mut state = self.lock();
        let kept = state.unsynced.len() * keep.min(1_000) as usize / 1_000;
        let unsynced = std::mem::take(&mut state.unsynced);
        for batch in unsynced.into_iter().take(kept) {
            apply(&mut state.synced, batch);
        }
        state.now = state.synced.clone();
        (state.cut_in, state.dark) = (None, false);
        state.opened += 1;
    }

    /// Kills the process: its writes stay.
    pub fn kill(&self) {
        let mut state = self.lock();
        for batch in std::mem::take(&mut state.unsynced) {
            apply(&mut state.synced, batch);
        }
        (state.cut_in, state.dark) = (None, false);
        state.opened += 1;
    }

    /// Cuts the power during a write, after `writes` more. The write fails, and may have happened until
    /// [`Disk::cut_power`] decides.
    pub fn cut_power_in(&self, writes: u32) {
        self.lock().cut_in = Some(writes);
    }

    /// Cancels a planned power cut.
    pub fn keep_power(&self) {
        self.lock().cut_in = None;
    }

    /// Returns true when the power went during a write.
    pub fn is_dark(&self) -> bool {
        self.lock().dark
    }

    /// Acknowledges syncs without doing them from now on.
    pub fn lie(&self) {
        self.lock().lies = true;
    }

    /// Limits further writes to `bytes`; `None` removes the limit. A write beyond the limit fails as a whole.
    pub fn leave(&self, bytes: Option<u64>) {
        self.lock().left = bytes;
    }

    /// Returns the bytes that may still be written.
    pub(crate) fn left(&self) -> u64 {
        self.lock().left.unwrap_or(u64::MAX)
    }

    /// Loses everything, as with a new disk.
    pub fn wipe(&self) {
        let opened = self.lock().opened + 1;
        *self.lock() = State {
            opened,
            ..State::default()
        };
    }

    /// Flips a bit of a stored header or batch, chosen by `nth`. Returns false when there is none. Other rows
    /// are under fjall's block checksums, which the simulation lacks.
    pub fn rot(&self, batches: bool, nth: usize, bit: usize) -> bool {
        let mut state = self.lock();
        let table = usize::from(batches);
        let rows = &state.synced[table];
        let Some((key, value)) = rows.iter().nth(nth % rows.len().max(1)) else {
            return false;
        };
        let (key, mut value) = (key.clone(), value.to_vec());
        let at = bit % (value.len() * 8).max(1);
        let Some(byte) = value.get_mut(at / 8) else {
            return false;
        };
        *byte ^= 1 << (at % 8);
        let value = Slice::from(value);
        Arc::make_mut(&mut state.synced[table]).insert(key.clone(), value.clone());
        Arc::make_mut(&mut state.now[table]).insert(key, value);
        true
    }

    /// Returns a row that survives a power cut. `keyspace` is 0 for headers, 1 for batches, 2 for state.
    pub fn durable(&self, keyspace: usize, key: &[u8]) -> Option<Vec<u8>> {
        let state = self.lock();
        state.synced[keyspace].get(key).map(|value| value.to_vec())
    }

    /// Returns the header of an entry, as the process sees it.
    pub fn header(&self, group: GroupId, index: u64) -> Option<EntryHeader> {
        let state = self.lock();
        let row = state.now[0].get(&rlog_key(group, index)[..])?;
        EntryHeader::decode(group, index, row)
            .ok()
            .map(|(header, ..)| header)
    }

    /// Returns true when a power cut would leave the entry of the batch at `base`, with or without the batch:
    /// among the newest entries, or applied.
    pub fn knows_of(&self, partition: PartitionId, base: Offset) -> bool {
        let position = self.durable_state(&StateKey::partition(StateKind::Position, partition));
        let position = position.and_then(|row| Position::decode(&row.into()));
        if position.is_some_and(|p| p.committed_end > base) {
            return true;
        }
        let state = self.lock();
        let newest = state.synced[0].iter().rev().take(HEADERS_LOOKED_AT);
        let mut headers = newest.filter_map(|(key, row)| {
            let group = u16::from_be_bytes(*key.first_chunk::<2>()?);
            EntryHeader::decode(GroupId(group), rlog_index(key)?, row).ok()
        });
        headers.any(|(h, ..)| h.appends().any(|a| a.partition == partition && a.base == base))
    }

    /// Returns the row of `state` that survives a power cut.
    pub fn durable_state(&self, key: &StateKey) -> Option<Vec<u8>> {
        self.durable(2, key.as_bytes())
    }

    pub(crate) fn open(&self) -> Open {
        let mut state = self.lock();
        state.opened += 1;
        Open {
            disk: self.clone(),
            number: state.opened,
        }
    }

    /// Returns true before the first write.
    pub(crate) fn is_new(&self) -> bool {
        let state = self.lock();
        state.now.iter().all(|table| table.is_empty())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    fn sync(&mut self) {
        if self.lies {
            return;
        }
        for batch in std::mem::take(&mut self.unsynced) {
            apply(&mut self.synced, batch);
        }
    }

    /// Fails for an outdated handle, and for a write without power.
    fn check(&mut self, number: u64) -> fjall::Result<()> {
        if self.dark || number != self.opened {
            Err(std::io::Error::other("the disk is gone").into())
        } else {
            Ok(())
        }
    }
}

fn size((_, key, value): &Write) -> usize {
    key.len() + value.as_ref().map_or(0, |value| value.len())
}

fn apply(tables: &mut Tables, batch: Vec<Write>) {
    for (table, key, value) in batch {
        let table = Arc::make_mut(&mut tables[table]);
        match value {
            Some(value) => drop(table.insert(key, value)),
            None => drop(table.remove(&key)),
        }
    }
}

/// The disk, as opened by a log.
#[derive(Clone)]
pub(crate) struct Open {
    disk: Disk,
    number: u64,
}

#[derive(Clone)]
pub(crate) struct Keyspace {
    of: Open,
    table: usize,
}

pub(crate) struct Batch {
    of: Open,
    writes: Vec<Write>,
}

pub(crate) struct Snapshot(Tables);

impl Open {
    pub(crate) fn keyspace(&self, table: usize) -> Keyspace {
        Keyspace {
            of: self.clone(),
            table,
        }
    }

    pub(crate) fn batch(&self) -> Batch {
        Batch {
            of: self.clone(),
            writes: Vec::new(),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot(self.disk.lock().now.clone())
    }

    pub(crate) fn left(&self) -> u64 {
        self.disk.left()
    }

    pub(crate) fn persist(&self) -> fjall::Result<()> {
        let mut state = self.disk.lock();
        state.check(self.number)?;
        state.sync();
        Ok(())
    }
}

impl Batch {
    pub(crate) fn put(&mut self, to: &Keyspace, key: UserKey, value: Option<Slice>) {
        self.writes.push((to.table, key.to_vec(), value));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(crate) fn commit(self, mode: PersistMode) -> fjall::Result<()> {
        if self.writes.is_empty() {
            return Ok(());
        }
        let mut state = self.of.disk.lock();
        state.check(self.of.number)?;
        if let Some(left) = state.left {
            let bytes: usize = self.writes.iter().map(size).sum();
            let rest = left.checked_sub(bytes as u64);
            state.left = Some(rest.ok_or_else(|| std::io::Error::from(rustix::io::Errno::NOSPC))?);
        }
        apply(&mut state.now, self.writes.clone());
        state.unsynced.push(self.writes);
        if let Some(left) = state.cut_in {
            if left == 0 {
                state.dark = true;
                return Err(std::io::Error::other("the power went").into());
            }
            state.cut_in = Some(left - 1);
        }
        if mode != PersistMode::Buffer {
            state.sync();
        }
        Ok(())
    }
}

impl Keyspace {
    pub(crate) fn get(&self, key: &[u8]) -> Option<Slice> {
        self.of.disk.lock().now[self.table].get(key).cloned()
    }

    pub(crate) fn range(&self, range: impl RangeBounds<Key>) -> Iter {
        Iter {
            rows: Source::Now(self.clone()),
            range: (range.start_bound().cloned(), range.end_bound().cloned()),
        }
    }
}

impl Snapshot {
    pub(crate) fn get(&self, of: &Keyspace, key: &[u8]) -> Option<Slice> {
        self.0[of.table].get(key).cloned()
    }

    pub(crate) fn range(&self, of: &Keyspace, range: impl RangeBounds<Key>) -> Iter {
        Iter {
            rows: Source::Then(Arc::clone(&self.0[of.table])),
            range: (range.start_bound().cloned(), range.end_bound().cloned()),
        }
    }
}

enum Source {
    Now(Keyspace),
    Then(Arc<BTreeMap<Key, Slice>>),
}

/// An iterator that looks rows up as it goes: nothing is copied ahead.
pub(crate) struct Iter {
    rows: Source,
    range: (Bound<Key>, Bound<Key>),
}

impl Iter {
    fn look_up(&self, last: bool) -> Option<(Key, Slice)> {
        let find = |table: &BTreeMap<Key, Slice>| {
            if is_empty(&self.range) {
                return None;
            }
            let mut rows = table.range(self.range.clone());
            let row = if last { rows.next_back() } else { rows.next() };
            row.map(|(key, value)| (key.clone(), value.clone()))
        };
        match &self.rows {
            Source::Now(keyspace) => find(&keyspace.of.disk.lock().now[keyspace.table]),
            Source::Then(table) => find(table),
        }
    }
}

impl Iterator for Iter {
    type Item = (UserKey, Slice);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = self.look_up(false)?;
        self.range.0 = Bound::Excluded(key.clone());
        Some((key.into(), value))
    }
}

impl DoubleEndedIterator for Iter {
    fn next_back(&mut self) -> Option<Self::Item> {
        let (key, value) = self.look_up(true)?;
        self.range.1 = Bound::Excluded(key.clone());
        Some((key.into(), value))
    }
}

/// Returns true for ranges that would make a map panic.
fn is_empty(range: &(Bound<Key>, Bound<Key>)) -> bool {
    match range {
        (Bound::Included(a), Bound::Included(b)) => a > b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Excluded(b)) => a >= b,
        (Bound::Excluded(a), Bound::Included(b)) => a >= b,
        _ => false,
    }
}

pub(crate) fn bounds<K: AsRef<[u8]>>(range: &impl RangeBounds<K>) -> (Bound<Key>, Bound<Key>) {
    let own = |bound: Bound<&K>| match bound {
        Bound::Included(key) => Bound::Included(key.as_ref().to_vec()),
        Bound::Excluded(key) => Bound::Excluded(key.as_ref().to_vec()),
        Bound::Unbounded => Bound::Unbounded,
    };
    (own(range.start_bound()), own(range.end_bound()))
}

/// Returns the range of all keys that begin with `prefix`.
pub(crate) fn under(prefix: &[u8]) -> (Bound<Key>, Bound<Key>) {
    let mut after = prefix.to_vec();
    while let Some(last) = after.pop() {
        if last < u8::MAX {
            after.push(last + 1);
            return (Bound::Included(prefix.to_vec()), Bound::Excluded(after));
        }
    }
    (Bound::Included(prefix.to_vec()), Bound::Unbounded)
}
