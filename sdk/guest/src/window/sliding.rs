//! Sliding windows, which end with each record.

use super::{END_BYTES, millis, tag};
use crate::Record;
use crate::state::{KEY_BYTES_MAX, Map};
use crate::timers::{self, Clock, Fired};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Maximum values kept per key: each record visits all of them.
pub const SLIDING_MAX: usize = 1_000;

/// For each record, the values of its key within a time before it: for a moving mean or a rate.
#[derive(Debug)]
pub struct Sliding<V> {
    /// By key: times and values, in order of arrival.
    kept: Map<Vec<(i64, V)>>,
    tag: u32,
    size: i64,
}

impl<V: Clone + Serialize + DeserializeOwned + 'static> Sliding<V> {
    /// Creates windows of `size`. Call only in [`init`](crate::Module::init), with a name of its own.
    ///
    /// # Errors
    /// If the size is zero or too long.
    pub fn new(name: &str, size: Duration) -> Result<Self, String> {
        Ok(Self {
            kept: Map::new(name),
            tag: tag(name),
            size: millis(size)?,
        })
    }

    /// Keeps the `value` of a record, and passes the values of its key from less than the size before its
    /// time to `read`, its own value last. Later arrivals with earlier times do not change results already
    /// produced.
    ///
    /// # Errors
    /// If the key is too long for state, or [`SLIDING_MAX`] values of the key are kept; nothing is kept or
    /// passed then.
    pub fn add<R>(
        &mut self,
        record: &Record<'_>,
        value: V,
        read: impl FnOnce(&mut dyn Iterator<Item = &V>) -> R,
    ) -> Result<R, String> {
        let key = record.key().unwrap_or_default();
        self.add_to(key, record.timestamp(), record.watermark(), value, read)
    }

    /// Keeps a value and passes the window to `read`, for a given key and time (milliseconds since 1970)
    /// instead of a record's.
    ///
    /// # Errors
    /// If the key is too long for state, or [`SLIDING_MAX`] values of the key are kept; nothing is kept or
    /// passed then.
    pub fn add_to<R>(
        &mut self,
        key: &[u8],
        at: i64,
        watermark: i64,
        value: V,
        read: impl FnOnce(&mut dyn Iterator<Item = &V>) -> R,
    ) -> Result<R, String> {
        let longest = KEY_BYTES_MAX - END_BYTES;
        if key.len() > longest {
            return Err(format!("its key has more than {longest} bytes"));
        }
        let size = self.size;
        let mut ends = None;
        let seen = self.kept.update(key, |kept| {
            let values = kept.get_or_insert_default();
            // No window of a timely record reaches back this far.
            values.retain(|(t, _)| t.saturating_add(size) > watermark);
            if values.len() >= SLIDING_MAX {
                return Err(format!(
                    "{SLIDING_MAX} records of its key are within the window: make it shorter"
                ));
            }
            values.push((at, value));
            let is_in = |t: i64| t <= at && t > at.saturating_sub(size);
            let seen = read(&mut values.iter().filter(|(t, _)| is_in(*t)).map(|(_, value)| value));
            ends = values.iter().map(|(t, _)| *t).max();
            Ok(seen)
        })?;
        if let Some(last) = ends {
            timers::set(Clock::Event, key, self.tag, last.saturating_add(size));
        }
        Ok(seen)
    }

    /// Removes values that are in no window any more.
    pub fn forget(&mut self, fired: &Fired<'_>) {
        for timer in fired.timers() {
            if timer.tag() == self.tag && fired.clock() == Clock::Event {
                self.kept.remove(timer.key());
            }
        }
    }
}
