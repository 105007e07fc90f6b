//! Timers: a module sets timers, and [`Module::on_timers`](crate::Module::on_timers) is called when they are
//! due.
//!
//! ```
//! use weir_sdk::prelude::*;
//! use weir_sdk::timers::{self, Clock, Fired};
//!
//! struct Silence;
//!
//! impl Module for Silence {
//!     const ABOUT: &'static str = "Reports keys that have been silent for a minute.";
//!
//!     fn init(_: &Config) -> Result<(Self, Interface), String> {
//!         Ok((Self, Interface::keys()))
//!     }
//!
//!     fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
//!         for record in batch.records() {
//!             out.keep(record.index());
//!             // Setting a pending timer moves it: it fires only if no more records come.
//!             timers::set(Clock::Processing, record.key().unwrap_or_default(), 0, batch.now() + 60_000);
//!         }
//!         Ok(())
//!     }
//!
//!     fn on_timers(&mut self, fired: &Fired<'_>, out: &mut Out) -> Result<(), Fault> {
//!         for timer in fired.timers() {
//!             out.emit(timer.index(), 1, &NewRecord::value(b"silent for a minute"));
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let mut module = weir_sdk::testing::Native::<Silence>::new(&[]).unwrap();
//! let record = weir_sdk::testing::Input { key: Some(b"pump".to_vec()), ..Default::default() };
//! module.process(&[record]).unwrap();
//! assert!(module.advance(Clock::Processing, 59_999).unwrap().is_none());
//! let fired = module.advance(Clock::Processing, 60_000).unwrap().unwrap();
//! assert_eq!(fired.emits[0].values.as_ref().unwrap().data, b"silent for a minute");
//! ```
//!
//! All changes of a call are handed to the host in a single call at its end. The stage of the pipeline needs
//! `grants = ["timers"]`.

use crate::bindings::weir::module::types as wit;
use crate::handover::{self, Flush};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The clock of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clock {
    /// Event time: a timer is due when the watermark has passed its time.
    Event,
    /// Processing time: the node's clock.
    Processing,
}

/// Sets the timer of `clock` for `key` and `tag` to `at`, in milliseconds since 1970; a pending timer moves.
/// A timer in the past fires at the next advance of its clock.
pub fn set(clock: Clock, key: &[u8], tag: u32, at: i64) {
    push(clock, key, tag, Some(at));
}

/// Clears the timer of `clock` for `key` and `tag`.
pub fn clear(clock: Clock, key: &[u8], tag: u32) {
    push(clock, key, tag, None);
}

/// Due timers.
#[derive(Clone, Copy, Debug)]
pub struct Fired<'a>(&'a wit::Fired);

/// A due timer.
#[derive(Clone, Copy, Debug)]
pub struct FiredTimer<'a> {
    index: usize,
    key: &'a [u8],
    tag: u32,
    at: i64,
}

impl<'a> Fired<'a> {
    pub(crate) fn new(fired: &'a wit::Fired) -> Self {
        Self(fired)
    }

    /// Returns the clock of the timers.
    pub fn clock(&self) -> Clock {
        match self.0.clock {
            wit::Clock::Event => Clock::Event,
            wit::Clock::Processing => Clock::Processing,
        }
    }

    /// Returns the current time of the clock, in milliseconds since 1970. A replayed call gets the same time.
    pub fn now(&self) -> i64 {
        self.0.now
    }

    /// Returns the watermark, in milliseconds since 1970; [`i64::MIN`] if unknown.
    pub fn watermark(&self) -> i64 {
        self.0.watermark
    }

    /// Returns the timers, by time and key.
    pub fn timers(&self) -> impl Iterator<Item = FiredTimer<'a>> {
        let keys = crate::Column::new(&self.0.keys);
        let times = self.0.at.iter().zip(&self.0.tags).enumerate();
        times.map(move |(index, (at, tag))| FiredTimer {
            index,
            key: keys.get(index).unwrap_or_default(),
            tag: *tag,
            at: *at,
        })
    }
}

impl<'a> FiredTimer<'a> {
    /// Returns the timer's index: the origin of new records in [`Out::emit`](crate::Out::emit), which take
    /// key and time from the timer.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the key.
    pub fn key(&self) -> &'a [u8] {
        self.key
    }

    /// Returns the tag.
    pub fn tag(&self) -> u32 {
        self.tag
    }

    /// Returns the time at which the timer was due, in milliseconds since 1970.
    pub fn at(&self) -> i64 {
        self.at
    }
}

