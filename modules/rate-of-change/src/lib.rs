//! Keeps, drops or routes readings by their rate of change. See README.md.

use serde::{Deserialize, Serialize};
use weir_sdk::Field;
use weir_sdk::prelude::*;
use weir_sdk::state::Map;

/// The module `rate-of-change`.
#[derive(Debug)]
pub struct RateOfChange {
    field: Field,
    per_second: f64,
    fast: u8,
    slow: u8,
    last: Map<Vec<Reading>>,
}

/// A reading of a key.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Reading {
    value: f64,
    timestamp: i64,
}

/// Maximum readings kept per key, in order of arrival. Limits the disorder that is handled, and the time
/// until a reading dated ahead is forgotten.
const READINGS_MAX: usize = 8;

impl Module for RateOfChange {
    const ABOUT: &'static str = "Keeps, drops or routes readings by their rate of change.";
    const STATE_VERSION: u32 = 2;

    fn parameters() -> Vec<Parameter> {
        let action = "`keep`, `drop` or the name of an output.";
        vec![
            Parameter::required::<String>("field", "Field of the JSON value; dots lead into objects."),
            Parameter::required::<f64>(
                "per_second",
                "Rate above which a change is fast, up or down, per second.",
            ),
            Parameter::preset::<String>("then", "keep", action),
            Parameter::preset::<String>("else", "drop", action),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let field: String = config.get("field")?;
        let per_second: f64 = config.get("per_second")?;
        if per_second.is_nan() || per_second < 0.0 {
            return Err("`per_second` cannot be negative".to_owned());
        }
        let mut interface = Interface::values().and_keys();
        let mut output = |name: &str| -> Result<u8, String> {
            let action: String = config.get(name)?;
            Ok(match action.as_str() {
                "keep" => 1,
                "drop" => 0,
                output => interface.output(output),
            })
        };
        let (fast, slow) = (output("then")?, output("else")?);
        let module = Self {
            field: Field::read(&field)?,
            per_second,
            fast,
            slow,
            last: Map::new("last"),
        };
        Ok((module, interface))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let Some((key, value)) = self.field.of_key(&record, out) else {
                continue;
            };
            let timestamp = record.timestamp();
            let is_fast = self.last.update(key, |readings| {
                let readings = readings.get_or_insert_default();
                // Among equal times, the last arrival: a jump in no time is infinitely fast.
                let earlier = readings.iter().filter(|r| r.timestamp <= timestamp);
                let before = earlier.max_by_key(|r| r.timestamp).copied();
                readings.push(Reading { value, timestamp });
                let spare = readings.len().saturating_sub(READINGS_MAX);
                readings.drain(..spare);
                before.is_some_and(|before| {
                    let seconds = timestamp.abs_diff(before.timestamp) as f64 / 1_000.0;
                    (value - before.value).abs() / seconds > self.per_second
                })
            });
            out.route(record.index(), if is_fast { self.fast } else { self.slow });
        }
        Ok(())
    }

    fn migrate(&mut self, earlier: u32) -> Result<(), String> {
        if earlier != 1 {
            return Err(format!("cannot migrate state of version {earlier}"));
        }
        self.last.migrate(|_, last: Reading| Some(vec![last]));
        Ok(())
    }
}

weir_sdk::export!(RateOfChange);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::RateOfChange>(env!("CARGO_MANIFEST_DIR"));
    }
}
