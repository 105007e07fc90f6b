//! Absence: reports keys that fall silent, and their return.
//!
//! ```
//! use std::time::Duration;
//! use weir_sdk::absence::Silence;
//! use weir_sdk::prelude::*;
//! use weir_sdk::timers::{Clock, Fired};
//!
//! struct Watch {
//!     silence: Silence,
//! }
//!
//! impl Module for Watch {
//!     const ABOUT: &'static str = "Reports a minute without heartbeats.";
//!     const STATE_VERSION: u32 = 1;
//!
//!     fn init(_: &Config) -> Result<(Self, Interface), String> {
//!         let silence = Silence::new("silent", Duration::from_secs(60), Clock::Event)?;
//!         Ok((Self { silence }, Interface::keys()))
//!     }
//!
//!     fn process(&mut self, batch: &Batch<'_>, _: &mut Out) -> Result<(), Fault> {
//!         for record in batch.records() {
//!             let _ = self.silence.add(record.key().unwrap_or_default(), &record, batch.now());
//!         }
//!         Ok(())
//!     }
//!
//!     fn on_timers(&mut self, fired: &Fired<'_>, out: &mut Out) -> Result<(), Fault> {
//!         self.silence.fired(fired, |timer, _last| out.emit(timer, 1, &NewRecord::value(b"silent")));
//!         Ok(())
//!     }
//! }
//! # use weir_sdk::testing::{Input, Native};
//! let mut module = Native::<Watch>::new(&[]).unwrap();
//! module.process(&[Input { key: Some(b"pump".to_vec()), ..Input::default() }]).unwrap();
//! let outcome = module.advance(Clock::Event, 60_000).unwrap().unwrap();
//! assert_eq!(outcome.emits[0].values.as_ref().unwrap().data, b"silent");
//! ```
//!
//! Keys are kept in [`crate::state`] and watched by [`crate::timers`]: the stage grants both.

use crate::Record;
use crate::state::{KEY_BYTES_MAX, Map};
use crate::timers::{self, Clock, Fired};
use crate::window::{millis, tag};
use serde::{Deserialize, Serialize};
use std::time::Duration;

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
struct Key {
    /// Timestamp of the key's last record.
    last: i64,
    is_silent: bool,
}

/// Detection of keys without records for a time.
#[derive(Debug)]
pub struct Silence {
    keys: Map<Key>,
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
            keys: Map::new(name),
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
    pub fn add(&mut self, key: &[u8], record: &Record<'_>, now: i64) -> Result<Option<Back>, String> {
        if key.len() > KEY_BYTES_MAX {
            return Err(format!("its key has more than {KEY_BYTES_MAX} bytes"));
        }
        // A record dated ahead must not hide a silence until then.
        let at = record.timestamp_up_to(now);
        let (by_events, silence) = (self.clock == Clock::Event, self.silence);
        let (silent_since, last) = self.keys.update(key, |seen| {
            let before = *seen;
            // A late record is not the last, and by event time it ends no silence that began after it.
            let last = before.map_or(at, |seen| seen.last.max(at));
            let silent = before.filter(|seen| seen.is_silent && !(by_events && at <= seen.last));
            *seen = Some(Key {
                last,
                is_silent: before.is_some_and(|seen| seen.is_silent) && silent.is_none(),
            });
            let told = silent.map(|seen| Back {
                last: seen.last,
                is_told: true,
            });
            let passed = |seen: &Key| by_events && !seen.is_silent && at.saturating_sub(seen.last) >= silence;
            let passed = before.filter(passed).map(|seen| Back {
                last: seen.last,
                is_told: false,
            });
            (told.or(passed), last)
        });
        if self
            .keys
            .with(key, |seen| seen.is_some_and(|seen| seen.is_silent))
        {
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
            let last = self.keys.update(timer.key(), |seen| {
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

    struct Watched {
        silence: Silence,
    }

    impl Module for Watched {
        const ABOUT: &'static str = "";
        const STATE_VERSION: u32 = 1;

        fn parameters() -> Vec<Parameter> {
            vec![Parameter::required::<i64>("ms", "")]
        }

        fn init(config: &Config) -> Result<(Self, Interface), String> {
            let ms: i64 = config.get("ms")?;
            let silence = Silence::new("silence", Duration::from_millis(ms as u64), Clock::Event)?;
            Ok((Self { silence }, Interface::keys()))
        }

        fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
            for record in batch.records() {
                let key = record.key().unwrap_or_default();
                if let Ok(Some(back)) = self.silence.add(key, &record, batch.now()) {
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
            self.silence.fired(fired, |timer, last| {
                let silent = format!("silent {last}");
                out.emit(timer, 1, &NewRecord::value(silent.as_bytes()));
            });
            Ok(())
        }
    }

    proptest! {
        /// Compares with a plain table of all keys, scanned whenever time advances.
        #[test]
        fn silences_and_returns_are_reported_once(
            records in prop::collection::vec((0..3u8, 0..20i64, 0..30i64), 0..80),
            ms in 1..60i64,
        ) {
            const DISORDER: i64 = 30;
            let mut module = Native::<Watched>::new(&[("ms", Value::Integer(ms))]).unwrap();
            let (mut clock, mut seen) = (0, BTreeMap::<u8, (i64, bool)>::new());
            for (key, step, late) in records {
                clock += step;
                let at = clock - late;
                let input = Input { key: Some(vec![key]), timestamp: at, ..Input::default() };
                let outcome = module.process(&[input]).unwrap();
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
                let watermark = clock - DISORDER;
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
}
