//! State of a module: typed values that survive restarts, power cuts and changes of leadership. Changes
//! become durable together with the output records of the call.
//!
//! ```
//! use weir_sdk::prelude::*;
//! use weir_sdk::state::Map;
//!
//! struct Counter {
//!     counts: Map<u64>,
//! }
//!
//! impl Module for Counter {
//!     const ABOUT: &'static str = "Counts records by key.";
//!     const STATE_VERSION: u32 = 1;
//!
//!     fn init(_: &Config) -> Result<(Self, Interface), String> {
//!         Ok((Self { counts: Map::new("n") }, Interface::keys()))
//!     }
//!
//!     fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
//!         self.counts.fetch(batch.keys().flatten());
//!         for (index, key) in batch.keys().enumerate() {
//!             let n = self.counts.update(key.unwrap_or_default(), |n| {
//!                 *n.get_or_insert(0) += 1;
//!                 *n
//!             });
//!             if n.is_some_and(|n| n % 100 == 0) {
//!                 out.keep(index);
//!             }
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let mut module = weir_sdk::testing::Native::<Counter>::new(&[]).unwrap();
//! let record = weir_sdk::testing::Input { key: Some(b"a".to_vec()), ..Default::default() };
//! let kept = |records| module.process(&vec![record.clone(); records]).unwrap().routes.iter().filter(|r| **r == 1).count();
//! let kept: Vec<usize> = [60, 60].into_iter().map(kept).collect();
//! assert_eq!(kept, [0, 1]);
//! ```
//!
//! Values are cached in the guest: a repeated key costs no host call, and all changes of a call are handed to
//! the host in a single call at its end. The stage of the pipeline needs `grants = ["state"]`.

use crate::bindings::weir::module::types as wit;
use crate::handover::{self, Flush};
use rustc_hash::FxHashMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::rc::Rc;

/// Maximum entries cached by a map between calls: a few hundred KiB of the 16 MiB that a guest has by
/// default. Beyond the limit the cache is cleared.
const CACHED_MAX: usize = 8_192;

/// Maximum length of a [`Map`] key in bytes: map name and key together must fit the node's limit. A longer
/// key fails the call; modules reject the record instead.
pub const KEY_BYTES_MAX: usize = 2 << 10;

/// A persistent map from keys (bytes, usually record keys) to values.
///
/// Values are stored in postcard form: a type with a new field needs a new
/// [`STATE_VERSION`](crate::Module::STATE_VERSION).
#[derive(Debug)]
pub struct Map<V>(Rc<Shared<V>>);

/// A single persistent value.
#[derive(Debug)]
pub struct Value<V>(Map<V>);

/// The part of a map that is shared with the flush at the end of a call.
#[derive(Debug)]
struct Shared<V> {
    /// Prefix of the map's keys in the host's table.
    prefix: Vec<u8>,
    cache: RefCell<Cache<V>>,
}

#[derive(Debug)]
struct Cache<V> {
    /// A fast hash suffices: keys are short, and a malicious sender slows only its own pipeline, which has a
    /// deadline.
    slots: FxHashMap<Rc<[u8]>, u32>,
    entries: Vec<Cached<V>>,
    /// Distinct indexes into `entries`.
    changed: Vec<u32>,
}

#[derive(Debug)]
struct Cached<V> {
    key: Rc<[u8]>,
    value: Option<V>,
    is_changed: bool,
}

impl<V> Cache<V> {
    /// Adds an entry for a `key` without an entry.
    fn add(&mut self, key: &[u8], value: Option<V>) -> u32 {
        let key: Rc<[u8]> = key.into();
        let slot = self.entries.len() as u32;
        self.slots.insert(Rc::clone(&key), slot);
        let is_changed = false;
        self.entries.push(Cached {
            key,
            value,
            is_changed,
        });
        slot
    }
}

/// Clears the native stand-in for the host's table.
pub(crate) fn forget() {
    #[cfg(not(target_arch = "wasm32"))]
    host::clear();
}

