//! Counts numbers by their remainder, and emits each count: the output is a function of the input.

use weir_sdk::prelude::*;
use weir_sdk::state::{Map, Value};

struct Counter {
    counts: Map<u64>,
    sum: Value<u64>,
    counts_output: u8,
}

impl Module for Counter {
    const ABOUT: &'static str = "Counts numbers by their remainder.";
    const STATE_VERSION: u32 = 1;

    fn parameters() -> Vec<Parameter> {
        vec![Parameter::preset::<String>(
            "mark",
            String::new(),
            "Put behind each count.",
        )]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let _mark: String = config.get("mark")?;
        let mut interface = Interface::values();
        let counts_output = interface.output("counts");
        let module = Self {
            counts: Map::new("counts"),
            sum: Value::new("sum"),
            counts_output,
        };
        Ok((module, interface))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let value = record.value().unwrap_or_default();
            let digits = value.split(|b| *b == b':').next().unwrap_or_default();
            let number: Option<u64> = std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok());
            let Some(number) = number else {
                out.reject(record.index(), "no number");
                continue;
            };
            let bucket = number % 7;
            let count = self.counts.update(&bucket.to_be_bytes(), |n| {
                *n.get_or_insert(0) += 1;
                *n
            });
            let sum = self.sum.get().unwrap_or(0).wrapping_add(number);
            self.sum.set(sum);
            let said = format!("{number} {bucket} {} {sum}", count.unwrap_or(0));
            out.keep(record.index());
            out.emit(
                record.index(),
                self.counts_output,
                &NewRecord::value(said.as_bytes()),
            );
        }
        Ok(())
    }
}

weir_sdk::export!(Counter);
