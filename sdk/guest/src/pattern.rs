//! Sequences by key: A, then B, within a time.
//!
//! ```
//! use std::time::Duration;
//! use weir_sdk::pattern::{Pattern, Sequence};
//! use weir_sdk::prelude::*;
//! use weir_sdk::timers::Fired;
//!
//! struct Overheats {
//!     jam: Sequence,
//! }
//!
//! impl Module for Overheats {
//!     const ABOUT: &'static str = "Reports presses that overheat within a minute of being blocked without being stopped.";
//!     const STATE_VERSION: u32 = 1;
//!
//!     fn init(_: &Config) -> Result<(Self, Interface), String> {
//!         let jam = Pattern::first(|r| r.json("state").string().as_deref() == Some("blocked"))
//!             .unless(|r| r.json("state").string().as_deref() == Some("stopped"))
//!             .then(|r| r.json("temperature").number().is_some_and(|t| t > 90.0))
//!             .within("jam", Duration::from_secs(60))?;
//!         Ok((Self { jam }, Interface::values().and_keys()))
//!     }
//!
//!     fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
//!         for record in batch.records() {
//!             if self.jam.add(&record).is_some() {
//!                 out.keep(record.index());
//!             }
//!         }
//!         Ok(())
//!     }
//!
//!     fn on_timers(&mut self, fired: &Fired<'_>, _: &mut Out) -> Result<(), Fault> {
//!         self.jam.forget(fired);
//!         Ok(())
//!     }
//! }
//! # use weir_sdk::testing::{Input, Native};
//! let mut module = Native::<Overheats>::new(&[]).unwrap();
//! let at = |timestamp, v: &str| Input { timestamp, value: Some(v.into()), ..Default::default() };
//! let (blocked, hot) = (r#"{"state":"blocked"}"#, r#"{"temperature":95}"#);
//! let seen = module.process(&[at(0, hot), at(1_000, blocked), at(2_000, hot), at(3_000, hot)]).unwrap();
//! assert_eq!(seen.routes, [0, 0, 1, 0]);
//! ```
//!
//! Records count in order of arrival. Begun sequences are kept in [`crate::state`] and removed by
//! [`crate::timers`] when their time is over: the stage grants both.

use crate::Record;
use crate::state::Map;
use crate::timers::{self, Clock, Fired};
use crate::window::{millis, tag};
use std::fmt;
use std::time::Duration;

