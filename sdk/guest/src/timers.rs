//! Calls at a time: a module sets timers, and [`Module::on_timers`](crate::Module::on_timers) is called when they are due.
//!
//! ```
//! use weir_sdk::prelude::*;
//! use weir_sdk::timers::{self, Clock, Fired};
//!
//! struct Silence;
//!
//! impl Module for Silence {
//!     const ABOUT: &'static str = "Says when a key has been silent for a minute.";
//!
//!     fn init(_: &Config) -> Result<(Self, Plan), String> {
//!         Ok((Self, Plan::keys()))
//!     }
//!
//!     fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
//!         for record in batch.records() {
//!             out.keep(record.index());
//!             // Set again, it moves: it fires only when nothing more comes.
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
//! What is set in a call is handed over in one when it ends. The stage of the pipeline says `grants = ["timers"]`.

use crate::bindings::weir::module::types as wit;
use crate::handover::{self, Flush};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// What a timer goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clock {
    /// The time in the records: a timer is due when the watermark has passed it.
    Event,
    /// The time at which the node works.
    Processing,
}

/// Sets the timer of `clock` for `key` and `tag` to `at`, in milliseconds since 1970; if it is set, it moves. One for a time
/// that has passed fires when its clock moves next.
pub fn set(clock: Clock, key: &[u8], tag: u32, at: i64) {
    push(clock, key, tag, Some(at));
}

/// Clears it.
pub fn clear(clock: Clock, key: &[u8], tag: u32) {
    push(clock, key, tag, None);
}

/// Timers that are due.
#[derive(Clone, Copy, Debug)]
pub struct Fired<'a>(&'a wit::Fired);

/// One of them.
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

    /// What they go by.
    pub fn clock(&self) -> Clock {
        match self.0.clock {
            wit::Clock::Event => Clock::Event,
            wit::Clock::Processing => Clock::Processing,
        }
    }

    /// The time that it is, in milliseconds since 1970. The same when the call is replayed.
    pub fn now(&self) -> i64 {
        self.0.now
    }

    /// No record before this time is expected any more; the smallest number when that is not known.
    pub fn watermark(&self) -> i64 {
        self.0.watermark
    }

    /// They, by time and key.
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
    /// Its place: what [`Out::emit`](crate::Out::emit) is told that a new record stems from, and takes key and time of.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its key.
    pub fn key(&self) -> &'a [u8] {
        self.key
    }

    /// Its tag.
    pub fn tag(&self) -> u32 {
        self.tag
    }

    /// When it was due.
    pub fn at(&self) -> i64 {
        self.at
    }
}

/// Timers of one clock that are set or cleared in one call of the host.
#[derive(Debug)]
struct Run {
    clock: Clock,
    keys: wit::Column,
    tags: Vec<u32>,
    /// Empty where they are cleared.
    at: Vec<i64>,
}

thread_local! {
    static RUNS: RefCell<Vec<Run>> = const { RefCell::new(Vec::new()) };
    /// Whether the instance has had a timer: they are held from then on.
    static IS_HELD: Cell<bool> = const { Cell::new(false) };
}

fn push(clock: Clock, key: &[u8], tag: u32, at: Option<i64>) {
    if !IS_HELD.replace(true) {
        handover::hold(Rc::new(Runs));
    }
    RUNS.with(|runs| {
        let mut runs = runs.borrow_mut();
        // In their order: a timer may be set and cleared in one call.
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

/// What a call set.
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

/// Forgets what a call of an instance before had set.
pub(crate) fn begin() {
    RUNS.with(|runs| runs.borrow_mut().clear());
    IS_HELD.set(false);
}

#[cfg(target_arch = "wasm32")]
mod host {
    pub(super) use crate::bindings::weir::module::timers::{clear, set};
}

/// Timers of this thread, so that modules run in ordinary tests.
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

    /// Takes those that are due by `until`, in their order.
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
