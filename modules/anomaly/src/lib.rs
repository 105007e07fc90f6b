//! Raises an alert when readings leave the normal range of their key. See README.md.

mod normal;

use normal::{Method, Normal, Settings};
use weir_sdk::prelude::*;
use weir_sdk::state::Map;
use weir_sdk::{Field, JsonNumber};

/// The module `anomaly`.
#[derive(Debug)]
pub struct Anomaly {
    field: Field,
    settings: Settings,
    alerts: u8,
    keys: Map<Normal>,
}

impl Module for Anomaly {
    const ABOUT: &'static str = "Raises an alert when the readings of a key leave their normal range.";
    const STATE_VERSION: u32 = 1;

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::required::<String>("field", "Field of the JSON value; dots lead into objects."),
            Parameter::preset::<String>(
                "method",
                "ewma",
                "Model of the normal range: `ewma`, moving averages, or `robust`, the median and its deviation.",
            ),
            Parameter::preset::<i64>("smooth", 1, "Readings for smoothing; 1: no smoothing."),
            Parameter::preset::<i64>(
                "baseline",
                0,
                "Readings that define the normal range; `robust`: up to 256. 0: 1000, and 256 for `robust`.",
            ),
            Parameter::preset::<f64>(
                "threshold",
                3.0,
                "Deviations from the normal range that raise an alert.",
            ),
            Parameter::preset::<f64>(
                "least_deviation",
                0.0,
                "Minimum deviation, such as the resolution of the sensor, for readings that hardly change.",
            ),
            Parameter::preset::<f64>("rearm", 0.5, "Share of the threshold below which an alert ends."),
            Parameter::preset::<i64>("warm_up", 100, "Readings of a key before its first alert."),
            Parameter::preset::<String>("to", "anomalies", "Output for alerts."),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let (field, to): (String, String) = (config.get("field")?, config.get("to")?);
        let count = |name: &str, max: i64| -> Result<u32, String> {
            let n: i64 = config.get(name)?;
            match (1..=max).contains(&n) {
                true => Ok(n as u32),
                false => Err(format!("`{name}` is 1 to {max}, not {n}")),
            }
        };
        let method: String = config.get("method")?;
        let (method, usual, most) = match method.as_str() {
            "ewma" => (Method::Averages, 1_000, 1_000_000),
            "robust" => (
                Method::Median,
                normal::MEDIAN_OF_MAX,
                normal::MEDIAN_OF_MAX as i64,
            ),
            other => return Err(format!("`method` cannot be `{other}`: use ewma or robust")),
        };
        let settings = Settings {
            method,
            smooth: count("smooth", 1_000_000)?,
            baseline: match config.get::<i64>("baseline")? {
                0 => usual as u32,
                _ => count("baseline", most)?,
            },
            threshold: config.get("threshold")?,
            least: config.get("least_deviation")?,
            rearm: config.get("rearm")?,
            warm_up: count("warm_up", 1_000_000)?,
        };
        if !(settings.threshold > 0.0 && (0.0..=1.0).contains(&settings.rearm)) {
            return Err("`threshold` must be positive, and `rearm` from 0 to 1".to_owned());
        }
        if !(settings.least >= 0.0 && settings.least.is_finite()) {
            return Err("`least_deviation` cannot be negative".to_owned());
        }
        let mut interface = Interface::values().and_keys();
        let alerts = interface.output(&to);
        let module = Self {
            field: Field::read(&field)?,
            settings,
            alerts,
            keys: Map::new("normal"),
        };
        Ok((module, interface))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let Some((key, value)) = self.field.of_key(&record, out) else {
                continue;
            };
            let index = record.index();
            out.keep(index);
            let settings = &self.settings;
            let alert = self
                .keys
                .update(key, |normal| normal.get_or_insert_default().add(value, settings));
            if let Some(alert) = alert {
                let value = format!(
                    r#"{{"value":{},"smoothed":{},"normal":{},"deviation":{},"score":{}}}"#,
                    JsonNumber(value),
                    JsonNumber(alert.smoothed),
                    JsonNumber(alert.normal),
                    JsonNumber(alert.deviation),
                    JsonNumber(alert.score)
                );
                out.emit(index, self.alerts, &NewRecord::value(value.as_bytes()));
            }
        }
        Ok(())
    }
}

weir_sdk::export!(Anomaly);

#[cfg(test)]
mod tests {
    use super::*;
    use weir_sdk::testing::{Input, Native, Value, cases};

    #[test]
    fn cases() {
        cases::run::<Anomaly>(env!("CARGO_MANIFEST_DIR"));
    }

    /// Failures labelled by engineers in Numenta's `machine_temperature_system_failure`.
    const LABELLED: [(&str, &str); 4] = [
        ("2013-12-10 06:25", "2013-12-12 05:35"),
        ("2013-12-15 17:50", "2013-12-17 17:00"),
        ("2014-01-27 14:20", "2014-01-29 13:30"),
        ("2014-02-07 14:55", "2014-02-09 14:05"),
    ];

    #[test]
    fn it_finds_the_four_failures_of_a_real_machine() {
        let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../examples/machine-temperature/data/machine_temperature_system_failure.csv");
        let text = std::fs::read_to_string(data).unwrap();
        let rows: Vec<_> = text.lines().skip(1).filter_map(|l| l.split_once(',')).collect();
        let reading = |row: &(&str, &str)| Input::value(format!(r#"{{"t":{}}}"#, row.1));
        let readings: Vec<_> = rows.iter().map(reading).collect();
        // As in README.md: six hours against four weeks, with a reading every five minutes.
        let set = [
            ("field", Value::Text("t".to_owned())),
            ("smooth", Value::Integer(72)),
            ("baseline", Value::Integer(8_064)),
            ("threshold", Value::Number(2.75)),
            ("warm_up", Value::Integer(1_000)),
        ];
        let mut module = Native::<Anomaly>::new(&set).unwrap();
        let (mut found, mut outside) = ([0; 4], 0);
        for (batch, rows) in readings.chunks(500).zip(rows.chunks(500)) {
            let outcome = module.process(batch).unwrap();
            for source in outcome.emits.iter().flat_map(|run| &run.sources) {
                // These times sort as text.
                let at = rows[*source as usize].0;
                match LABELLED
                    .iter()
                    .position(|(from, to)| (*from..=*to).contains(&&at[..16]))
                {
                    Some(window) => found[window] += 1,
                    None => outside += 1,
                }
            }
        }
        assert!(
            found.iter().all(|n| *n > 0) && outside <= 5,
            "{found:?} inside, {outside} outside"
        );
    }
}
