//! Deduplication: keeps records that were not seen before.
//!
//! ```
//! use std::time::Duration;
//! use weir_sdk::dedup::Seen;
//! use weir_sdk::prelude::*;
//! use weir_sdk::timers::Fired;
//!
//! struct Beats {
//!     seen: Seen,
//! }
//!
//! impl Module for Beats {
//!     const ABOUT: &'static str = "Keeps each heartbeat once.";
//!     const STATE_VERSION: u32 = 1;
//!
//!     fn init(_: &Config) -> Result<(Self, Interface), String> {
//!         let seen = Seen::new("beats", Duration::from_secs(600))?;
//!         Ok((Self { seen }, Interface::values()))
//!     }
//!
//!     fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
//!         for record in batch.records() {
//!             match self.seen.is_first(record.value().unwrap_or_default(), &record) {
//!                 Ok(true) => out.keep(record.index()),
//!                 Ok(false) => {}
//!                 Err(why) => out.reject(record.index(), why),
//!             }
//!         }
//!         Ok(())
//!     }
//!
//!     fn on_timers(&mut self, fired: &Fired<'_>, _: &mut Out) -> Result<(), Fault> {
//!         self.seen.forget(fired);
//!         Ok(())
//!     }
//! }
//! # use weir_sdk::testing::{Input, Native};
//! let mut module = Native::<Beats>::new(&[]).unwrap();
//! let outcome = module.process(&[Input::value("7"), Input::value("7"), Input::value("8")]).unwrap();
//! assert_eq!(outcome.routes, [1, 0, 1]);
//! ```
//!
//! Ids are kept in [`crate::state`] and removed by [`crate::timers`]: the stage grants both.

use crate::Record;
use crate::state::{KEY_BYTES_MAX, Map};
use crate::timers::{self, Clock, Fired};
use crate::window::{millis, tag};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Deduplication by id within a horizon.
#[derive(Debug)]
pub struct Seen {
    /// Time of the first sighting by id.
    first: Map<i64>,
    /// Other sightings that counted as new, because records came out of order.
    others: Map<Vec<Sight>>,
    horizon: i64,
    tag: u32,
}

/// A sighting that counted as new although another sighting of the id is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sight {
    at: i64,
    /// The watermark at which the sighting is forgotten.
    until: i64,
}

/// Maximum sightings of an id beside the first; the next to expire makes room.
const OTHERS_MAX: usize = 64;

impl Seen {
    /// Remembers each id for `horizon`, by event time. Call only in [`init`](crate::Module::init), with a
    /// name of its own.
    ///
    /// # Errors
    /// If the horizon is zero or too long.
    pub fn new(name: &str, horizon: Duration) -> Result<Self, String> {
        Ok(Self {
            first: Map::new(name),
            others: Map::new(&format!("{name}.others")),
            horizon: millis(horizon)?,
            tag: tag(name),
        })
    }

    /// Returns true if `id` is new: no remembered sighting is less than the horizon away from `record`.
    /// Records may come in any order: an id seen an hour ago and the same id now do not hide each other.
    ///
    /// # Errors
    /// If the id is too long for state.
    pub fn is_first(&mut self, id: &[u8], record: &Record<'_>) -> Result<bool, String> {
        if id.len() > KEY_BYTES_MAX {
            return Err(format!("its id has more than {KEY_BYTES_MAX} bytes"));
        }
        let (at, watermark) = (record.timestamp(), record.watermark());
        let Some(first) = self.first.get(id) else {
            self.first.insert(id, at);
            let next = match at < watermark {
                true => self.add(id, at, watermark),
                false => at.saturating_add(self.horizon),
            };
            timers::set(Clock::Event, id, self.tag, next);
            return Ok(true);
        };
        let is_near = |seen: i64| at.abs_diff(seen) < self.horizon.unsigned_abs();
        let (is_alone, is_hidden) = self.others.with(id, |others| match others {
            Some(others) => (false, others.iter().any(|other| is_near(other.at))),
            None => (true, false),
        });
        let end = first.saturating_add(self.horizon);
        if is_hidden || (is_near(first) && end > watermark) {
            return Ok(false);
        }
        let next = match is_alone && end <= watermark && at >= watermark {
            true => {
                self.first.insert(id, at);
                at.saturating_add(self.horizon)
            }
            false => {
                let next = self.add(id, at, watermark);
                if end > watermark { next.min(end) } else { next }
            }
        };
        timers::set(Clock::Event, id, self.tag, next);
        Ok(true)
    }

