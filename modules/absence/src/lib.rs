//! Reports keys that fall silent, and their return. See README.md.

use std::time::Duration;
use weir_sdk::absence::{Back, Silence};
use weir_sdk::prelude::*;
use weir_sdk::timers::{Clock, Fired};

/// The module `absence`.
#[derive(Debug)]
pub struct Absence {
    silence_ms: i64,
    alerts: u8,
    seen: Silence,
}

impl Module for Absence {
    const ABOUT: &'static str = "Reports keys that fall silent, and their return.";
    const STATE_VERSION: u32 = 2;

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::required::<i64>(
                "silence_ms",
                "Silence of a key that is reported, in milliseconds.",
            ),
            Parameter::preset::<String>(
                "clock",
                "processing",
                "Clock of the silence: `processing`, the node's time, or `event`, the records' timestamps.",
            ),
            Parameter::preset::<String>("to", "absent", "Output for the reports."),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let (clock, to): (String, String) = (config.get("clock")?, config.get("to")?);
        let clock = match clock.as_str() {
            "processing" => Clock::Processing,
            "event" => Clock::Event,
            other => return Err(format!("`clock` cannot be `{other}`: use processing or event")),
        };
        let silence_ms: i64 = config.get("silence_ms")?;
        if silence_ms <= 0 {
            return Err("`silence_ms` must be positive".to_owned());
        }
        let mut interface = Interface::keys();
        let alerts = interface.output(&to);
        let module = Self {
            silence_ms,
            alerts,
            seen: Silence::new("seen", Duration::from_millis(silence_ms.unsigned_abs()), clock)?,
        };
        Ok((module, interface))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let Some(key) = record.state_key_or_reject(out) else {
                continue;
            };
            out.keep(record.index());
            let at = record.timestamp();
            match self.seen.add(key, &record, batch.now()) {
                Ok(Some(Back { last, is_told })) => {
                    if !is_told {
                        let silence_ms = self.silence_ms;
                        let value = format!(r#"{{"absent":true,"last":{last},"for_ms":{silence_ms}}}"#);
                        out.emit(record.index(), self.alerts, &NewRecord::value(value.as_bytes()));
                    }
                    let value = format!(r#"{{"absent":false,"last":{last},"back":{at}}}"#);
                    out.emit(record.index(), self.alerts, &NewRecord::value(value.as_bytes()));
                }
                Ok(None) => {}
                Err(why) => out.reject(record.index(), why),
            }
        }
        Ok(())
    }

    fn on_timers(&mut self, fired: &Fired<'_>, out: &mut Out) -> Result<(), Fault> {
        let (silence_ms, alerts) = (self.silence_ms, self.alerts);
        self.seen.fired(fired, |timer, last| {
            let value = format!(r#"{{"absent":true,"last":{last},"for_ms":{silence_ms}}}"#);
            out.emit(timer, alerts, &NewRecord::value(value.as_bytes()));
        });
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
