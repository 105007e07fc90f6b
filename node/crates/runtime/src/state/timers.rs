//! Timers: an indexed heap per clock, with roll-back.
//!
//! A million timers may be pending, so that each has a single slot, four bytes in the heap and about eight
//! among the hashes. Timers of the same time come in the order of keys and tags: the order survives a
//! restart.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;
use std::cmp::Ordering;
use std::hash::BuildHasher;

/// Bytes of memory of a timer beyond a long key: a slot of 48, its places, and spare capacity.
pub(crate) const TIMER_BYTES: usize = 80;

/// Longest key that fits the slot.
const INLINE: usize = 16;

/// A key in its slot.
pub(crate) type TimerKey = SmallVec<[u8; INLINE]>;

/// Clock of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TimerClock {
    /// The time in the records.
    Event = 0,
    /// The time at which the node works.
    Processing = 1,
}

impl TimerClock {
    /// Both clocks.
    pub const ALL: [Self; 2] = [Self::Event, Self::Processing];
}

/// A timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    /// Due time, in milliseconds of the clock.
    pub at: i64,
    /// Key: with the tag, the timer's identity.
    pub key: SmallVec<[u8; INLINE]>,
    /// The module's tag.
    pub tag: u32,
}

/// The timers of both clocks, with their earlier values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clocks {
    timers: [Timers; 2],
    journal: Vec<(TimerClock, TimerKey, u32, Option<i64>)>,
}

impl Clocks {
    fn of(&mut self, clock: TimerClock) -> &mut Timers {
        let [event, processing] = &mut self.timers;
        match clock {
            TimerClock::Event => event,
            TimerClock::Processing => processing,
        }
    }

    pub(crate) fn see(&self, clock: TimerClock) -> &Timers {
        let [event, processing] = &self.timers;
        match clock {
            TimerClock::Event => event,
            TimerClock::Processing => processing,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.timers.iter().map(Timers::len).sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.timers.iter().map(Timers::bytes).sum()
    }

    /// Adds a stored timer.
    pub(crate) fn load(&mut self, clock: TimerClock, key: &[u8], tag: u32, at: i64) {
        self.of(clock).set(key, tag, Some(at));
    }

    /// Sets or clears a timer.
    pub(crate) fn set(&mut self, clock: TimerClock, key: &[u8], tag: u32, at: Option<i64>) {
        let before = self.of(clock).set(key, tag, at);
        if before.is_some() || at.is_some() {
            self.journal.push((clock, key.into(), tag, before));
        }
    }

    /// Removes the first timer, if due by `until`.
    pub(crate) fn pop(&mut self, clock: TimerClock, until: i64) -> Option<Timer> {
        let first = self.see(clock).first().filter(|t| t.at <= until)?.clone();
        self.set(clock, &first.key, first.tag, None);
        Some(first)
    }

    /// Makes all timers changes of the next report.
    pub(crate) fn touch_all(&mut self) {
        for clock in TimerClock::ALL {
            let timers = self.see(clock);
            let all = timers.heap.iter().map(|slot| timers.timer(*slot));
            let all: Vec<_> = all.map(|t| (clock, t.key.clone(), t.tag, Some(t.at))).collect();
            self.journal.extend(all);
        }
    }

    /// Returns the number of changes: a point to roll back to.
    pub(crate) fn mark(&self) -> usize {
        self.journal.len()
    }

    pub(crate) fn roll_back(&mut self, mark: usize) {
        while self.journal.len() > mark
            && let Some((clock, key, tag, before)) = self.journal.pop()
        {
            self.of(clock).set(&key, tag, before);
        }
    }

    /// Passes the present time of every changed timer to `each`, each once.
    pub(crate) fn take_changes(&mut self, mut each: impl FnMut(TimerClock, &[u8], u32, Option<i64>)) {
        let mut changed = std::mem::take(&mut self.journal);
        changed.sort_unstable_by(|a, b| (a.0, &a.1, a.2).cmp(&(b.0, &b.1, b.2)));
        changed.dedup_by(|a, b| (a.0, &a.1, a.2) == (b.0, &b.1, b.2));
        for (clock, key, tag, _) in changed {
            each(clock, &key, tag, self.see(clock).get(&key, tag));
        }
    }
}

#[derive(Clone, Debug)]
struct Slot {
    timer: Timer,
    /// Index in the heap.
    place: u32,
}

/// The timers of a clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: RandomState,
    /// Slots: no parent is due after its children.
    heap: Vec<u32>,
    /// Bytes of keys too long for their slots.
    long: usize,
}