/// Timers of a clock that are set or cleared in a single host call.
#[derive(Debug)]
struct Run {
    clock: Clock,
    keys: wit::Column,
    tags: Vec<u32>,
    /// Times of the timers; empty to clear them.
    at: Vec<i64>,
}

thread_local! {
    static RUNS: RefCell<Vec<Run>> = const { RefCell::new(Vec::new()) };
    /// True once the instance has used a timer: only then are timers registered for the handover.
    static IS_HELD: Cell<bool> = const { Cell::new(false) };
}

fn push(clock: Clock, key: &[u8], tag: u32, at: Option<i64>) {
    if !IS_HELD.replace(true) {
        handover::hold(Rc::new(Runs));
    }
    RUNS.with(|runs| {
        let mut runs = runs.borrow_mut();
        // Order matters: a timer may be set and cleared in the same call.
        let fits = |run: &Run| run.clock == clock && run.at.is_empty() == at.is_none();
        if !runs.last().is_some_and(fits) {
            let keys = crate::state::empty();
            runs.push(Run {
                clock,
                keys,
                tags: Vec::new(),
                at: Vec::new(),
            });
        }
        if let Some(run) = runs.last_mut() {
            run.keys.data.extend_from_slice(key);
            run.keys.ends.push(run.keys.data.len() as u32);
            run.tags.push(tag);
            run.at.extend(at);
        }
    });
}

/// The timer changes of a call.
struct Runs;

impl Flush for Runs {
    fn flush(&self) {
        RUNS.with(|runs| {
            for run in runs.borrow_mut().drain(..) {
                let clock = match run.clock {
                    Clock::Event => wit::Clock::Event,
                    Clock::Processing => wit::Clock::Processing,
                };
                match run.at.is_empty() {
                    true => host::clear(clock, &run.keys, &run.tags),
                    false => host::set(clock, &run.keys, &run.tags, &run.at),
                }
            }
        });
    }
}

/// Drops the changes of an earlier native instance.
pub(crate) fn begin() {
    RUNS.with(|runs| runs.borrow_mut().clear());
    IS_HELD.set(false);
}

#[cfg(target_arch = "wasm32")]
mod host {
    pub(super) use crate::bindings::weir::module::timers::{clear, set};
}

/// Timers per thread, so that modules run in ordinary tests.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod host {
    use super::{Clock, wit};
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    type Timers = BTreeMap<(Clock, Vec<u8>, u32), i64>;

    thread_local! {
        static TIMERS: RefCell<Timers> = const { RefCell::new(BTreeMap::new()) };
    }

    pub(crate) fn forget() {
        TIMERS.with(|timers| timers.borrow_mut().clear());
    }

    pub(super) fn set(clock: wit::Clock, keys: &wit::Column, tags: &[u32], at: &[i64]) {
        each(clock, keys, tags, |timers, n, timer| {
            if let Some(at) = at.get(n) {
                timers.insert(timer, *at);
            }
        });
    }

    pub(super) fn clear(clock: wit::Clock, keys: &wit::Column, tags: &[u32]) {
        each(clock, keys, tags, |timers, _, timer| {
            timers.remove(&timer);
        });
    }

    fn each(
        clock: wit::Clock,
        keys: &wit::Column,
        tags: &[u32],
        change: impl Fn(&mut Timers, usize, (Clock, Vec<u8>, u32)),
    ) {
        let clock = match clock {
            wit::Clock::Event => Clock::Event,
            wit::Clock::Processing => Clock::Processing,
        };
        let keys = crate::Column::new(keys);
        TIMERS.with(|timers| {
            for (n, tag) in tags.iter().enumerate() {
                let key = keys.get(n).unwrap_or_default().to_vec();
                change(&mut timers.borrow_mut(), n, (clock, key, *tag));
            }
        });
    }

    /// Removes and returns the timers due by `until`, in order.
    pub(crate) fn take_due(clock: Clock, until: i64) -> Vec<(i64, Vec<u8>, u32)> {
        TIMERS.with(|timers| {
            let mut timers = timers.borrow_mut();
            let due = timers.iter().filter(|((c, ..), at)| *c == clock && **at <= until);
            let mut due: Vec<_> = due.map(|((_, key, tag), at)| (*at, key.clone(), *tag)).collect();
            due.sort();
            for (_, key, tag) in &due {
                timers.remove(&(clock, key.clone(), *tag));
            }
            due
        })
    }
}
