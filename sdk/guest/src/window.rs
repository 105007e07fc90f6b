//! Windows over event time: tumbling, hopping, sliding and session windows. Also windows of a number of
//! records.
//!
//! ```
//! use std::time::Duration;
//! use weir_sdk::prelude::*;
//! use weir_sdk::timers::Fired;
//! use weir_sdk::window::{Stats, Windows};
//!
//! struct Means {
//!     minutes: Windows<Stats>,
//! }
//!
//! impl Module for Means {
//!     const ABOUT: &'static str = "The mean of each minute, by key.";
//!     const STATE_VERSION: u32 = 1;
//!
//!     fn init(_: &Config) -> Result<(Self, Interface), String> {
//!         let minutes = Windows::tumbling("minutes", Duration::from_secs(60))?;
//!         Ok((Self { minutes }, Interface::values().and_keys()))
//!     }
//!
//!     fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
//!         for record in batch.records() {
//!             match record.json("v").number() {
//!                 // A closed window takes no more records: its result is out.
//!                 Some(v) if self.minutes.add(&record, |stats| stats.add(v, record.timestamp())) => {}
//!                 Some(_) => out.reject(record.index(), "too late"),
//!                 None => out.reject(record.index(), "no number `v`"),
//!             }
//!         }
//!         Ok(())
//!     }
//!
//!     fn on_timers(&mut self, fired: &Fired<'_>, out: &mut Out) -> Result<(), Fault> {
//!         self.minutes.close(fired, |window, stats| {
//!             let mean = format!("{{\"mean\":{}}}", stats.mean());
//!             out.emit(window.index, 1, &NewRecord::value(mean.as_bytes()).with_key(window.key));
//!         });
//!         Ok(())
//!     }
//! }
//! # use weir_sdk::{testing::{Input, Native}, timers::Clock};
//! let mut module = Native::<Means>::new(&[]).unwrap();
//! let reading = |timestamp, v: &str| Input { timestamp, value: Some(v.into()), ..Default::default() };
//! module.process(&[reading(0, r#"{"v":1}"#), reading(59_999, r#"{"v":2}"#)]).unwrap();
//! let closed = module.advance(Clock::Event, 60_000).unwrap().unwrap();
//! assert_eq!(closed.emits[0].values.as_ref().unwrap().data, br#"{"mean":1.5}"#);
//! ```
//!
//! A window closes when the watermark reaches its end; the pipeline's `event_time.lateness_ms` is the wait
//! for late records. Windows are kept in [`crate::state`] and closed by [`crate::timers`]: the stage grants
//! `state` and `timers`. Windows go by the timestamps of records, so a backfill gives the same results as the
//! stream.

mod aggregate;
mod session;
mod sliding;

pub use aggregate::{Aggregate, Sketch, Stats};
pub use session::Sessions;
pub use sliding::{SLIDING_MAX, Sliding};

use crate::Record;
use crate::state::{KEY_BYTES_MAX, Map};
use crate::timers::{self, Clock, Fired};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Bytes of a window's end, in front of the record key.
const END_BYTES: usize = 8;
/// Maximum windows per record: hops of a hundredth of the size.
const HOPS_MAX: i64 = 100;

/// Windows of a fixed size: a result per key and window.
#[derive(Debug)]
pub struct Windows<A> {
    open: Map<A>,
    tag: u32,
    size: i64,
    step: i64,
    key: Vec<u8>,
}

/// A closed window; or, for [`Windows::add_early`], a window that is still open.
#[derive(Clone, Copy, Debug)]
pub struct Closed<'a> {
    /// Index of the origin of a result record, for [`Out::emit`](crate::Out::emit).
    pub index: usize,
    /// The key of the records; empty for records without a key.
    pub key: &'a [u8],
    /// First millisecond of the window.
    pub start: i64,
    /// First millisecond after the window.
    pub end: i64,
}

