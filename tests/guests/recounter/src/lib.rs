//! The next version of `counter`: the same output, and state that also has the last number of each remainder.

use weir_sdk::prelude::*;
use weir_sdk::state::{Map, Value};

struct Counter {
    /// Count, and last number.
    counts: Map<(u64, u64)>,
    sum: Value<u64>,
    counts_output: u8,
    mode: String,
}

impl Module for Counter {
    const ABOUT: &'static str = "Counts numbers by their remainder.";
    const STATE_VERSION: u32 = 2;

    fn parameters() -> Vec<Parameter> {
        vec![Parameter::preset::<String>(
            "mode",
            "",
            "How it fails to take over, in the middle of it: refuse, loop, trap, grow or hoard.",
        )]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let mut interface = Interface::values();
        let counts_output = interface.output("counts");
        let module = Self {
            counts: Map::new("counts"),
            sum: Value::new("sum"),
            counts_output,
            mode: config.get("mode")?,
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
                let before = n.map_or(0, |(n, _)| n);
                *n = Some((before + 1, number));
                before + 1
            });
            let sum = self.sum.get().unwrap_or(0).wrapping_add(number);
            self.sum.set(sum);
            let said = format!("{number} {bucket} {count} {sum}");
            out.keep(record.index());
            out.emit(
                record.index(),
                self.counts_output,
                &NewRecord::value(said.as_bytes()),
            );
        }
        Ok(())
    }

    fn migrate(&mut self, earlier: u32) -> Result<(), String> {
        if earlier != 1 {
            return Err(format!("it knows nothing of version {earlier}"));
        }
        self.counts.migrate::<u64>(|_, n| Some((n, 0)));
        match self.mode.as_str() {
            "refuse" => Err("it was told to refuse".to_owned()),
            "loop" => loop {
                std::hint::black_box(());
            },
            "trap" => panic!("told to"),
            "grow" => {
                let mut all: Vec<Vec<u8>> = Vec::new();
                loop {
                    all.push(vec![1; 1 << 20]);
                    std::hint::black_box(&all);
                }
            }
            "hoard" => {
                for n in 0..5_000_u64 {
                    self.counts.insert(&n.to_be_bytes(), (n, n));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

weir_sdk::export!(Counter);