impl<V: Serialize + DeserializeOwned + 'static> Flush for Shared<V> {
    fn flush(&self) {
        let mut cache = self.cache.borrow_mut();
        let Cache {
            slots,
            entries,
            changed,
        } = &mut *cache;
        let (mut keys, mut values) = (empty(), empty());
        keys.ends.reserve(changed.len());
        values.ends.reserve(changed.len());
        for slot in changed.drain(..) {
            let Some(entry) = entries.get_mut(slot as usize) else {
                continue;
            };
            entry.is_changed = false;
            keys.data.extend_from_slice(&self.prefix);
            keys.data.extend_from_slice(&entry.key);
            keys.ends.push(keys.data.len() as u32);
            match &entry.value {
                Some(value) => match postcard::to_extend(value, std::mem::take(&mut values.data)) {
                    Ok(data) => values.data = data,
                    Err(e) => panic!("a value cannot be stored: {e}"),
                },
                None => values.nulls.get_or_insert_default().resize(values.ends.len(), 0),
            }
            values.ends.push(values.data.len() as u32);
            if let Some(nulls) = &mut values.nulls {
                nulls.push(u8::from(entry.value.is_none()));
            }
        }
        if !keys.ends.is_empty() {
            host::put_many(keys, values);
        }
        if entries.len() > CACHED_MAX {
            slots.clear();
            entries.clear();
        }
    }
}

impl<V: Serialize + DeserializeOwned + 'static> Map<V> {
    /// Opens the map `name` of this module. Call only in [`init`](crate::Module::init), with a name of its
    /// own.
    pub fn new(name: &str) -> Self {
        let shared = Rc::new(Shared {
            // Names end in a byte that never occurs in UTF-8: no name with a key is the prefix of another.
            prefix: [name.as_bytes(), &[0xff]].concat(),
            cache: RefCell::new(Cache {
                slots: FxHashMap::default(),
                entries: Vec::new(),
                changed: Vec::new(),
            }),
        });
        let flush: Rc<dyn Flush> = Rc::<Shared<V>>::clone(&shared);
        handover::hold(flush);
        Self(shared)
    }

    /// Loads the values of all `keys` that are not cached, in a single host call. Pays off at the start of a
    /// batch with many keys.
    pub fn fetch<'a>(&mut self, keys: impl Iterator<Item = &'a [u8]>) {
        let mut cache = self.0.cache.borrow_mut();
        let mut missing = Vec::new();
        let mut column = empty();
        for key in keys {
            if !cache.slots.contains_key(key) {
                column.data.extend_from_slice(&self.0.prefix);
                column.data.extend_from_slice(key);
                column.ends.push(column.data.len() as u32);
                missing.push(cache.add(key, None));
            }
        }
        if missing.is_empty() {
            return;
        }
        let values = host::get_many(column);
        let values = crate::Column::new(&values);
        for (i, slot) in missing.into_iter().enumerate() {
            if let Some(entry) = cache.entries.get_mut(slot as usize) {
                entry.value = values.get(i).map(decode);
            }
        }
    }

    /// Reads and changes the value under `key` with `change`. `None` stands for no value, before and after.
    pub fn update<R>(&mut self, key: &[u8], change: impl FnOnce(&mut Option<V>) -> R) -> R {
        let mut cache = self.0.cache.borrow_mut();
        let slot = match cache.slots.get(key) {
            Some(slot) => *slot,
            None => {
                let value = self.load(key);
                cache.add(key, value)
            }
        };
        let Cache { entries, changed, .. } = &mut *cache;
        let Some(entry) = entries.get_mut(slot as usize) else {
            return change(&mut None);
        };
        if !entry.is_changed {
            entry.is_changed = true;
            changed.push(slot);
        }
        change(&mut entry.value)
    }

    /// Returns a copy of the value under `key`.
    pub fn get(&self, key: &[u8]) -> Option<V>
    where
        V: Clone,
    {
        self.with(key, |value| value.cloned())
    }

    /// Reads the value under `key` with `read`, without a copy.
    pub fn with<R>(&self, key: &[u8], read: impl FnOnce(Option<&V>) -> R) -> R {
        let mut cache = self.0.cache.borrow_mut();
        let slot = match cache.slots.get(key) {
            Some(slot) => *slot,
            None => {
                let value = self.load(key);
                cache.add(key, value)
            }
        };
        let entry = cache.entries.get(slot as usize);
        read(entry.and_then(|entry| entry.value.as_ref()))
    }

    /// Sets the value under `key`.
    pub fn insert(&mut self, key: &[u8], value: V) {
        let mut cache = self.0.cache.borrow_mut();
        let slot = match cache.slots.get(key) {
            Some(slot) => *slot,
            None => cache.add(key, None),
        };
        let Cache { entries, changed, .. } = &mut *cache;
        if let Some(entry) = entries.get_mut(slot as usize) {
            entry.value = Some(value);
            if !entry.is_changed {
                entry.is_changed = true;
                changed.push(slot);
            }
        }
    }

    /// Removes and returns the value under `key`.
    pub fn take(&mut self, key: &[u8]) -> Option<V> {
        self.update(key, Option::take)
    }

    /// Removes the value under `key`.
    pub fn remove(&mut self, key: &[u8]) {
        self.update(key, |value| *value = None);
    }

    /// Returns key and value of each entry whose key begins with `prefix`, by key. Needs host calls, whatever
    /// is cached.
    pub fn scan(&mut self, prefix: &[u8]) -> Vec<(Vec<u8>, V)> {
        self.0.flush();
        let whole = [&self.0.prefix, prefix].concat();
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let (keys, values) = host::scan(&whole, after.as_deref(), u32::MAX);
            let (keys, values) = (crate::Column::new(&keys), crate::Column::new(&values));
            let Some(last) = keys.last() else { return found };
            after = Some(last.to_vec());
            for i in 0..keys.len() {
                if let (Some(key), Some(value)) = (keys.get(i), values.get(i)) {
                    let key = key.get(self.0.prefix.len()..).unwrap_or_default();
                    found.push((key.to_vec(), decode(value)));
                }
            }
        }
    }

    /// Converts each value stored as `Old` to this version's form; `None` removes the entry. Call only in
    /// [`migrate`](crate::Module::migrate).
    pub fn migrate<Old: DeserializeOwned>(&mut self, mut make: impl FnMut(&[u8], Old) -> Option<V>) {
        let mut after = None;
        loop {
            // Changes behind the scan position are not visited again.
            let (keys, values) = host::scan(&self.0.prefix, after.as_deref(), u32::MAX);
            let (keys, values) = (crate::Column::new(&keys), crate::Column::new(&values));
            let Some(last) = keys.last() else { return };
            after = Some(last.to_vec());
            for i in 0..keys.len() {
                if let (Some(key), Some(value)) = (keys.get(i), values.get(i)) {
                    let key = key.get(self.0.prefix.len()..).unwrap_or_default();
                    match make(key, decode(value)) {
                        Some(value) => self.insert(key, value),
                        None => self.forget_row(key),
                    }
                }
            }
            self.0.flush();
        }
    }

    /// Removes a row that this version cannot read.
    fn forget_row(&self, key: &[u8]) {
        let mut cache = self.0.cache.borrow_mut();
        let slot = match cache.slots.get(key) {
            Some(slot) => *slot,
            None => cache.add(key, None),
        };
        if let Some(entry) = cache.entries.get_mut(slot as usize) {
            entry.value = None;
            if !std::mem::replace(&mut entry.is_changed, true) {
                cache.changed.push(slot);
            }
        }
    }

    fn load(&self, key: &[u8]) -> Option<V> {
        let whole = [&self.0.prefix, key].concat();
        host::get(&whole).as_deref().map(decode)
    }
}

