//! Session windows, which last as long as records keep coming.

use super::{Aggregate, Closed, END_BYTES, millis, tag};
use crate::Record;
use crate::state::{KEY_BYTES_MAX, Map};
use crate::timers::{self, Clock, Fired};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Maximum open sessions of a key: disorder of a hundred times the gap.
const OPEN_MAX: usize = 100;

/// Windows of a key's records that follow each other within a gap.
#[derive(Debug)]
pub struct Sessions<A> {
    /// By key: first time, last time and content of each open session, by time.
    open: Map<Vec<(i64, i64, A)>>,
    tag: u32,
    gap: i64,
}

impl<A: Aggregate + Default + Clone + Serialize + DeserializeOwned + 'static> Sessions<A> {
    /// Creates windows that end after a gap without records. Call only in [`init`](crate::Module::init), with
    /// a name of its own.
    ///
    /// # Errors
    /// If the gap is zero or too long.
    pub fn new(name: &str, gap: Duration) -> Result<Self, String> {
        Ok(Self {
            open: Map::new(name),
            tag: tag(name),
            gap: millis(gap)?,
        })
    }

    /// Adds a record to the session of its key; the record may merge two sessions. Returns false, and adds
    /// nothing, if the session would be closed already (the record is late).
    pub fn add(&mut self, record: &Record<'_>, add: impl FnOnce(&mut A)) -> bool {
        let (at, watermark) = (record.timestamp(), record.watermark());
        self.add_to(record.key().unwrap_or_default(), at, watermark, add)
    }

    /// Adds to the session of a given key and time (milliseconds since 1970) instead of a record's.
    pub fn add_to(&mut self, key: &[u8], at: i64, watermark: i64, add: impl FnOnce(&mut A)) -> bool {
        let (gap, tag) = (self.gap, self.tag);
        if key.len() > KEY_BYTES_MAX - END_BYTES {
            return false;
        }
        let first_end = self.open.update(key, |sessions| {
            let open = sessions.get_or_insert_default();
            let near =
                |first: i64, last: i64| at > first.saturating_sub(gap) && at < last.saturating_add(gap);
            let mut own = (at, at, A::default());
            add(&mut own.2);
            let touched = |s: &(i64, i64, A)| near(s.0, s.1);
            let joins = open.iter().any(touched);
            if !joins && (at.saturating_add(gap) <= watermark || open.len() >= OPEN_MAX) {
                if open.is_empty() {
                    *sessions = None;
                }
                return None;
            }
            let from = open.iter().position(touched);
            let from = from.unwrap_or_else(|| open.partition_point(|s| s.0 < at));
            let to = from + open.iter().skip(from).take_while(|s| touched(s)).count();
            let (first, last) = (
                open.get(from).filter(|_| to > from).map_or(at, |s| s.0.min(at)),
                to.checked_sub(1)
                    .filter(|_| to > from)
                    .and_then(|i| open.get(i))
                    .map_or(at, |s| s.1.max(at)),
            );
            let mut all = A::default();
            let mut own = Some(own);
            for session in open.splice(from..to, []) {
                // Merged in order of time, as far as sessions have an order.
                if session.0 > at
                    && let Some((.., own)) = own.take()
                {
                    all.merge(own);
                }
                all.merge(session.2);
            }
            if let Some((.., own)) = own {
                all.merge(own);
            }
            open.insert(from, (first, last, all));
            open.first().map(|s| s.1.saturating_add(gap))
        });
        if let Some(end) = first_end {
            timers::set(Clock::Event, key, tag, end);
        }
        first_end.is_some()
    }

    /// Passes each session that is over to `each`, and removes it.
    pub fn close(&mut self, fired: &Fired<'_>, mut each: impl FnMut(Closed<'_>, A)) {
        let (gap, tag) = (self.gap, self.tag);
        for timer in fired.timers() {
            if timer.tag() != tag || fired.clock() != Clock::Event {
                continue;
            }
            let (index, key) = (timer.index(), timer.key());
            let next = self.open.update(key, |sessions| {
                let open = sessions.as_mut()?;
                let over = open.partition_point(|s| s.1.saturating_add(gap) <= fired.watermark());
                for (start, last, aggregate) in open.drain(..over) {
                    let end = last.saturating_add(gap);
                    let window = Closed {
                        index,
                        key,
                        start,
                        end,
                    };
                    each(window, aggregate);
                }
                let next = open.first().map(|s| s.1.saturating_add(gap));
                if next.is_none() {
                    *sessions = None;
                }
                next
            });
            if let Some(next) = next {
                timers::set(Clock::Event, key, tag, next);
            }
        }
    }
}
