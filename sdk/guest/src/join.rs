//! Joins: pairs of records from two topics with the same key and nearby times.
//!
//! ```
//! use std::time::Duration;
//! use weir_sdk::join::{Join, Side};
//! use weir_sdk::prelude::*;
//! use weir_sdk::timers::Fired;
//!
//! struct Paid {
//!     orders: Join,
//! }
//!
//! impl Module for Paid {
//!     const ABOUT: &'static str = "Orders with what was paid for them within an hour, before or after.";
//!     const STATE_VERSION: u32 = 1;
//!
//!     fn init(_: &Config) -> Result<(Self, Interface), String> {
//!         let orders = Join::new("orders", Duration::from_secs(3_600))?;
//!         Ok((Self { orders }, Interface::values().and_keys()))
//!     }
//!
//!     fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
//!         let side = if batch.source() == 0 { Side::Left } else { Side::Right };
//!         for record in batch.records() {
//!             let key = record.key().unwrap_or_default();
//!             let joined = self.orders.add(side, key, &record, |other| {
//!                 let (order, payment) = other.in_order(side, record.value());
//!                 let both = [order.unwrap_or_default(), b" ", payment.unwrap_or_default()].concat();
//!                 out.emit(record.index(), 1, &NewRecord::value(&both));
//!             });
//!             if let Err(why) = joined {
//!                 out.reject(record.index(), why);
//!             }
//!         }
//!         Ok(())
//!     }
//!
//!     fn on_timers(&mut self, fired: &Fired<'_>, _: &mut Out) -> Result<(), Fault> {
//!         self.orders.forget(fired);
//!         Ok(())
//!     }
//! }
//! # use weir_sdk::testing::{Input, Native};
//! let mut module = Native::<Paid>::new(&[]).unwrap();
//! module.process_from(0, &[Input::value("A-7")]).unwrap();
//! let seen = module.process_from(1, &[Input::value("12.50")]).unwrap();
//! assert_eq!(seen.emits[0].values.as_ref().unwrap().data, b"A-7 12.50");
//! ```
//!
//! Each pair is emitted once, when its later record arrives. A record is kept in [`crate::state`] while a
//! timely record may still match, then removed by [`crate::timers`]: the stage grants both.
//!
//! To join with a *table* (the last record of a topic by key), a [`Map`] is enough: store the records of the
//! table, look up the key of every other record.

use crate::Record;
use crate::state::{KEY_BYTES_MAX, Map};
use crate::timers::{self, Clock, Fired};
use crate::window::{millis, tag};
use std::time::Duration;

/// Maximum records of a key that wait on one side: each record of the other side visits all of them.
pub const WAITING_MAX: usize = 1_000;

/// A side of the join: one of its two topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The left topic.
    Left,
    /// The right topic.
    Right,
}

/// A match of the current record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other<'a> {
    /// The timestamp, in milliseconds since 1970.
    pub at: i64,
    /// The value.
    pub value: Option<&'a [u8]>,
}

impl<'a> Other<'a> {
    /// Returns the values of the pair as (left, right), given the current record's `side` and value.
    pub fn in_order(&self, side: Side, came: Option<&'a [u8]>) -> (Option<&'a [u8]>, Option<&'a [u8]>) {
        match side {
            Side::Left => (came, self.value),
            Side::Right => (self.value, came),
        }
    }
}

/// Timestamps and values of waiting records, in order of arrival.
type Waiting = Vec<(i64, Option<Vec<u8>>)>;

/// A join of two topics by key and time. See the [module docs](self).
#[derive(Debug)]
pub struct Join {
    left: Map<Waiting>,
    right: Map<Waiting>,
    within: i64,
    tag: u32,
}

impl Join {
    /// Creates a join of records at most `within` apart. Call only in [`init`](crate::Module::init), with a
    /// name of its own.
    ///
    /// # Errors
    /// If `within` is zero or too long.
    pub fn new(name: &str, within: Duration) -> Result<Self, String> {
        Ok(Self {
            left: Map::new(&format!("{name}.left")),
            right: Map::new(&format!("{name}.right")),
            within: millis(within)?,
            tag: tag(name),
        })
    }

