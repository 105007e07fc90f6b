//! Reports when an event follows another within a time. See README.md.

mod test;

use std::time::Duration;
use test::Test;
use weir_sdk::pattern::{Pattern, Sequence};
use weir_sdk::prelude::*;
use weir_sdk::timers::Fired;

/// The module `sequence`.
#[derive(Debug)]
pub struct Sequences {
    sequence: Sequence,
    found: u8,
}

impl Module for Sequences {
    const ABOUT: &'static str =
        "Reports when records of a key follow each other in a pattern, within a time.";
    const STATE_VERSION: u32 = 1;

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::required::<weir_sdk::JsonText>(
                "steps",
                "List of tests, in order: `field`, `is` and `than`; and `unless`, a list of tests that must not hold afterwards.",
            ),
            Parameter::required::<i64>(
                "within_ms",
                "Time for the whole pattern, in milliseconds of the records' timestamps.",
            ),
            Parameter::preset::<String>("to", "found", "Output for the reports."),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let weir_sdk::JsonText(text) = config.get("steps")?;
        let within: i64 = config.get("within_ms")?;
        let within = u64::try_from(within).map_err(|_| "`within_ms` cannot be negative".to_owned())?;
        let mut pattern: Option<Pattern> = None;
        if !text.trim_start().starts_with('[') {
            return Err(format!("`steps` must be a list of tests, not {text}"));
        }
        for (n, step) in Json::new(text.as_bytes()).items().enumerate() {
            let wrong = |why: String| format!("step {}: {why}", n + 1);
            let test = Test::read(step, &["unless"]).map_err(wrong)?;
            let mut next = match pattern {
                None => Pattern::first(move |r| test.holds(r)),
                Some(pattern) => pattern.then(move |r| test.holds(r)),
            };
            let unless = step.get("unless");
            if unless.text().is_some_and(|text| !text.starts_with(b"[")) {
                return Err(wrong("`unless` must be a list of tests".to_owned()));
            }
            for (m, not) in unless.items().enumerate() {
                let wrong = |why: String| wrong(format!("`unless` {}: {why}", m + 1));
                let not = Test::read(not, &[]).map_err(wrong)?;
                next = next.unless(move |r| not.holds(r));
            }
            pattern = Some(next);
        }
        let pattern = pattern.ok_or("`steps` must have at least one step")?;
        let sequence = pattern.within("steps", Duration::from_millis(within))?;
        let to: String = config.get("to")?;
        let mut interface = Interface::values().and_keys();
        let found = interface.output(&to);
        Ok((Self { sequence, found }, interface))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            if record.state_key_or_reject(out).is_none() {
                continue;
            }
            // A value that is not an object belongs to no sequence; parsers disagree about a malformed value.
            let object = record
                .value()
                .filter(|value| value.trim_ascii_start().starts_with(b"{"));
            if let Some(Err(why)) = object.map(weir_sdk::check) {
                out.reject(record.index(), why);
                continue;
            }
            out.keep(record.index());
            if let Some(found) = self.sequence.add(&record) {
                let value = format!(r#"{{"start":{},"end":{}}}"#, found.start, found.end);
                out.emit(record.index(), self.found, &NewRecord::value(value.as_bytes()));
            }
        }
        Ok(())
    }

    fn on_timers(&mut self, fired: &Fired<'_>, _: &mut Out) -> Result<(), Fault> {
        self.sequence.forget(fired);
        Ok(())
    }
}

weir_sdk::export!(Sequences);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::Sequences>(env!("CARGO_MANIFEST_DIR"));
    }
}
