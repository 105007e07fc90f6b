//! Says when a key has fallen silent, and when it is back. See README.md.

use serde::{Deserialize, Serialize};
use weir_sdk::prelude::*;
use weir_sdk::state::Map;
use weir_sdk::timers::{self, Clock, Fired};

/// The module.
#[derive(Debug)]
pub struct Absence {
    silence_ms: i64,
    clock: Clock,
    alerts: u8,
    seen: Map<Seen>,
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Seen {
    /// Timestamp of its last record.
    last: i64,
    is_absent: bool,
}

impl Module for Absence {
    const ABOUT: &'static str = "Says when nothing has come with a key for so long, and when it is back.";
    const STATE_VERSION: u32 = 1;

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::required::<i64>("silence_ms", "How long a key may be silent."),
            Parameter::preset::<String>(
                "clock",
                "processing",
                "What it is silent by: `processing`, the node's time, or `event`, that of the records.",
            ),
            Parameter::preset::<String>("to", "absent", "Output for what is said."),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Plan), String> {
        let (clock, to): (String, String) = (config.get("clock")?, config.get("to")?);
        let clock = match clock.as_str() {
            "processing" => Clock::Processing,
            "event" => Clock::Event,
            other => return Err(format!("`clock` cannot be `{other}`: use processing or event")),
        };
        let silence_ms = config.get("silence_ms")?;
        if silence_ms <= 0 {
            return Err("`silence_ms` has to be positive".to_owned());
        }
        let mut plan = Plan::keys();
        let alerts = plan.output(&to);
        let module = Self {
            silence_ms,
            clock,
            alerts,
            seen: Map::new("seen"),
        };
        Ok((module, plan))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let Some(key) = record.state_key_or_reject(out) else {
                continue;
            };
            out.keep(record.index());
            let at = record.timestamp();
            let (back_since, last) = self.seen.update(key, |seen| {
                let before = *seen;
                let last = before.map_or(at, |seen| seen.last.max(at));
                *seen = Some(Seen {
                    last,
                    is_absent: false,
                });
                (before.filter(|seen| seen.is_absent).map(|seen| seen.last), last)
            });
            if let Some(before) = back_since {
                let value = format!(r#"{{"absent":false,"last":{before},"back":{at}}}"#);
                out.emit(record.index(), self.alerts, &NewRecord::value(value.as_bytes()));
            }
            let from = match self.clock {
                Clock::Processing => batch.now(),
                Clock::Event => last,
            };
            timers::set(self.clock, key, 0, from.saturating_add(self.silence_ms));
        }
        Ok(())
    }

    fn on_timers(&mut self, fired: &Fired<'_>, out: &mut Out) -> Result<(), Fault> {
        for timer in fired.timers() {
            let last = self.seen.update(timer.key(), |seen| {
                let seen = seen.as_mut()?;
                seen.is_absent = true;
                Some(seen.last)
            });
            if let Some(last) = last {
                let value = format!(r#"{{"absent":true,"last":{last},"for_ms":{}}}"#, self.silence_ms);
                out.emit(timer.index(), self.alerts, &NewRecord::value(value.as_bytes()));
            }
        }
        Ok(())
    }
}

weir_sdk::export!(Absence);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::Absence>(env!("CARGO_MANIFEST_DIR"));
    }
}