impl<A: Default + Serialize + DeserializeOwned + 'static> Windows<A> {
    /// Creates consecutive windows, aligned to time 0. Call only in [`init`](crate::Module::init), with a
    /// name of its own.
    ///
    /// # Errors
    /// If the size is zero or beyond 292 million years.
    pub fn tumbling(name: &str, size: Duration) -> Result<Self, String> {
        Self::hopping(name, size, size)
    }

    /// Creates windows that begin every `step`; with a step below the size, a record is in several windows.
    /// Call only in [`init`](crate::Module::init), with a name of its own.
    ///
    /// # Errors
    /// If the size or the step is zero or too long, or a record would be in more than a hundred windows.
    pub fn hopping(name: &str, size: Duration, step: Duration) -> Result<Self, String> {
        let (size, step) = (millis(size)?, millis(step)?);
        if step > size || size.div_euclid(step) > HOPS_MAX {
            return Err(format!(
                "windows of {size} ms cannot hop by {step} ms: use a hundredth of the size to the size"
            ));
        }
        Ok(Self {
            open: Map::new(name),
            tag: tag(name),
            size,
            step,
            key: Vec::new(),
        })
    }

    /// Adds a record to the windows of its key. Returns false, and adds nothing, if the last window is closed
    /// (the record is late) or the key is too long for state.
    pub fn add(&mut self, record: &Record<'_>, add: impl Fn(&mut A)) -> bool {
        self.add_to(
            record.key().unwrap_or_default(),
            record.timestamp(),
            record.watermark(),
            add,
        )
    }

    /// Adds a record like [`Windows::add`], and passes the current content of each of its windows to `early`:
    /// early results before the final results of [`Windows::close`].
    pub fn add_early(
        &mut self,
        record: &Record<'_>,
        add: impl Fn(&mut A),
        mut early: impl FnMut(Closed<'_>, &A),
    ) -> bool {
        let (key, size) = (record.key().unwrap_or_default(), self.size);
        let (at, watermark) = (record.timestamp(), record.watermark());
        self.add_seen(key, at, watermark, add, |end, aggregate| {
            let window = Closed {
                index: record.index(),
                key,
                start: end - size,
                end,
            };
            early(window, aggregate);
        })
    }

    /// Adds to the windows of a given key and time (milliseconds since 1970) instead of a record's.
    pub fn add_to(&mut self, key: &[u8], at: i64, watermark: i64, add: impl Fn(&mut A)) -> bool {
        self.add_seen(key, at, watermark, add, |_, _| {})
    }

    fn add_seen(
        &mut self,
        key: &[u8],
        at: i64,
        watermark: i64,
        add: impl Fn(&mut A),
        mut see: impl FnMut(i64, &A),
    ) -> bool {
        if key.len() > KEY_BYTES_MAX - END_BYTES {
            return false;
        }
        let last = at.div_euclid(self.step).saturating_mul(self.step);
        let (mut start, mut added) = (last, false);
        while start > at.saturating_sub(self.size) {
            let end = start.saturating_add(self.size);
            if end > watermark {
                self.add_to_window(key, end, &add, &mut see);
                added = true;
            }
            let Some(before) = start.checked_sub(self.step) else {
                break;
            };
            start = before;
        }
        added
    }

    fn add_to_window(&mut self, key: &[u8], end: i64, add: &impl Fn(&mut A), see: &mut impl FnMut(i64, &A)) {
        self.key.clear();
        self.key.extend_from_slice(&end.to_be_bytes());
        self.key.extend_from_slice(key);
        let is_new = self.open.update(&self.key, |aggregate| {
            let is_new = aggregate.is_none();
            let aggregate = aggregate.get_or_insert_default();
            add(aggregate);
            see(end, aggregate);
            is_new
        });
        if is_new {
            timers::set(Clock::Event, &self.key, self.tag, end);
        }
    }

    /// Converts windows stored in another form by an earlier version; `make` gets the first millisecond of
    /// each. Call only in [`migrate`](crate::Module::migrate).
    pub fn migrate<Old: DeserializeOwned>(&mut self, mut make: impl FnMut(i64, Old) -> A) {
        let size = self.size;
        self.open.migrate(|key: &[u8], old: Old| {
            let (end, _) = key.split_first_chunk()?;
            Some(make(i64::from_be_bytes(*end) - size, old))
        });
    }

    /// Passes each window that is over to `each`, by end and key, and removes it.
    pub fn close(&mut self, fired: &Fired<'_>, mut each: impl FnMut(Closed<'_>, A)) {
        for timer in fired.timers() {
            let Some((end, key)) = timer.key().split_first_chunk() else {
                continue;
            };
            if timer.tag() != self.tag || fired.clock() != Clock::Event {
                continue;
            }
            let end = i64::from_be_bytes(*end);
            if let Some(aggregate) = self.open.take(timer.key()) {
                let window = Closed {
                    index: timer.index(),
                    key,
                    start: end - self.size,
                    end,
                };
                each(window, aggregate);
            }
        }
    }
}

/// Windows of a number of records per key, whatever their times.
#[derive(Debug)]
pub struct CountWindows<A> {
    open: Map<(u64, A)>,
    size: u64,
}

impl<A: Default + Serialize + DeserializeOwned + 'static> CountWindows<A> {
    /// Creates windows of `size` records. Call only in [`init`](crate::Module::init), with a name of its own.
    pub fn new(name: &str, size: u64) -> Self {
        Self {
            open: Map::new(name),
            size: size.max(1),
        }
    }

    /// Adds a record by its key, of at most [`KEY_BYTES_MAX`] bytes. Returns the content of the window that
    /// the record completes.
    pub fn add(&mut self, key: &[u8], add: impl FnOnce(&mut A)) -> Option<A> {
        let size = self.size;
        self.open.update(key, |window| {
            let (count, aggregate) = window.get_or_insert_default();
            add(aggregate);
            *count += 1;
            if *count < size {
                return None;
            }
            window.take().map(|(_, aggregate)| aggregate)
        })
    }
}

pub(crate) fn millis(duration: Duration) -> Result<i64, String> {
    match i64::try_from(duration.as_millis()) {
        Ok(ms) if ms > 0 && ms < i64::MAX / 2 => Ok(ms),
        _ => Err(format!(
            "{duration:?} is not a valid time: use at least one millisecond"
        )),
    }
}

/// Returns the timer tag of a name: FNV-1a of 32 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>). Tags
/// are stored, so they must not depend on other parts of a module.
pub(crate) fn tag(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests;