impl<V: Serialize + DeserializeOwned + Clone + 'static> Value<V> {
    /// Opens the value `name` of this module. Call only in [`init`](crate::Module::init), with a name of its
    /// own.
    pub fn new(name: &str) -> Self {
        Self(Map::new(name))
    }

    /// Returns a copy of the value, if set.
    pub fn get(&self) -> Option<V> {
        self.0.get(b"")
    }

    /// Sets the value.
    pub fn set(&mut self, value: V) {
        self.0.insert(b"", value);
    }

    /// Removes the value.
    pub fn clear(&mut self) {
        self.0.remove(b"");
    }
}

/// Decodes a stored value.
///
/// # Panics
/// If the bytes are not a `V`: another version of the module wrote the state without raising its state
/// version. The panic fails the call, and the pipeline reports the reason.
fn decode<V: DeserializeOwned>(bytes: &[u8]) -> V {
    match postcard::from_bytes(bytes) {
        Ok(value) => value,
        Err(e) => {
            let why = format!("cannot decode stored state: {e}; raise STATE_VERSION");
            crate::log::error(&why);
            panic!("{why}");
        }
    }
}

pub(crate) fn empty() -> wit::Column {
    wit::Column {
        ends: Vec::new(),
        data: Vec::new(),
        nulls: None,
    }
}

#[cfg(target_arch = "wasm32")]
mod host {
    use super::wit::Column;
    use crate::bindings::weir::module::state;

    pub(super) fn get(key: &[u8]) -> Option<Vec<u8>> {
        state::get(key)
    }

    pub(super) fn get_many(keys: Column) -> Column {
        state::get_many(&keys)
    }

    pub(super) fn put_many(keys: Column, values: Column) {
        state::put_many(&keys, &values);
    }

    pub(super) fn scan(prefix: &[u8], after: Option<&[u8]>, limit: u32) -> (Column, Column) {
        state::scan(prefix, after, limit)
    }
}

