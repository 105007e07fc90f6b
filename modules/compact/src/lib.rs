//! Drops readings on a line between others: swinging-door compression. See README.md.

mod swinging_door;

use swinging_door::{Reading, SwingingDoor};
use weir_sdk::Field;
use weir_sdk::prelude::*;
use weir_sdk::state::Map;
use weir_sdk::timers::{self, Clock, Fired};

/// The module `compact`.
#[derive(Debug)]
pub struct Compact {
    field: Field,
    deviation: f64,
    flush_ms: i64,
    doors: Map<SwingingDoor>,
}

impl Module for Compact {
    const ABOUT: &'static str =
        "Drops readings on a line between others, within a deviation: swinging-door compression.";
    const STATE_VERSION: u32 = 2;

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::required::<String>("field", "Field of the JSON value; dots lead into objects."),
            Parameter::required::<f64>(
                "deviation",
                "Maximum distance of a reading from the line that replaces it.",
            ),
            Parameter::preset::<i64>(
                "flush_ms",
                60_000,
                "Silence after which the last reading is emitted, in milliseconds of the node's time; 0: never.",
            ),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let (field, deviation): (String, f64) = (config.get("field")?, config.get("deviation")?);
        let flush_ms = config.get("flush_ms")?;
        if deviation.is_nan() || deviation < 0.0 || flush_ms < 0 {
            return Err("`deviation` and `flush_ms` cannot be negative".to_owned());
        }
        let module = Self {
            field: Field::read(&field)?,
            deviation,
            flush_ms,
            doors: Map::new("doors"),
        };
        Ok((module, Interface::values().and_keys()))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let Some((key, value)) = self.field.of_key(&record, out) else {
                continue;
            };
            let index = record.index();
            let reading = Reading {
                at: record.timestamp(),
                value,
                whole: record.value().unwrap_or_default().to_vec(),
            };
            let deviation = self.deviation;
            let (before, goes_too) = self.doors.update(key, |door| match door {
                None => {
                    *door = Some(SwingingDoor::new(reading));
                    (None, true)
                }
                Some(door) => door.pass(reading, deviation),
            });
            if goes_too {
                out.keep(index);
            }
            if let Some(before) = before {
                out.emit(index, 1, &NewRecord::value(&before.whole).at(before.at));
            }
            if self.flush_ms > 0 {
                let at = batch.now().saturating_add(self.flush_ms);
                timers::set(Clock::Processing, key, 0, at);
            }
        }
        Ok(())
    }

    fn migrate(&mut self, earlier: u32) -> Result<(), String> {
        if earlier != 1 {
            return Err(format!("cannot migrate state of version {earlier}"));
        }
        self.doors
            .migrate(|_, door: swinging_door::First| Some(door.into()));
        Ok(())
    }

    fn on_timers(&mut self, fired: &Fired<'_>, out: &mut Out) -> Result<(), Fault> {
        for timer in fired.timers() {
            let held = self.doors.update(timer.key(), |door| door.as_mut()?.flush());
            if let Some(held) = held {
                out.emit(timer.index(), 1, &NewRecord::value(&held.whole).at(held.at));
            }
        }
        Ok(())
    }
}

weir_sdk::export!(Compact);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::Compact>(env!("CARGO_MANIFEST_DIR"));
    }
}