    /// Adds a record on `side` and passes each match on the other side to `each`, in order of arrival.
    ///
    /// # Errors
    /// If the key is too long for state, or [`WAITING_MAX`] records of the key wait already; nothing is
    /// joined or kept then. Also if the record is so late that its matches may be forgotten and none is left.
    pub fn add(
        &mut self,
        side: Side,
        key: &[u8],
        record: &Record<'_>,
        mut each: impl FnMut(Other<'_>),
    ) -> Result<(), String> {
        let longest = KEY_BYTES_MAX - 8;
        if key.len() > longest {
            return Err(format!("its key has more than {longest} bytes"));
        }
        let (own, others) = match side {
            Side::Left => (&mut self.left, &self.right),
            Side::Right => (&mut self.right, &self.left),
        };
        let (at, within) = (record.timestamp(), self.within);
        let last = at.saturating_add(within);
        // A record this late cannot have a match in the future.
        let waits = last >= record.watermark();
        let mut first = None;
        if waits {
            let taken = own.update(key, |waiting| {
                let waiting = waiting.get_or_insert_default();
                if waiting.len() >= WAITING_MAX {
                    return Err(format!(
                        "{WAITING_MAX} records of its key wait for the other side: use a more selective key or a shorter time"
                    ));
                }
                waiting.push((at, record.value().map(<[u8]>::to_vec)));
                Ok(waiting.iter().map(|(at, _)| *at).min())
            });
            first = taken?;
        }
        let mut is_alone = true;
        others.with(key, |waiting| {
            for (other, value) in waiting.into_iter().flatten() {
                first = first.map(|first| first.min(*other));
                if at.abs_diff(*other) <= within.unsigned_abs() {
                    let (at, value) = (*other, value.as_deref());
                    each(Other { at, value });
                    is_alone = false;
                }
            }
        });
        if !waits && is_alone {
            return Err("it is too late: its match may have been removed already".to_owned());
        }
        // Only the first record to expire sets the timer.
        if waits && first == Some(at) {
            timers::set(Clock::Event, key, self.tag, last.saturating_add(1));
        }
        Ok(())
    }

    /// Removes waiting records that can no longer match.
    pub fn forget(&mut self, fired: &Fired<'_>) {
        if fired.clock() != Clock::Event {
            return;
        }
        for timer in fired.timers().filter(|timer| timer.tag() == self.tag) {
            let (watermark, within) = (fired.watermark().max(timer.at()), self.within);
            let mut first: Option<i64> = None;
            for side in [&mut self.left, &mut self.right] {
                side.update(timer.key(), |slot| {
                    let Some(waiting) = slot else { return };
                    waiting.retain(|(at, _)| at.saturating_add(within) >= watermark);
                    first = first.into_iter().chain(waiting.iter().map(|(at, _)| *at)).min();
                    if waiting.is_empty() {
                        *slot = None;
                    }
                });
            }
            if let Some(at) = first {
                let at = at.saturating_add(within).saturating_add(1);
                timers::set(Clock::Event, timer.key(), self.tag, at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;
    use crate::testing::{Input, Native, texts};
    use proptest::prelude::*;

    struct Pairs(Join);

    impl Module for Pairs {
        const ABOUT: &'static str = "";
        const STATE_VERSION: u32 = 1;

        fn init(config: &Config) -> Result<(Self, Interface), String> {
            let within: i64 = config.get("within")?;
            let join = Join::new("pairs", Duration::from_millis(within as u64))?;
            Ok((Self(join), Interface::values().and_keys()))
        }

        fn parameters() -> Vec<Parameter> {
            vec![Parameter::required::<i64>("within", "")]
        }

        fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
            let side = [Side::Left, Side::Right][batch.source() as usize];
            for record in batch.records() {
                let key = record.key().unwrap_or_default();
                let seen = self.0.add(side, key, &record, |other| {
                    let (left, right) = other.in_order(side, record.value());
                    let both = [left.unwrap(), b"-", right.unwrap()].concat();
                    out.emit(record.index(), 1, &NewRecord::value(&both));
                });
                if let Err(why) = seen {
                    out.reject(record.index(), why);
                }
            }
            Ok(())
        }

        fn on_timers(&mut self, fired: &Fired<'_>, _: &mut Out) -> Result<(), Fault> {
            self.0.forget(fired);
            Ok(())
        }
    }

    fn input(key: u8, at: i64, value: usize) -> Input {
        Input {
            key: Some(vec![key]),
            value: Some(value.to_string().into_bytes()),
            timestamp: at,
            ..Input::default()
        }
    }

    proptest! {
        /// With records out of order by up to `disorder` and the watermark as far behind, each matching pair
        /// is emitted once, and no state is left in the end.
        #[test]
        fn each_near_pair_comes_once(
            records in prop::collection::vec((0..2u32, 0..3u8, 0..20i64, 0..30i64), 0..60),
            within in 1..60i64,
        ) {
            const DISORDER: i64 = 30;
            let mut module = Native::<Pairs>::new(&[("within", crate::testing::Value::Integer(within))]).unwrap();
            let (mut clock, mut seen, mut got) = (0, Vec::new(), Vec::new());
            for (n, (source, key, step, late)) in records.into_iter().enumerate() {
                clock += step;
                let at = clock - late;
                got.extend(texts(&module.process_from(source, &[input(key, at, n)]).unwrap()));
                seen.push((source, key, at, n));
                module.advance(Clock::Event, clock - DISORDER).unwrap();
            }
            let mut want = Vec::new();
            for (_, key, at, n) in seen.iter().filter(|r| r.0 == 0) {
                let near = seen.iter().filter(|r| r.0 == 1 && r.1 == *key && (r.2 - at).abs() <= within);
                want.extend(near.map(|right| format!("{n}-{}", right.3)));
            }
            got.sort();
            want.sort();
            prop_assert_eq!(got, want);
            module.advance(Clock::Event, clock + within + 1).unwrap();
            prop_assert_eq!(crate::state::host::count(), 0);
        }
    }

    #[test]
    fn what_waits_is_bounded_and_said_to_be() {
        let within = crate::testing::Value::Integer(10);
        let mut module = Native::<Pairs>::new(&[("within", within)]).unwrap();
        let all: Vec<_> = (0..=WAITING_MAX).map(|n| input(1, 5, n)).collect();
        let outcome = module.process_from(0, &all).unwrap();
        assert_eq!(outcome.reasons.len(), 1);
        assert!(outcome.reasons[0].1.contains("1000 records of its key wait"));
    }
}
