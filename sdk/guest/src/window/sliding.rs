//! Windows that end with each record.

use super::{END_BYTES, millis, tag};
use crate::Record;
use crate::state::{KEY_BYTES_MAX, Map};
use crate::timers::{self, Clock, Fired};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Values of one key that are kept, at most: all are looked at for each record.
pub const SLIDING_MAX: usize = 1_000;

/// For each record, what came with its key within a time before it: a moving mean, or a rate.
#[derive(Debug)]
pub struct Sliding<V> {
    /// By key: times and values, in the order in which they came.
    kept: Map<Vec<(i64, V)>>,
    tag: u32,
    size: i64,
}

impl<V: Clone + Serialize + DeserializeOwned + 'static> Sliding<V> {
    /// Windows of `size`. In [`init`](crate::Module::init) only, each name once.
    ///
    /// # Errors
    /// When they have no size.
    pub fn new(name: &str, size: Duration) -> Result<Self, String> {
        Ok(Self {
            kept: Map::new(name),
            tag: tag(name),
            size: millis(size)?,
        })
    }

    /// Keeps the `value` of a record, and hands what came with its key less than the size before it, or at its time, to `look`: by now,
    /// and itself last. What comes later with an earlier time changes no result that is out.
    ///
    /// # Errors
    /// In words, when its key is too long to be kept, or [`SLIDING_MAX`] are kept of it: then nothing is kept or handed over.
    pub fn see<R>(
        &mut self,
        record: &Record<'_>,
        value: V,
        look: impl FnOnce(&mut dyn Iterator<Item = &V>) -> R,
    ) -> Result<R, String> {
        let key = record.key().unwrap_or_default();
        self.see_at(key, record.timestamp(), record.watermark(), value, look)
    }

    /// As [`Sliding::see`], by a key and a time that are not the record's.
    ///
    /// # Errors
    /// As there.
    pub fn see_at<R>(
        &mut self,
        key: &[u8],
        at: i64,
        watermark: i64,
        value: V,
        look: impl FnOnce(&mut dyn Iterator<Item = &V>) -> R,
    ) -> Result<R, String> {
        let longest = KEY_BYTES_MAX - END_BYTES;
        if key.len() > longest {
            return Err(format!("its key has more than {longest} bytes"));
        }
        let size = self.size;
        let mut ends = None;
        let seen = self.kept.update(key, |kept| {
            let values = kept.get_or_insert_default();
            // No window of a record that comes in time reaches so far back.
            values.retain(|(t, _)| t.saturating_add(size) > watermark);
            if values.len() >= SLIDING_MAX {
                return Err(format!(
                    "{SLIDING_MAX} records of its key are within the window: make it shorter"
                ));
            }
            values.push((at, value));
            let is_in = |t: i64| t <= at && t > at.saturating_sub(size);
            let seen = look(&mut values.iter().filter(|(t, _)| is_in(*t)).map(|(_, value)| value));
            ends = values.iter().map(|(t, _)| *t).max();
            Ok(seen)
        })?;
        if let Some(last) = ends {
            timers::set(Clock::Event, key, self.tag, last.saturating_add(size));
        }
        Ok(seen)
    }

    /// Forgets what is in no window any more.
    pub fn forget(&mut self, fired: &Fired<'_>) {
        for timer in fired.timers() {
            if timer.tag() == self.tag && fired.clock() == Clock::Event {
                self.kept.remove(timer.key());
            }
        }
    }
}