type Test = Box<dyn Fn(&Record<'_>) -> bool>;

/// Maximum steps of a pattern: state per key holds a start time per step.
const STEPS_MAX: usize = 32;

/// A pattern under construction: steps in order.
pub struct Pattern {
    steps: Vec<Step>,
}

struct Step {
    is: Test,
    /// Records that must not occur between this step and the next.
    unless: Vec<Test>,
}

impl Pattern {
    /// Begins the pattern with a record for which `is` holds.
    pub fn first(is: impl Fn(&Record<'_>) -> bool + 'static) -> Self {
        Self { steps: Vec::new() }.then(is)
    }

    /// Adds a step: a record for which `is` holds. Other records may come in between.
    #[must_use]
    pub fn then(mut self, is: impl Fn(&Record<'_>) -> bool + 'static) -> Self {
        self.steps.push(Step {
            is: Box::new(is),
            unless: Vec::new(),
        });
        self
    }

    /// Cancels a begun sequence if a record for which `not` holds comes between the last step and the next.
    #[must_use]
    pub fn unless(mut self, not: impl Fn(&Record<'_>) -> bool + 'static) -> Self {
        if let Some(step) = self.steps.last_mut() {
            step.unless.push(Box::new(not));
        }
        self
    }

    /// Completes the pattern: all steps must occur within `time`. Call only in [`init`](crate::Module::init),
    /// with a name of its own.
    ///
    /// # Errors
    /// If the time is zero or too long, or there are more than 32 steps.
    pub fn within(self, name: &str, time: Duration) -> Result<Sequence, String> {
        if self.steps.len() > STEPS_MAX {
            return Err(format!("a sequence has at most {STEPS_MAX} steps"));
        }
        Ok(Sequence {
            steps: self.steps,
            within: millis(time)?,
            tag: tag(name),
            begun: Map::new(name),
        })
    }
}

/// A pattern with its state.
///
/// For each step but the last, only the latest start time is kept: any sequence that an earlier start could
/// complete in time, the latest start can complete too. So a record costs a test per step, and begun
/// sequences do not pile up.
pub struct Sequence {
    steps: Vec<Step>,
    within: i64,
    tag: u32,
    /// By key: start time of the sequence that has reached each step but the last.
    begun: Map<Vec<Option<i64>>>,
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequence")
            .field("steps", &self.steps.len())
            .field("within", &self.within)
            .finish()
    }
}

/// A complete sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Timestamp of the first record, in milliseconds since 1970.
    pub start: i64,
    /// Timestamp of the last record, in milliseconds since 1970.
    pub end: i64,
}

impl Sequence {
    /// Adds the next record of its key and returns the sequence that it completes, if any; the pattern then
    /// starts over. Ignores records with a key too long for state.
    pub fn add(&mut self, record: &Record<'_>) -> Option<Found> {
        let key = record.state_key().ok()?;
        // A time in the future counts as now: otherwise a sequence that seems to begin in an hour would hide
        // current sequences.
        let at = record.timestamp_up_to(record.now());
        let (steps, within) = (&self.steps, self.within);
        let before = self.begun.with(key, |begun| begun.cloned());
        let mut begun = before.clone().unwrap_or_default();
        begun.resize(steps.len() - 1, None);
        for (start, step) in begun.iter_mut().zip(steps) {
            let Some(begin) = *start else { continue };
            let is_over = at > begin.saturating_add(within);
            // A record from before the start says nothing about the sequence.
            let is_ended = at >= begin && step.unless.iter().any(|not| not(record));
            if is_over || is_ended {
                *start = None;
            }
        }
        let mut found = None;
        // From the last step to the first: a record takes one step of a sequence, not two.
        for (n, step) in steps.iter().enumerate().rev() {
            let start = match n.checked_sub(1) {
                None => Some(at),
                Some(before) => begun.get(before).copied().flatten().filter(|start| *start <= at),
            };
            let Some(start) = start.filter(|_| (step.is)(record)) else {
                continue;
            };
            match begun.get_mut(n) {
                Some(place) => {
                    // A start in the future can neither be continued by this record nor block it.
                    let is_ahead = |before: i64| before > at.saturating_add(within) && !record.is_late();
                    let before = place.filter(|before| !is_ahead(*before));
                    *place = Some(before.map_or(start, |before| before.max(start)));
                }
                None => {
                    found = Some(Found { start, end: at });
                    break;
                }
            }
        }
        if found.is_some() {
            begun.clear();
        }
        let latest = begun.iter().flatten().max().copied();
        match latest {
            None if before.is_some() => self.begun.remove(key),
            Some(latest) if before.as_ref() != Some(&begun) => {
                self.begun.insert(key, begun);
                timers::set(
                    Clock::Event,
                    key,
                    self.tag,
                    latest.saturating_add(within).saturating_add(1),
                );
            }
            _ => {}
        }
        found
    }

    /// Removes sequences that can no longer be completed.
    pub fn forget(&mut self, fired: &Fired<'_>) {
        for timer in fired.timers() {
            if timer.tag() == self.tag && fired.clock() == Clock::Event {
                self.begun.remove(timer.key());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::weir::module::types as wit;
    use crate::{Batch, handover};
    use proptest::prelude::*;

    /// Builds records with values and times.
    fn batch(records: &[(u8, i64)]) -> wit::Batch {
        let mut values = crate::state::empty();
        for (value, _) in records {
            values.data.push(*value);
            values.ends.push(values.data.len() as u32);
        }
        wit::Batch {
            source: 0,
            now: 0,
            watermark: i64::MIN,
            timestamps: records.iter().map(|(_, at)| *at).collect(),
            marks: None,
            keys: None,
            values: Some(values),
            headers: None,
        }
    }

    /// Searches by brute force: does any sequence 0, 1, 2 of records from `from` on end at `to`, with no 3
    /// between the first two?
    fn exists(records: &[(u8, i64)], from: usize, to: usize, within: i64) -> Option<i64> {
        let mut latest = None;
        for a in from..to {
            for b in a + 1..to {
                let is = records[a].0 == 0 && records[b].0 == 1 && records[to].0 == 2;
                let barred = records[a + 1..b].iter().any(|r| r.0 == 3);
                if is && !barred && records[to].1 - records[a].1 <= within {
                    latest = latest.max(Some(records[a].1));
                }
            }
        }
        latest
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_is_there(steps in proptest::collection::vec((0..4u8, 0..20i64), 1..60), within in 1..100u64) {
            let mut at = 0;
            let records: Vec<_> = steps.into_iter().map(|(value, step)| { at += step; (value, at) }).collect();
            handover::begin();
            timers::begin();
            crate::state::forget();
            timers::host::forget();
            let is = |wanted: u8| move |r: &Record<'_>| r.value() == Some(&[wanted]);
            let pattern = Pattern::first(is(0)).unless(is(3)).then(is(1)).then(is(2));
            let mut sequence = pattern.within("s", Duration::from_millis(within)).unwrap();
            let (batch, within) = (batch(&records), within as i64);
            let mut from = 0;
            for record in Batch::new(&batch).records() {
                let n = record.index();
                let wanted = exists(&records, from, n, within).map(|start| Found { start, end: records[n].1 });
                prop_assert_eq!(sequence.add(&record), wanted, "at {}", n);
                if wanted.is_some() {
                    from = n + 1;
                }
            }
            handover::flush();
            // Every begun sequence is removed when its time is over.
            for (_, key, tag) in timers::host::take_due(Clock::Event, i64::MAX) {
                prop_assert_eq!(tag, sequence.tag);
                sequence.begun.remove(&key);
            }
            prop_assert!(sequence.begun.scan(b"").is_empty());
        }
    }
}
