//! Sets a timer per key for a while after each record, and has no state: the subject of a benchmark of
//! timers.

use weir_sdk::prelude::*;
use weir_sdk::timers::{self, Clock, Fired};

/// Milliseconds.
const LATER: i64 = 10_000_000;

struct Alarm;

impl Module for Alarm {
    const ABOUT: &'static str = "Sets a timer a key.";

    fn init(_: &Config) -> Result<(Self, Interface), String> {
        Ok((Self, Interface::keys()))
    }

    fn process(&mut self, batch: &Batch<'_>, _: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let at = record.timestamp() + LATER;
            timers::set(Clock::Event, record.key().unwrap_or_default(), 0, at);
        }
        Ok(())
    }

    fn on_timers(&mut self, _: &Fired<'_>, _: &mut Out) -> Result<(), Fault> {
        Ok(())
    }
}

weir_sdk::export!(Alarm);
