//! Reports by exception: drops readings that hardly changed. See README.md.

use serde::{Deserialize, Serialize};
use weir_sdk::Field;
use weir_sdk::prelude::*;
use weir_sdk::state::{KEY_BYTES_MAX, Map};
use weir_sdk::timers::{self, Clock, Fired};

/// The module `deadband`.
#[derive(Debug)]
pub struct Deadband {
    field: Field,
    band: f64,
    /// Maximum silence in milliseconds before a report without a change; 0: none.
    silence_max_ms: i64,
    /// Interval of heartbeats in milliseconds of processing time; 0: none.
    heartbeat_ms: i64,
    last: Map<Reported>,
}

/// The last report of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Reported {
    value: f64,
    timestamp: i64,
    /// The whole reading, for the heartbeat.
    whole: Option<Vec<u8>>,
}

impl Module for Deadband {
    const ABOUT: &'static str =
        "Drops readings that differ from the last kept reading of their key by no more than a band.";

    const STATE_VERSION: u32 = 2;

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::required::<String>("field", "Field of the JSON value; dots lead into objects."),
            Parameter::required::<f64>("band", "Readings that differ by more than this are kept."),
            Parameter::preset::<i64>(
                "max_silence_ms",
                0,
                "A reading is kept after this time without a kept reading, in milliseconds; 0: no limit.",
            ),
            Parameter::preset::<i64>(
                "heartbeat_ms",
                0,
                "The last kept reading is repeated after this silence, in milliseconds of the node's time; 0: never.",
            ),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let (field, band): (String, f64) = (config.get("field")?, config.get("band")?);
        let (silence_max_ms, heartbeat_ms) = (config.get("max_silence_ms")?, config.get("heartbeat_ms")?);
        if band < 0.0 || silence_max_ms < 0 || heartbeat_ms < 0 {
            return Err("`band`, `max_silence_ms` and `heartbeat_ms` cannot be negative".to_owned());
        }
        Ok((
            Self {
                field: Field::read(&field)?,
                band,
                silence_max_ms,
                heartbeat_ms,
                last: Map::new("last"),
            },
            Interface::values().and_keys(),
        ))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        let keys = batch.keys().map(Option::unwrap_or_default);
        self.last.fetch(keys.filter(|key| key.len() <= KEY_BYTES_MAX));
        for record in batch.records() {
            let Some((key, value)) = self.field.of_key(&record, out) else {
                continue;
            };
            let timestamp = record.timestamp();
            let (band, silence_max_ms) = (self.band, self.silence_max_ms);
            let changed = self.last.with(key, |last| {
                last.is_none_or(|r| {
                    // In both directions: otherwise a reading dated ahead would silence the key until then.
                    let silent = timestamp.abs_diff(r.timestamp);
                    let is_silent = silence_max_ms > 0 && silent >= silence_max_ms.unsigned_abs();
                    (value - r.value).abs() > band || is_silent
                })
            });
            if changed {
                let beats = self.heartbeat_ms > 0;
                let whole = record.value().filter(|_| beats).map(<[u8]>::to_vec);
                self.last.insert(
                    key,
                    Reported {
                        value,
                        timestamp,
                        whole,
                    },
                );
                if beats {
                    self.beat(key, batch.now());
                }
                out.keep(record.index());
            }
        }
        Ok(())
    }

    fn on_timers(&mut self, fired: &Fired<'_>, out: &mut Out) -> Result<(), Fault> {
        for timer in fired.timers().filter(|_| self.heartbeat_ms > 0) {
            let whole = self.last.with(timer.key(), |last| last?.whole.clone());
            if let Some(whole) = whole {
                out.emit(timer.index(), 1, &NewRecord::value(&whole));
                self.beat(timer.key(), timer.at());
            }
        }
        Ok(())
    }
}

impl Deadband {
    fn beat(&self, key: &[u8], from: i64) {
        timers::set(Clock::Processing, key, 0, from.saturating_add(self.heartbeat_ms));
    }
}

weir_sdk::export!(Deadband);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::Deadband>(env!("CARGO_MANIFEST_DIR"));
    }
}
