//! Drops duplicates. See README.md.

use std::time::Duration;
use weir_sdk::Grouping;
use weir_sdk::dedup::Seen;
use weir_sdk::prelude::*;
use weir_sdk::timers::Fired;

/// The module `dedupe`.
#[derive(Debug)]
pub struct Dedupe {
    by: Grouping,
    /// Output of duplicates; 0 drops.
    duplicates: u8,
    seen: Seen,
}

impl Module for Dedupe {
    const ABOUT: &'static str = "Drops records whose key, header or field was seen before within a horizon.";
    const STATE_VERSION: u32 = 2;

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::preset::<String>(
                "by",
                "key",
                "`key`, `header:NAME` or `field:PATH` of a JSON value.",
            ),
            Parameter::required::<i64>(
                "horizon_ms",
                "Time for which a record is remembered, in milliseconds of the records' timestamps.",
            ),
            Parameter::preset::<String>("to", "drop", "Output for duplicates, or `drop`."),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let (by, to): (String, String) = (config.get("by")?, config.get("to")?);
        let by = Grouping::parse(&by)?;
        let (keys, values, headers) = by.columns();
        let mut interface = Interface::keys().with(keys, values, headers);
        let horizon_ms: i64 = config.get("horizon_ms")?;
        if horizon_ms <= 0 {
            return Err("`horizon_ms` must be positive".to_owned());
        }
        let duplicates = if to == "drop" { 0 } else { interface.output(&to) };
        let module = Self {
            by,
            duplicates,
            seen: Seen::new("seen", Duration::from_millis(horizon_ms.unsigned_abs()))?,
        };
        Ok((module, interface))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let id = match self.by.of(&record) {
                Ok(Some(id)) => id,
                Ok(None) => {
                    out.reject(record.index(), "it has no key, header or field to deduplicate by");
                    continue;
                }
                Err(why) => {
                    out.reject(record.index(), why);
                    continue;
                }
            };
            match self.seen.is_first(&id, &record) {
                Ok(true) => out.keep(record.index()),
                Ok(false) => out.route(record.index(), self.duplicates),
                Err(why) => out.reject(record.index(), why),
            }
        }
        Ok(())
    }

    fn on_timers(&mut self, fired: &Fired<'_>, _: &mut Out) -> Result<(), Fault> {
        self.seen.forget(fired);
        Ok(())
    }
}

weir_sdk::export!(Dedupe);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::Dedupe>(env!("CARGO_MANIFEST_DIR"));
    }
}