/// A table per thread, so that modules run in ordinary tests.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod host {
    use super::wit::Column;
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    thread_local! {
        static ROWS: RefCell<BTreeMap<Vec<u8>, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
    }

    pub(super) fn clear() {
        ROWS.with(|rows| rows.borrow_mut().clear());
    }

    #[cfg(test)]
    pub(crate) fn count() -> usize {
        ROWS.with(|rows| rows.borrow().len())
    }

    pub(super) fn get(key: &[u8]) -> Option<Vec<u8>> {
        ROWS.with(|rows| rows.borrow().get(key).cloned())
    }

    pub(super) fn get_many(keys: Column) -> Column {
        let keys = crate::Column::new(&keys);
        let mut values = super::empty();
        for i in 0..keys.len() {
            push(&mut values, keys.get(i).and_then(get).as_deref());
        }
        values
    }

    pub(super) fn put_many(keys: Column, values: Column) {
        let (keys, values) = (crate::Column::new(&keys), crate::Column::new(&values));
        ROWS.with(|rows| {
            let mut rows = rows.borrow_mut();
            for i in 0..keys.len() {
                let Some(key) = keys.get(i) else { continue };
                match values.get(i) {
                    Some(value) => drop(rows.insert(key.to_vec(), value.to_vec())),
                    None => drop(rows.remove(key)),
                }
            }
        });
    }

    pub(super) fn scan(prefix: &[u8], after: Option<&[u8]>, limit: u32) -> (Column, Column) {
        let (mut keys, mut values) = (super::empty(), super::empty());
        ROWS.with(|rows| {
            let rows = rows.borrow();
            let of_prefix = rows
                .iter()
                .filter(|(k, _)| k.starts_with(prefix) && after.is_none_or(|after| k.as_slice() > after));
            for (key, value) in of_prefix.take(limit as usize) {
                push(&mut keys, Some(key));
                push(&mut values, Some(value));
            }
        });
        (keys, values)
    }

    fn push(column: &mut Column, item: Option<&[u8]>) {
        column.data.extend_from_slice(item.unwrap_or_default());
        column.ends.push(column.data.len() as u32);
        let nulls = column.nulls.get_or_insert_default();
        nulls.push(u8::from(item.is_none()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_flushed_is_there_for_the_next_instance() {
        host::clear();
        handover::begin();
        let mut map = Map::<u64>::new("m");
        let mut other = Value::<String>::new("m2");
        map.insert(b"a", 1);
        map.update(b"b", |v| *v = Some(v.unwrap_or(40) + 2));
        map.insert(b"c", 3);
        map.remove(b"c");
        other.set("x".to_owned());
        handover::flush();
        handover::begin();
        let mut map = Map::<u64>::new("m");
        let other = Value::<String>::new("m2");
        map.fetch([&b"a"[..], b"b", b"c"].into_iter());
        assert_eq!(
            (map.get(b"a"), map.get(b"b"), map.get(b"c")),
            (Some(1), Some(42), None)
        );
        assert_eq!(other.get().as_deref(), Some("x"));
        assert_eq!(map.scan(b""), [(b"a".to_vec(), 1), (b"b".to_vec(), 42)]);
        assert_eq!(map.scan(b"b"), [(b"b".to_vec(), 42)]);
    }

    #[test]
    fn the_cache_begins_anew_before_it_grows_too_large() {
        host::clear();
        handover::begin();
        let mut map = Map::<u32>::new("m");
        for n in 0..CACHED_MAX as u32 + 1 {
            map.insert(&n.to_le_bytes(), n);
        }
        handover::flush();
        assert!(map.0.cache.borrow().entries.is_empty());
        assert_eq!(map.get(&7u32.to_le_bytes()), Some(7));
    }

    #[test]
    fn a_map_takes_over_what_was_written_in_another_form() {
        host::clear();
        handover::begin();
        let (mut before, mut other) = (Map::<u64>::new("m"), Map::<u64>::new("m2"));
        for n in 0..1_000_u64 {
            before.insert(&n.to_be_bytes(), n);
        }
        other.insert(b"x", 1);
        handover::flush();
        handover::begin();
        let mut map = Map::<(u64, String)>::new("m");
        map.migrate::<u64>(|key, n| {
            assert_eq!(key, n.to_be_bytes());
            (n % 2 == 0).then(|| (n, n.to_string()))
        });
        handover::flush();
        handover::begin();
        let mut map = Map::<(u64, String)>::new("m");
        let all = map.scan(b"");
        assert_eq!(all.len(), 500);
        assert!(
            all.iter()
                .all(|(key, (n, text))| *key == n.to_be_bytes() && *text == n.to_string())
        );
        assert_eq!(Map::<u64>::new("m2").get(b"x"), Some(1));
    }
}
