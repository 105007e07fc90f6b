//! Whether something has come before, and whether it still comes.
//!
//! ```
//! use std::time::Duration;
//! use weir_sdk::prelude::*;
//! use weir_sdk::presence::{Once, Silence};
//! use weir_sdk::timers::{Clock, Fired};
//!
//! struct Heartbeats {
//!     once: Once,
//!     silence: Silence,
//! }
//!
//! impl Module for Heartbeats {
//!     const ABOUT: &'static str = "Keeps each heartbeat once, and reports a minute without heartbeats.";
//!     const STATE_VERSION: u32 = 1;
//!
//!     fn init(_: &Config) -> Result<(Self, Plan), String> {
//!         let once = Once::new("beats", Duration::from_secs(600))?;
//!         let silence = Silence::new("silent", Duration::from_secs(60), Clock::Event)?;
//!         Ok((Self { once, silence }, Plan::values().and_keys()))
//!     }
//!
//!     fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
//!         for record in batch.records() {
//!             let (key, id) = (record.key().unwrap_or_default(), record.value().unwrap_or_default());
//!             match self.once.is_first(id, &record) {
//!                 Ok(true) => out.keep(record.index()),
//!                 Ok(false) => {}
//!                 Err(why) => out.reject(record.index(), why),
//!             }
//!             let _ = self.silence.see(key, &record, batch.now());
//!         }
//!         Ok(())
//!     }
//!
//!     fn on_timers(&mut self, fired: &Fired<'_>, out: &mut Out) -> Result<(), Fault> {
//!         self.once.forget(fired);
//!         self.silence.fired(fired, |timer, _last| out.emit(timer, 1, &NewRecord::value(b"silent")));
//!         Ok(())
//!     }
//! }
//! # use weir_sdk::testing::{Input, Native};
//! let mut module = Native::<Heartbeats>::new(&[]).unwrap();
//! let seen = module.process(&[Input::value("7"), Input::value("7"), Input::value("8")]).unwrap();
//! assert_eq!(seen.routes, [1, 0, 1]);
//! ```
//!
//! Both keep what they know in [`crate::state`] and forget by [`crate::timers`]: the stage grants both.

use crate::Record;
use crate::state::{KEY_BYTES_MAX, Map};
use crate::timers::{self, Clock, Fired};
use crate::window::{millis, tag};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Deduplication by id within a horizon.
#[derive(Debug)]
pub struct Once {
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

impl Once {
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
            return Err(format!("what tells it apart has more than {KEY_BYTES_MAX} bytes"));
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
        let (is_alone, is_hidden) = self.others.see(id, |others| match others {
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

/// A record dated further ahead than this says that the node's clock is wrong, not its own: the node booted
/// without a clock.
const AHEAD_MAX: i64 = 24 * 3_600_000;

/// Returns a record's time, capped at the node's time. A node whose time is unknown or more than a day behind
/// imposes no cap.
pub(crate) fn not_ahead(at: i64, now: i64) -> i64 {
    let is_ahead = now > 0 && (0..AHEAD_MAX).contains(&at.saturating_sub(now));
    if is_ahead { now } else { at }
}

/// The end of a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Back {
    /// Timestamp of the last record before the silence, in milliseconds since 1970.
    pub last: i64,
    /// True if [`Silence::fired`] has reported the silence. By event time it may not have: the record that
    /// ends a silence may be the first to reveal it.
    pub is_told: bool,
}

/// State of a key.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Seen {
    /// Timestamp of the key's last record.
    last: i64,
    is_silent: bool,
}

/// Detection of keys without records for a time.
#[derive(Debug)]
pub struct Silence {
    seen: Map<Seen>,
    silence: i64,
    clock: Clock,
    tag: u32,
}

impl Silence {
    /// Reports a key after `silence` without records, by event time or processing time. Call only in
    /// [`init`](crate::Module::init), with a name of its own.
    ///
    /// # Errors
    /// If `silence` is zero or too long.
    pub fn new(name: &str, silence: Duration, clock: Clock) -> Result<Self, String> {
        Ok(Self {
            seen: Map::new(name),
            silence: millis(silence)?,
            clock,
            tag: tag(name),
        })
    }

    /// Adds a record of `key` that the node received at `now` (milliseconds since 1970). Returns the silence
    /// that the record ends, if any.
    ///
    /// # Errors
    /// If the key is too long for state.
    pub fn see(&mut self, key: &[u8], record: &Record<'_>, now: i64) -> Result<Option<Back>, String> {
        if key.len() > KEY_BYTES_MAX {
            return Err(format!("its key has more than {KEY_BYTES_MAX} bytes"));
        }
        // A record dated ahead must not hide a silence until then.
        let at = not_ahead(record.timestamp(), now);
        let (by_events, silence) = (self.clock == Clock::Event, self.silence);
        let (silent_since, last) = self.seen.update(key, |seen| {
            let before = *seen;
            // A late record is not the last, and by event time it ends no silence that began after it.
            let last = before.map_or(at, |seen| seen.last.max(at));
            let silent = before.filter(|seen| seen.is_silent && !(by_events && at <= seen.last));
            *seen = Some(Seen {
                last,
                is_silent: before.is_some_and(|seen| seen.is_silent) && silent.is_none(),
            });
            let told = silent.map(|seen| Back {
                last: seen.last,
                is_told: true,
            });
            let passed =
                |seen: &Seen| by_events && !seen.is_silent && at.saturating_sub(seen.last) >= silence;
            let passed = before.filter(passed).map(|seen| Back {
                last: seen.last,
                is_told: false,
            });
            (told.or(passed), last)
        });
        if self.seen.see(key, |seen| seen.is_some_and(|seen| seen.is_silent)) {
            return Ok(None);
        }
        let from = match self.clock {
            Clock::Processing => now,
            Clock::Event => last,
        };
        timers::set(self.clock, key, self.tag, from.saturating_add(self.silence));
        Ok(silent_since)
    }

