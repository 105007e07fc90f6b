//! Reports by exception: drops readings that hardly changed. See README.md.

use serde::{Deserialize, Serialize};
use weir_sdk::prelude::*;
use weir_sdk::state::{KEY_BYTES_MAX, Map};

/// The module.
#[derive(Debug)]
pub struct Deadband {
    field: String,
    path: Path,
    band: f64,
    /// Milliseconds; 0: no report for its own sake.
    silence_max_ms: i64,
    last: Map<Reported>,
}

/// What was reported last of one key.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Reported {
    value: f64,
    timestamp: i64,
}

impl Module for Deadband {
    const ABOUT: &'static str =
        "Drops readings that differ from the last one kept of their key by no more than a band.";

    const STATE_VERSION: u32 = 1;

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::required::<String>("field", "Field of the JSON value; dots lead into objects."),
            Parameter::required::<f64>("band", "A reading is kept when it differs by more than this."),
            Parameter::preset::<i64>(
                "max_silence_ms",
                0,
                "A reading is kept when this much time has passed since the last; 0: never for that alone.",
            ),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Plan), String> {
        let (field, band): (String, f64) = (config.get("field")?, config.get("band")?);
        let path = Path::new(&field);
        let silence_max_ms = config.get("max_silence_ms")?;
        if band < 0.0 || silence_max_ms < 0 {
            return Err("`band` and `max_silence_ms` cannot be negative".to_owned());
        }
        Ok((
            Self {
                field,
                path,
                band,
                silence_max_ms,
                last: Map::new("last"),
            },
            Plan::values().and_keys(),
        ))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        let keys = batch.keys().map(Option::unwrap_or_default);
        self.last.fetch(keys.filter(|key| key.len() <= KEY_BYTES_MAX));
        for record in batch.records() {
            let Some(value) = record.field(&self.path).number() else {
                out.reject(record.index(), format!("no number at `{}`", self.field));
                continue;
            };
            let timestamp = record.timestamp();
            let key = record.key().unwrap_or_default();
            if key.len() > KEY_BYTES_MAX {
                out.reject(
                    record.index(),
                    format!("its key has more than {KEY_BYTES_MAX} bytes"),
                );
                continue;
            }
            let changed = self.last.get(key).is_none_or(|r| {
                let silent = timestamp.saturating_sub(r.timestamp);
                (value - r.value).abs() > self.band
                    || (self.silence_max_ms > 0 && silent >= self.silence_max_ms)
            });
            if changed {
                self.last.insert(key, Reported { value, timestamp });
                out.keep(record.index());
            }
        }
        Ok(())
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
