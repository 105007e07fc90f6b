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
//!     const ABOUT: &'static str = "Each heartbeat once, and a word when there is none for a minute.";
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

/// What was seen before within a horizon, by an id.
#[derive(Debug)]
pub struct Once {
    /// When each was seen first.
    first: Map<i64>,
    horizon: i64,
    tag: u32,
}

impl Once {
    /// Remembers each id for `horizon`, by the records' times. In [`init`](crate::Module::init) only, each name once.
    ///
    /// # Errors
    /// When that is no time at all.
    pub fn new(name: &str, horizon: Duration) -> Result<Self, String> {
        Ok(Self {
            first: Map::new(name),
            horizon: millis(horizon)?,
            tag: tag(name),
        })
    }

    /// Whether `id` was not seen before `record`, or so long ago that it counts as new.
    ///
    /// # Errors
    /// When it is too long to be remembered.
    pub fn is_first(&mut self, id: &[u8], record: &Record<'_>) -> Result<bool, String> {
        if id.len() > KEY_BYTES_MAX {
            return Err(format!("what tells it apart has more than {KEY_BYTES_MAX} bytes"));
        }
        let (at, horizon) = (record.timestamp(), self.horizon);
        let is_new = self.first.update(id, |first| match first {
            Some(first) if at.saturating_sub(*first) < horizon => false,
            _ => {
                *first = Some(at);
                true
            }
        });
        if is_new {
            timers::set(Clock::Event, id, self.tag, at.saturating_add(horizon));
        }
        Ok(is_new)
    }

    /// Forgets what was seen long enough ago.
    pub fn forget(&mut self, fired: &Fired<'_>) {
        if fired.clock() != Clock::Event {
            return;
        }
        for timer in fired.timers().filter(|timer| timer.tag() == self.tag) {
            self.first.remove(timer.key());
        }
    }
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Seen {
    /// Time of its last record.
    last: i64,
    is_silent: bool,
}

/// Keys that nothing comes with for so long.
#[derive(Debug)]
pub struct Silence {
    seen: Map<Seen>,
    silence: i64,
    clock: Clock,
    tag: u32,
}

impl Silence {
    /// Notices when a key is silent for `silence`, by the records' times or by the node's. In [`init`](crate::Module::init)
    /// only, each name once.
    ///
    /// # Errors
    /// When that is no time at all.
    pub fn new(name: &str, silence: Duration, clock: Clock) -> Result<Self, String> {
        Ok(Self {
            seen: Map::new(name),
            silence: millis(silence)?,
            clock,
            tag: tag(name),
        })
    }

    /// Takes a record with `key`, which the node took in at `now`. If it ends a silence, the time of the record before it.
    ///
    /// # Errors
    /// When the key is too long to be remembered.
    pub fn see(&mut self, key: &[u8], record: &Record<'_>, now: i64) -> Result<Option<i64>, String> {
        if key.len() > KEY_BYTES_MAX {
            return Err(format!("its key has more than {KEY_BYTES_MAX} bytes"));
        }
        let at = record.timestamp();
        let (silent_since, last) = self.seen.update(key, |seen| {
            let before = *seen;
            // One that comes late is not the last.
            let last = before.map_or(at, |seen| seen.last.max(at));
            *seen = Some(Seen {
                last,
                is_silent: false,
            });
            (before.filter(|seen| seen.is_silent).map(|seen| seen.last), last)
        });
        let from = match self.clock {
            Clock::Processing => now,
            Clock::Event => last,
        };
        timers::set(self.clock, key, self.tag, from.saturating_add(self.silence));
        Ok(silent_since)
    }

    /// Hands each key that is silent now to `each`: the index of the timer, which new records stem from, and the time of its last
    /// record.
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
                if let Ok(Some(last)) = self.silence.see(key, &record, batch.now()) {
                    let back = format!("back {last}");
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
        /// Against a table of all keys that is looked at whenever time goes on.
        #[test]
        fn what_came_before_and_what_does_not_come_are_known(
            records in prop::collection::vec((0..3u8, 0..20i64, 0..30i64), 0..80),
            ms in 1..60i64,
        ) {
            const DISORDER: i64 = 30;
            let mut module = Native::<Both>::new(&[("ms", Value::Integer(ms))]).unwrap();
            let (mut clock, mut first, mut seen) = (0, BTreeMap::<u8, i64>::new(), BTreeMap::<u8, (i64, bool)>::new());
            for (key, step, late) in records {
                clock += step;
                let at = clock - late;
                let input = Input { key: Some(vec![key]), timestamp: at, ..Input::default() };
                let outcome = module.process(&[input]).unwrap();
                let is_first = first.get(&key).is_none_or(|first| at - first >= ms);
                if is_first {
                    first.insert(key, at);
                }
                prop_assert_eq!(outcome.routes.first() == Some(&1), is_first);
                let (last, was_silent) = seen.get(&key).copied().unwrap_or((at, false));
                let back = was_silent.then(|| format!("back {last}"));
                prop_assert_eq!(texts(&outcome), back.into_iter().collect::<Vec<_>>());
                seen.insert(key, (last.max(at), false));
                let watermark = clock - DISORDER;
                let mut told: Vec<_> = module.advance(Clock::Event, watermark).unwrap().iter().flat_map(texts).collect();
                let mut want = Vec::new();
                for (last, silent) in seen.values_mut().filter(|(last, silent)| !silent && last + ms <= watermark) {
                    *silent = true;
                    want.push(format!("silent {last}"));
                }
                first.retain(|_, first| *first + ms > watermark);
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
