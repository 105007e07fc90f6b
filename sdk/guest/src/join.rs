//! Joins: records of two topics that have a key in common and are near each other in time.
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
//!     fn init(_: &Config) -> Result<(Self, Plan), String> {
//!         let orders = Join::new("orders", Duration::from_secs(3_600))?;
//!         Ok((Self { orders }, Plan::values().and_keys()))
//!     }
//!
//!     fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
//!         let side = if batch.source() == 0 { Side::Left } else { Side::Right };
//!         for record in batch.records() {
//!             let key = record.key().unwrap_or_default();
//!             let joined = self.orders.see(side, key, &record, |other| {
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
//! Each pair comes once, when the later of its records does. A record is kept as long as one that comes in time may be near it, in
//! [`crate::state`], and forgotten by [`crate::timers`]: the stage grants both. For what a *table* says of a key, the topic's last
//! record of it, a [`Map`] is enough: write what comes from the table, look up for what comes from elsewhere.

use crate::Record;
use crate::state::{KEY_BYTES_MAX, Map};
use crate::timers::{self, Clock, Fired};
use crate::window::{millis, tag};
use std::time::Duration;

/// Records of one key that wait on one side, at most: they are looked at for each record of the other.
pub const WAITING_MAX: usize = 1_000;

/// Which of the two topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one.
    Left,
    /// The other.
    Right,
}

/// A record that is near the one that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other<'a> {
    /// Its time.
    pub at: i64,
    /// Its value.
    pub value: Option<&'a [u8]>,
}

impl<'a> Other<'a> {
    /// Its value and that of the record on `side` that came: left and right.
    pub fn in_order(&self, side: Side, came: Option<&'a [u8]>) -> (Option<&'a [u8]>, Option<&'a [u8]>) {
        match side {
            Side::Left => (came, self.value),
            Side::Right => (self.value, came),
        }
    }
}

/// Times and values of records that wait, in the order in which they came.
type Waiting = Vec<(i64, Option<Vec<u8>>)>;

/// A join. See the module's docs.
#[derive(Debug)]
pub struct Join {
    left: Map<Waiting>,
    right: Map<Waiting>,
    within: i64,
    tag: u32,
}

impl Join {
    /// Joins records whose times are at most `within` apart. In [`init`](crate::Module::init) only, each name once.
    ///
    /// # Errors
    /// When that is no time at all.
    pub fn new(name: &str, within: Duration) -> Result<Self, String> {
        Ok(Self {
            left: Map::new(&format!("{name}.left")),
            right: Map::new(&format!("{name}.right")),
            within: millis(within)?,
            tag: tag(name),
        })
    }

    /// Takes a record on `side`, and hands each that is near it on the other to `each`, in the order in which they came.
    ///
    /// # Errors
    /// When its key is too long to be kept, or [`WAITING_MAX`] records of it wait already: then nothing is handed over, and it is
    /// not kept. Also when it comes so late that what it belongs to may be forgotten, and none is there.
    pub fn see(
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
        // One that is so late has nobody to wait for any more.
        let waits = last >= record.watermark();
        let mut first = None;
        if waits {
            let taken = own.update(key, |waiting| {
                let waiting = waiting.get_or_insert_default();
                if waiting.len() >= WAITING_MAX {
                    return Err(format!(
                        "{WAITING_MAX} records of its key wait for the other side: join by what is rarer, or within a shorter time"
                    ));
                }
                waiting.push((at, record.value().map(<[u8]>::to_vec)));
                Ok(waiting.iter().map(|(at, _)| *at).min())
            });
            first = taken?;
        }
        let mut is_alone = true;
        others.see(key, |waiting| {
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
            return Err("it comes too late: what it belongs to may be forgotten".to_owned());
        }
        // Only the first to go sets the time.
        if waits && first == Some(at) {
            timers::set(Clock::Event, key, self.tag, last.saturating_add(1));
        }
        Ok(())
    }

    /// Forgets what waits for nothing any more.
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

        fn init(config: &Config) -> Result<(Self, Plan), String> {
            let within: i64 = config.get("within")?;
            let join = Join::new("pairs", Duration::from_millis(within as u64))?;
            Ok((Self(join), Plan::values().and_keys()))
        }

        fn parameters() -> Vec<Parameter> {
            vec![Parameter::required::<i64>("within", "")]
        }

        fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
            let side = [Side::Left, Side::Right][batch.source() as usize];
            for record in batch.records() {
                let key = record.key().unwrap_or_default();
                let seen = self.0.see(side, key, &record, |other| {
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
        /// Records out of order by up to `disorder`, the watermark that much behind: each pair that is near comes once, whatever
        /// is forgotten meanwhile, and in the end nothing is left.
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