    /// Passes each key that is silent now to `each`: the index of its timer, as the origin of new records,
    /// and the timestamp of its last record.
    pub fn fired(&mut self, fired: &Fired<'_>, mut each: impl FnMut(usize, i64)) {
        if fired.clock() != self.clock {
            return;
        }
        for timer in fired.timers().filter(|timer| timer.tag() == self.tag) {
            let last = self.seen.update(timer.key(), |seen| {
                let seen = seen.as_mut()?;
                seen.is_silent = true;
                Some(seen.last)
            });
            if let Some(last) = last {
                each(timer.index(), last);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;
    use crate::testing::{Input, Native, Value, texts};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    struct Both {
        once: Once,
        silence: Silence,
    }

    impl Module for Both {
        const ABOUT: &'static str = "";
        const STATE_VERSION: u32 = 1;

        fn parameters() -> Vec<Parameter> {
            vec![Parameter::required::<i64>("ms", "")]
        }

        fn init(config: &Config) -> Result<(Self, Plan), String> {
            let ms: i64 = config.get("ms")?;
            let ms = Duration::from_millis(ms as u64);
            let both = Self {
                once: Once::new("once", ms)?,
                silence: Silence::new("silence", ms, Clock::Event)?,
            };
            Ok((both, Plan::keys()))
        }

        fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
            for record in batch.records() {
                let key = record.key().unwrap_or_default();
                match self.once.is_first(key, &record) {
                    Ok(true) => out.keep(record.index()),
                    Ok(false) => {}
                    Err(why) => out.reject(record.index(), why),
                }
                if let Ok(Some(back)) = self.silence.see(key, &record, batch.now()) {
                    if !back.is_told {
                        let silent = format!("silent {}", back.last);
                        out.emit(record.index(), 1, &NewRecord::value(silent.as_bytes()));
                    }
                    let back = format!("back {}", back.last);
                    out.emit(record.index(), 1, &NewRecord::value(back.as_bytes()));
                }
            }
            Ok(())
        }

        fn on_timers(&mut self, fired: &Fired<'_>, out: &mut Out) -> Result<(), Fault> {
            self.once.forget(fired);
            let said = |timer: usize, last: i64| {
                let silent = format!("silent {last}");
                out.emit(timer, 1, &NewRecord::value(silent.as_bytes()));
            };
            self.silence.fired(fired, said);
            Ok(())
        }
    }

    proptest! {
        /// Compares with a plain table of all keys, scanned whenever time advances.
        #[test]
        fn what_came_before_and_what_does_not_come_are_known(
            records in prop::collection::vec((0..3u8, 0..20i64, 0..30i64), 0..80),
            ms in 1..60i64,
        ) {
            const DISORDER: i64 = 30;
            let mut module = Native::<Both>::new(&[("ms", Value::Integer(ms))]).unwrap();
            let (mut clock, mut first, mut seen) = (0, Vec::<(u8, i64, i64)>::new(), BTreeMap::<u8, (i64, bool)>::new());
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
                let (last, was_silent) = seen.get(&key).copied().unwrap_or((at, false));
                let is_back = was_silent && at > last;
                let has_passed = !was_silent && at - last >= ms;
                let mut told = Vec::new();
                if has_passed {
                    told.push(format!("silent {last}"));
                }
                if is_back || has_passed {
                    told.push(format!("back {last}"));
                }
                prop_assert_eq!(texts(&outcome), told);
                seen.insert(key, (last.max(at), was_silent && !is_back));
                watermark = clock - DISORDER;
                let mut told: Vec<_> = module.advance(Clock::Event, watermark).unwrap().iter().flat_map(texts).collect();
                let mut want = Vec::new();
                for (last, silent) in seen.values_mut().filter(|(last, silent)| !silent && last + ms <= watermark) {
                    *silent = true;
                    want.push(format!("silent {last}"));
                }
                told.sort();
                want.sort();
                prop_assert_eq!(told, want);
            }
        }
    }

    #[test]
    fn what_is_too_long_is_said_to_be() {
        let mut module = Native::<Both>::new(&[("ms", Value::Integer(5))]).unwrap();
        let key = vec![b'k'; KEY_BYTES_MAX + 1];
        let outcome = module
            .process(&[Input {
                key: Some(key),
                ..Input::default()
            }])
            .unwrap();
        assert!(outcome.reasons[0].1.contains("more than 2048 bytes"));
    }
}
