//! Aggregates the records of a window into a single record. See README.md.

use serde::Deserialize;
use std::time::Duration;
use weir_sdk::prelude::*;
use weir_sdk::timers::Fired;
use weir_sdk::window::{Stats, Windows};
use weir_sdk::{Field, JsonNumber};

/// The module `downsample`.
#[derive(Debug)]
pub struct Downsample {
    field: Field,
    keep: bool,
    results: u8,
    windows: Windows<Stats>,
}

impl Module for Downsample {
    const ABOUT: &'static str =
        "Aggregates the records of a window, by key: count, mean, minimum, maximum and more.";
    const STATE_VERSION: u32 = 2;

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::required::<String>("field", "Field of the JSON value; dots lead into objects."),
            Parameter::required::<i64>(
                "every_ms",
                "Length of a window, in milliseconds of the records' timestamps.",
            ),
            Parameter::preset::<i64>(
                "step_ms",
                0,
                "Time from the start of a window to the next, in milliseconds; 0: the length of a window.",
            ),
            Parameter::preset::<bool>("keep", false, "True to keep the readings in the stream, too."),
            Parameter::preset::<String>("to", "main", "Output for the results."),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let (field, to): (String, String) = (config.get("field")?, config.get("to")?);
        let ms = |name: &str| -> Result<Duration, String> {
            let ms: i64 = config.get(name)?;
            let ms = u64::try_from(ms).map_err(|_| format!("`{name}` cannot be negative"))?;
            Ok(Duration::from_millis(ms))
        };
        let (every, step) = (ms("every_ms")?, ms("step_ms")?);
        let step = if step.is_zero() { every } else { step };
        let mut interface = Interface::values().and_keys();
        let results = interface.output(&to);
        let module = Self {
            field: Field::read(&field)?,
            keep: config.get("keep")?,
            results,
            windows: Windows::hopping("windows", every, step)?,
        };
        Ok((module, interface))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let Some((_, value)) = self.field.of_key(&record, out) else {
                continue;
            };
            if !self
                .windows
                .add(&record, |stats| stats.add(value, record.timestamp()))
            {
                out.reject(record.index(), "too late: its window is closed");
            } else if self.keep {
                out.keep(record.index());
            }
        }
        Ok(())
    }

    fn migrate(&mut self, earlier: u32) -> Result<(), String> {
        if earlier != 1 {
            return Err(format!("cannot migrate state of version {earlier}"));
        }
        // Version 1 took the order of arrival for first and last.
        self.windows.migrate(|start, old: First| {
            let (ends, range) = ([(start, old.first), (start, old.last)], (old.min, old.max));
            Stats::of_summary(old.count, old.mean, old.squares, range, ends)
        });
        Ok(())
    }

    fn on_timers(&mut self, fired: &Fired<'_>, out: &mut Out) -> Result<(), Fault> {
        let results = self.results;
        self.windows.close(fired, |window, stats| {
            let value = format!(
                r#"{{"start":{},"end":{},"count":{},"mean":{},"min":{},"max":{},"first":{},"last":{},"sum":{},"deviation":{}}}"#,
                window.start,
                window.end,
                stats.count(),
                JsonNumber(stats.mean()),
                JsonNumber(stats.min()),
                JsonNumber(stats.max()),
                JsonNumber(stats.first()),
                JsonNumber(stats.last()),
                JsonNumber(stats.sum()),
                JsonNumber(stats.deviation()),
            );
            out.emit(window.index, results, &NewRecord::value(value.as_bytes()).with_key(window.key));
        });
        Ok(())
    }
}

/// Stored form of a window in version 1.
#[derive(Deserialize)]
struct First {
    count: u64,
    mean: f64,
    squares: f64,
    min: f64,
    max: f64,
    first: f64,
    last: f64,
}

weir_sdk::export!(Downsample);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::Downsample>(env!("CARGO_MANIFEST_DIR"));
    }
}