    /// Remembers a sighting beside the first. Returns the watermark at which the first of them expires.
    fn add(&mut self, id: &[u8], at: i64, watermark: i64) -> i64 {
        let until = at.max(watermark).saturating_add(self.horizon);
        self.others.update(id, |others| {
            let others = others.get_or_insert_default();
            let by_end = others.iter().enumerate().min_by_key(|(_, other)| other.until);
            if let Some(soonest) = by_end.map(|(n, _)| n).filter(|_| others.len() >= OTHERS_MAX) {
                others.swap_remove(soonest);
            }
            others.push(Sight { at, until });
            others.iter().map(|other| other.until).min().unwrap_or(until)
        })
    }

    /// Forgets sightings older than the horizon.
    pub fn forget(&mut self, fired: &Fired<'_>) {
        if fired.clock() != Clock::Event {
            return;
        }
        for timer in fired.timers().filter(|timer| timer.tag() == self.tag) {
            let (id, watermark) = (timer.key(), fired.watermark().max(timer.at()));
            let others = self.others.update(id, |slot| {
                let others = slot.as_mut()?;
                others.retain(|other| other.until > watermark);
                let next = others.iter().map(|other| other.until).min();
                if next.is_none() {
                    *slot = None;
                }
                next
            });
            let first = self.first.get(id).map(|first| first.saturating_add(self.horizon));
            let first = first.filter(|end| *end > watermark);
            // Other sightings exist only beside a first sighting.
            if first.is_none() && others.is_none() {
                self.first.remove(id);
            }
            if let Some(next) = first.into_iter().chain(others).min() {
                timers::set(Clock::Event, id, self.tag, next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;
    use crate::testing::{Input, Native, Value};
    use proptest::prelude::*;

    struct Deduplicated {
        seen: Seen,
    }

    impl Module for Deduplicated {
        const ABOUT: &'static str = "";
        const STATE_VERSION: u32 = 1;

        fn parameters() -> Vec<Parameter> {
            vec![Parameter::required::<i64>("ms", "")]
        }

        fn init(config: &Config) -> Result<(Self, Interface), String> {
            let ms: i64 = config.get("ms")?;
            let seen = Seen::new("seen", Duration::from_millis(ms as u64))?;
            Ok((Self { seen }, Interface::keys()))
        }

        fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
            for record in batch.records() {
                match self.seen.is_first(record.key().unwrap_or_default(), &record) {
                    Ok(true) => out.keep(record.index()),
                    Ok(false) => {}
                    Err(why) => out.reject(record.index(), why),
                }
            }
            Ok(())
        }

        fn on_timers(&mut self, fired: &Fired<'_>, _: &mut Out) -> Result<(), Fault> {
            self.seen.forget(fired);
            Ok(())
        }
    }

    proptest! {
        /// Compares with a plain list of all sightings.
        #[test]
        fn ids_within_the_horizon_are_duplicates(
            records in prop::collection::vec((0..3u8, 0..20i64, 0..30i64), 0..80),
            ms in 1..60i64,
        ) {
            const DISORDER: i64 = 30;
            let mut module = Native::<Deduplicated>::new(&[("ms", Value::Integer(ms))]).unwrap();
            let (mut clock, mut first) = (0, Vec::<(u8, i64, i64)>::new());
            let mut watermark = i64::MIN;
            for (key, step, late) in records {
                clock += step;
                let at = clock - late;
                let input = Input { key: Some(vec![key]), timestamp: at, ..Input::default() };
                let outcome = module.process(&[input]).unwrap();
                let near = |(of, other, until): &(u8, i64, i64)| *of == key && *until > watermark && at.abs_diff(*other) < ms as u64;
                let is_first = !first.iter().any(near);
                if is_first {
                    first.push((key, at, at.max(watermark).saturating_add(ms)));
                }
                prop_assert_eq!(outcome.routes.first() == Some(&1), is_first);
                watermark = clock - DISORDER;
                module.advance(Clock::Event, watermark).unwrap();
            }
        }
    }

    #[test]
    fn an_id_too_long_for_state_is_rejected() {
        let mut module = Native::<Deduplicated>::new(&[("ms", Value::Integer(5))]).unwrap();
        let key = Some(vec![b'k'; KEY_BYTES_MAX + 1]);
        let outcome = module
            .process(&[Input {
                key,
                ..Input::default()
            }])
            .unwrap();
        assert!(outcome.reasons[0].1.contains("more than 2048 bytes"));
    }
}
