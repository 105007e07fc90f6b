//! `weir:module/timers`.

use crate::bindings::weir::module::timers::Host;
use crate::bindings::weir::module::types::{Clock, ColumnResult};
use crate::host::Guest;
use crate::host::state::{State, view};
use crate::state::timers::TimerClock;

impl From<Clock> for TimerClock {
    fn from(clock: Clock) -> Self {
        match clock {
            Clock::Event => Self::Event,
            Clock::Processing => Self::Processing,
        }
    }
}

impl From<TimerClock> for Clock {
    fn from(clock: TimerClock) -> Self {
        match clock {
            TimerClock::Event => Self::Event,
            TimerClock::Processing => Self::Processing,
        }
    }
}

impl State {
    /// Sets or clears each timer, as `at` says.
    fn set_timers(
        &mut self,
        clock: TimerClock,
        keys: &ColumnResult,
        tags: &[u32],
        at: impl Fn(usize) -> Option<i64>,
    ) -> wasmtime::Result<()> {
        let keys = match view("timers", keys, tags.len()) {
            Ok(keys) => keys,
            Err(e) => return self.refuse(e),
        };
        // A timer in the past would fire at once, and endlessly in a module that sets it again: wait until
        // the clock moves.
        let next = match clock {
            TimerClock::Event => self.moment.watermark.saturating_add(1),
            TimerClock::Processing => self.moment.now.saturating_add(1),
        };
        for (n, tag) in tags.iter().enumerate() {
            let Some(key) = keys.item(n) else {
                return self.refuse(format!("the key of timer {n} is null"));
            };
            self.charge(key.len())?;
            let at = at(n).map(|at| at.max(next));
            if let Err(e) = self.table()?.set_timer(clock, key, *tag, at) {
                return self.refuse_for(&e);
            }
        }
        Ok(())
    }
}

impl Host for Guest {
    fn set(&mut self, c: Clock, keys: ColumnResult, tags: Vec<u32>, at: Vec<i64>) -> wasmtime::Result<()> {
        if at.len() != tags.len() {
            let lengths = format!("{} times for {} timers", at.len(), tags.len());
            return self.state.refuse(lengths);
        }
        self.state
            .set_timers(c.into(), &keys, &tags, |n| at.get(n).copied())
    }

    fn clear(&mut self, c: Clock, keys: ColumnResult, tags: Vec<u32>) -> wasmtime::Result<()> {
        self.state.set_timers(c.into(), &keys, &tags, |_| None)
    }
}
