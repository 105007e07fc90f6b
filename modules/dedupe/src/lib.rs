//! Drops what was seen before. See README.md.

use weir_sdk::By;
use weir_sdk::prelude::*;
use weir_sdk::state::{KEY_BYTES_MAX, Map};
use weir_sdk::timers::{self, Clock, Fired};

/// The module.
#[derive(Debug)]
pub struct Dedupe {
    by: By,
    horizon_ms: i64,
    /// Where what was seen before goes; 0 drops.
    duplicates: u8,
    /// When each was seen first.
    seen: Map<i64>,
}

impl Module for Dedupe {
    const ABOUT: &'static str = "Drops records whose key, header or field was seen before within a horizon.";
    const STATE_VERSION: u32 = 1;

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::preset::<String>(
                "by",
                "key",
                "`key`, `header:NAME` or `field:PATH` of a JSON value.",
            ),
            Parameter::required::<i64>(
                "horizon_ms",
                "How long one is remembered, by the records' timestamps.",
            ),
            Parameter::preset::<String>("to", "drop", "Output for what was seen before, or `drop`."),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Plan), String> {
        let (by, to): (String, String) = (config.get("by")?, config.get("to")?);
        let by = By::parse(&by)?;
        let (keys, values, headers) = by.columns();
        let mut plan = Plan::keys().with(keys, values, headers);
        let horizon_ms = config.get("horizon_ms")?;
        if horizon_ms <= 0 {
            return Err("`horizon_ms` has to be positive".to_owned());
        }
        let duplicates = if to == "drop" { 0 } else { plan.output(&to) };
        let module = Self {
            by,
            horizon_ms,
            duplicates,
            seen: Map::new("seen"),
        };
        Ok((module, plan))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let Some(id) = self.by.of(&record) else {
                out.reject(record.index(), "there is nothing to tell it apart by");
                continue;
            };
            if id.len() > KEY_BYTES_MAX {
                out.reject(
                    record.index(),
                    format!("what tells it apart has more than {KEY_BYTES_MAX} bytes"),
                );
                continue;
            }
            let (at, horizon_ms) = (record.timestamp(), self.horizon_ms);
            let is_new = self.seen.update(&id, |seen| match seen {
                Some(first) if at.saturating_sub(*first) < horizon_ms => false,
                _ => {
                    *seen = Some(at);
                    true
                }
            });
            if is_new {
                timers::set(Clock::Event, &id, 0, at.saturating_add(horizon_ms));
                out.keep(record.index());
            } else {
                out.route(record.index(), self.duplicates);
            }
        }
        Ok(())
    }

    fn on_timers(&mut self, fired: &Fired<'_>, _: &mut Out) -> Result<(), Fault> {
        for timer in fired.timers() {
            self.seen.remove(timer.key());
        }
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
