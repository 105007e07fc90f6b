//! Counts numbers by their remainder in windows of event time, and emits the count at the end of a window.
//! Echoes each number, too, a little later: by timers of both clocks. The output is a function of the input.

use weir_sdk::prelude::*;
use weir_sdk::state::Map;
use weir_sdk::timers::{self, Clock, Fired};

/// Milliseconds of a window.
const WINDOW: i64 = 50;
/// Milliseconds after which a number is said to have been there.
const LATER: i64 = 3;

struct Windowed {
    counts: Map<u64>,
    counts_output: u8,
    echo_output: u8,
}

impl Module for Windowed {
    const ABOUT: &'static str = "Counts numbers by their remainder in windows.";
    const STATE_VERSION: u32 = 1;

    fn init(_: &Config) -> Result<(Self, Interface), String> {
        let mut interface = Interface::values();
        let counts_output = interface.output("counts");
        let echo_output = interface.output("echo");
        let module = Self {
            counts: Map::new("counts"),
            counts_output,
            echo_output,
        };
        Ok((module, interface))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let value = record.value().unwrap_or_default();
            let digits = value.split(|b| *b == b':').next().unwrap_or_default();
            let number: Option<u64> = std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok());
            let Some(number) = number else {
                out.reject(record.index(), "no number");
                continue;
            };
            let end = (record.timestamp() / WINDOW + 1) * WINDOW;
            let key = [&end.to_be_bytes()[..], &[(number % 7) as u8]].concat();
            self.counts.update(&key, |n| *n.get_or_insert(0) += 1);
            timers::set(Clock::Event, &key, 0, end);
            timers::set(Clock::Processing, &number.to_be_bytes(), 1, batch.now() + LATER);
            out.keep(record.index());
        }
        Ok(())
    }

    fn on_timers(&mut self, fired: &Fired<'_>, out: &mut Out) -> Result<(), Fault> {
        for timer in fired.timers() {
            match fired.clock() {
                Clock::Event => {
                    let count = self.counts.get(timer.key()).unwrap_or(0);
                    self.counts.remove(timer.key());
                    let bucket = timer.key().last().copied().unwrap_or(0);
                    let said = format!("{} {bucket} {count}", timer.at());
                    out.emit(
                        timer.index(),
                        self.counts_output,
                        &NewRecord::value(said.as_bytes()),
                    );
                }
                Clock::Processing => {
                    let number = timer.key().try_into().map_or(0, u64::from_be_bytes);
                    let said = format!("{number}");
                    out.emit(
                        timer.index(),
                        self.echo_output,
                        &NewRecord::value(said.as_bytes()),
                    );
                }
            }
        }
        Ok(())
    }
}

weir_sdk::export!(Windowed);