impl Timers {
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Returns the approximate bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.heap.len() * TIMER_BYTES + self.long
    }

    /// Returns the cost of a timer with `key`.
    pub(crate) fn cost(key: &[u8]) -> usize {
        TIMER_BYTES + if key.len() > INLINE { key.len() } else { 0 }
    }

    /// Returns the first timer.
    pub(crate) fn first(&self) -> Option<&Timer> {
        Some(self.timer(*self.heap.first()?))
    }

    pub(crate) fn get(&self, key: &[u8], tag: u32) -> Option<i64> {
        let slot = self.find(key, tag)?;
        Some(self.timer(slot).at)
    }

    /// Sets the timer for `key` and `tag` to `at`, or removes it. Returns the earlier time.
    pub(crate) fn set(&mut self, key: &[u8], tag: u32, at: Option<i64>) -> Option<i64> {
        match (self.find(key, tag), at) {
            (Some(slot), Some(at)) => Some(self.move_to(slot, at)),
            (Some(slot), None) => Some(self.remove(slot)),
            (None, Some(at)) => {
                self.add(key, tag, at);
                None
            }
            (None, None) => None,
        }
    }

    fn hash(&self, key: &[u8], tag: u32) -> u64 {
        self.hasher.hash_one((key, tag))
    }

    fn find(&self, key: &[u8], tag: u32) -> Option<u32> {
        let is = |slot: &u32| {
            let timer = self.timer(*slot);
            timer.tag == tag && *timer.key == *key
        };
        self.index.find(self.hash(key, tag), is).copied()
    }

    fn add(&mut self, key: &[u8], tag: u32, at: i64) {
        let timer = Timer {
            at,
            key: key.into(),
            tag,
        };
        let place = self.heap.len() as u32;
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        match self.slots.get_mut(slot as usize) {
            Some(free) => *free = Slot { timer, place },
            None => self.slots.push(Slot { timer, place }),
        }
        self.long += Self::cost(key) - TIMER_BYTES;
        let hash = self.hash(key, tag);
        let Self {
            index, slots, hasher, ..
        } = self;
        let again = |slot: &u32| {
            let timer = slots.get(*slot as usize).map(|s| &s.timer);
            timer.map_or(0, |t| hasher.hash_one((&t.key[..], t.tag)))
        };
        index.insert_unique(hash, slot, again);
        self.heap.push(slot);
        self.rise(place as usize);
    }

    fn move_to(&mut self, slot: u32, at: i64) -> i64 {
        let Some(moved) = self.slots.get_mut(slot as usize) else {
            return at;
        };
        let before = std::mem::replace(&mut moved.timer.at, at);
        let place = moved.place as usize;
        self.rise(place);
        self.sink(place);
        before
    }

    fn remove(&mut self, slot: u32) -> i64 {
        let place = self.slots.get(slot as usize).map_or(0, |s| s.place as usize);
        let timer = self.timer(slot);
        let (at, hash, cost) = (timer.at, self.hash(&timer.key, timer.tag), Self::cost(&timer.key));
        self.long -= cost - TIMER_BYTES;
        if let Ok(entry) = self.index.find_entry(hash, |s| *s == slot) {
            entry.remove();
        }
        if let Some(removed) = self.slots.get_mut(slot as usize) {
            removed.timer.key = TimerKey::new();
        }
        self.free.push(slot);
        // The last timer moves into the place, and then to its own.
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            self.put(place);
            self.rise(place);
            self.sink(place);
        }
        at
    }

    fn timer(&self, slot: u32) -> &Timer {
        // Slots come from the heap and the index, which only hold existing slots.
        #[expect(clippy::indexing_slicing, reason = "see above")]
        &self.slots[slot as usize].timer
    }

    fn slot_at(&self, place: usize) -> Option<u32> {
        self.heap.get(place).copied()
    }

    /// Records the slot's place in the heap.
    fn put(&mut self, place: usize) {
        let slot = self.slot_at(place);
        if let Some(slot) = slot.and_then(|slot| self.slots.get_mut(slot as usize)) {
            slot.place = place as u32;
        }
    }

    fn is_before(&self, a: usize, b: usize) -> bool {
        let (Some(a), Some(b)) = (self.slot_at(a), self.slot_at(b)) else {
            return false;
        };
        let (a, b) = (self.timer(a), self.timer(b));
        let order = a.at.cmp(&b.at).then_with(|| a.key.cmp(&b.key));
        order.then(a.tag.cmp(&b.tag)) == Ordering::Less
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if !self.is_before(place, parent) {
                break;
            }
            self.swap(place, parent);
            place = parent;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let child = if self.is_before(right, left) { right } else { left };
            if !self.is_before(child, place) {
                return;
            }
            self.swap(place, child);
            place = child;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.put(a);
        self.put(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    proptest! {
        /// Against a tree: the first timer, after each step.
        #[test]
        fn the_first_is_due_first(steps in proptest::collection::vec((0..30u8, 0..3u32, proptest::option::of(0..20i64)), 0..200)) {
            let mut timers = Timers::default();
            let mut model: BTreeMap<(Vec<u8>, u32), i64> = BTreeMap::new();
            for (key, tag, at) in steps {
                let key = vec![key; usize::from(key)];
                let before = timers.set(&key, tag, at);
                let before_model = match at {
                    Some(at) => model.insert((key, tag), at),
                    None => model.remove(&(key, tag)),
                };
                prop_assert_eq!(before, before_model);
                let order: BTreeSet<_> = model.iter().map(|((key, tag), at)| (*at, key.clone(), *tag)).collect();
                let first = timers.first().map(|t| (t.at, t.key.to_vec(), t.tag));
                prop_assert_eq!(first.as_ref(), order.first());
                let long: usize = model.keys().map(|(key, _)| Timers::cost(key)).sum();
                prop_assert_eq!((timers.len(), timers.bytes()), (model.len(), long));
            }
            let mut fired = Vec::new();
            while let Some(first) = timers.first().cloned() {
                timers.set(&first.key, first.tag, None);
                fired.push((first.at, first.key.to_vec(), first.tag));
            }
            let order: BTreeSet<_> = model.into_iter().map(|((key, tag), at)| (at, key, tag)).collect();
            prop_assert_eq!(fired, order.into_iter().collect::<Vec<_>>());
            prop_assert_eq!((timers.len(), timers.bytes(), timers.index.len()), (0, 0, 0));
        }
    }

    #[test]
    fn a_slot_is_as_large_as_it_is_said_to_be() {
        assert_eq!(size_of::<Slot>(), 48);
    }
}
