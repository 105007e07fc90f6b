//! Sequences: A, then B, within so long, by key.
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
//!     const ABOUT: &'static str = "Tells of a press that is hot within a minute of being blocked, and was not stopped.";
//!     const STATE_VERSION: u32 = 1;
//!
//!     fn init(_: &Config) -> Result<(Self, Plan), String> {
//!         let jam = Pattern::first(|r| r.json("state").string().as_deref() == Some("blocked"))
//!             .unless(|r| r.json("state").string().as_deref() == Some("stopped"))
//!             .then(|r| r.json("temperature").number().is_some_and(|t| t > 90.0))
//!             .within("jam", Duration::from_secs(60))?;
//!         Ok((Self { jam }, Plan::values().and_keys()))
//!     }
//!
//!     fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
//!         for record in batch.records() {
//!             if self.jam.see(&record).is_some() {
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
//! Records count in the order in which they come. What is begun is in [`crate::state`], and forgotten by [`crate::timers`] when its
//! time is over: the stage grants both.

use crate::Record;
use crate::state::Map;
use crate::timers::{self, Clock, Fired};
use crate::window::{millis, tag};
use std::fmt;
use std::time::Duration;

type Test = Box<dyn Fn(&Record<'_>) -> bool>;

/// Steps of a pattern, at most: one start each is kept by key.
const STEPS_MAX: usize = 32;

/// What comes after what, as it is written down.
pub struct Pattern {
    steps: Vec<Step>,
}

struct Step {
    is: Test,
    /// What must not come between this step and the next.
    unless: Vec<Test>,
}

impl Pattern {
    /// Begins with a record of which `is` holds.
    pub fn first(is: impl Fn(&Record<'_>) -> bool + 'static) -> Self {
        Self { steps: Vec::new() }.then(is)
    }

    /// Goes on with one of which `is` holds; others may come between.
    #[must_use]
    pub fn then(mut self, is: impl Fn(&Record<'_>) -> bool + 'static) -> Self {
        self.steps.push(Step {
            is: Box::new(is),
            unless: Vec::new(),
        });
        self
    }

    /// Ends, and is none, when one of which `not` holds comes between the last step and the next.
    #[must_use]
    pub fn unless(mut self, not: impl Fn(&Record<'_>) -> bool + 'static) -> Self {
        if let Some(step) = self.steps.last_mut() {
            step.unless.push(Box::new(not));
        }
        self
    }

    /// All of it within so long. In [`init`](crate::Module::init) only, each name once.
    ///
    /// # Errors
    /// When the time is none, or there are more than 32 steps.
    pub fn within(self, name: &str, time: Duration) -> Result<Sequence, String> {
        if self.steps.len() > STEPS_MAX {
            return Err(format!("a sequence has {STEPS_MAX} steps at most"));
        }
        Ok(Sequence {
            steps: self.steps,
            within: millis(time)?,
            tag: tag(name),
            begun: Map::new(name),
        })
    }
}

/// A pattern at work.
///
/// Of each step but the last, the latest start of what has come so far is kept: whatever an earlier start could still become
/// in time, the later one can too. So a record costs a test a step, and no number of begun sequences piles up.
pub struct Sequence {
    steps: Vec<Step>,
    within: i64,
    tag: u32,
    /// By key: when what has come to each step but the last began.
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

/// A sequence that is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Time of its first record.
    pub start: i64,
    /// Time of its last.
    pub end: i64,
}

impl Sequence {
    /// Takes the next record of its key, and says whether it completes a sequence; the next one then begins anew. A record whose
    /// key is too long to be kept is part of none.
    pub fn see(&mut self, record: &Record<'_>) -> Option<Found> {
        let key = record.state_key().ok()?;
        // A time ahead of the node's counts as the node's: what seems to begin in an hour would hide what begins now.
        let at = crate::presence::not_ahead(record.timestamp(), record.now());
        let (steps, within) = (&self.steps, self.within);
        let before = self.begun.see(key, |begun| begun.cloned());
        let mut begun = before.clone().unwrap_or_default();
        begun.resize(steps.len() - 1, None);
        for (start, step) in begun.iter_mut().zip(steps) {
            let Some(begin) = *start else { continue };
            let is_over = at > begin.saturating_add(within);
            // One that is from before it began says nothing of it.
            let is_ended = at >= begin && step.unless.iter().any(|not| not(record));
            if is_over || is_ended {
                *start = None;
            }
        }
        let mut found = None;
        // From the last: a record is one step of a sequence, not two.
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
                    // One that began in the future cannot be what this goes on from, and does not stand in its way.
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

    /// Forgets what can no longer be completed.
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

    /// Records of values, a time each.
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

    /// Whether records from `from` on make the sequence 0, 1, 2 that ends at `to`, with no 3 between the first two: tried out.
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
                prop_assert_eq!(sequence.see(&record), wanted, "at {}", n);
                if wanted.is_some() {
                    from = n + 1;
                }
            }
            handover::flush();
            // All that is begun is forgotten when its time is over.
            for (_, key, tag) in timers::host::take_due(Clock::Event, i64::MAX) {
                prop_assert_eq!(tag, sequence.tag);
                sequence.begun.remove(&key);
            }
            prop_assert!(sequence.begun.scan(b"").is_empty());
        }
    }
}
