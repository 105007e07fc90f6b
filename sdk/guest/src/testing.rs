//! Runs modules natively, in ordinary unit tests.
//!
//! ```
//! # use weir_sdk::prelude::*;
//! # weir_sdk::module! { about: "", each: |_module, record| {
//! #     if record.value() == Some(b"keep") { Verdict::Keep } else { Verdict::Drop } } }
//! # fn main() {
//! use weir_sdk::testing::{Input, Native};
//!
//! let mut module = Native::<Generated>::new(&[]).unwrap();
//! let result = module.process(&[Input::value("keep"), Input::value("drop")]).unwrap();
//! assert_eq!(result.routes, [1, 0]);
//! # }
//! ```

#[cfg(feature = "cases")]
pub mod cases;

#[cfg(not(target_arch = "wasm32"))]
use crate::bindings::exports::weir::module::timed::Guest as _;
use crate::bindings::exports::weir::module::transform::Guest as _;
use crate::bindings::weir::module::types as wit;
use crate::module::{Adapter, Module};
#[cfg(not(target_arch = "wasm32"))]
use crate::timers::Clock;
use std::marker::PhantomData;

pub use wit::{Fault, Outcome, Value};

/// An input record.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The timestamp, in milliseconds since 1970.
    pub timestamp: i64,
    /// The headers, by name.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Input {
    /// Makes a record with only a value.
    pub fn value(value: impl AsRef<[u8]>) -> Self {
        Self {
            value: Some(value.as_ref().to_vec()),
            ..Self::default()
        }
    }
}

/// A module that runs natively.
#[derive(Debug)]
pub struct Native<M> {
    interface: wit::Plan,
    now: i64,
    watermark: i64,
    fired: Vec<Input>,
    module: PhantomData<M>,
}

impl<M: Module> Native<M> {
    /// Creates an instance with these parameters and empty state. One instance at a time per thread.
    ///
    /// # Errors
    /// The reason that the module's `init` returns.
    pub fn new(set: &[(&str, Value)]) -> Result<Self, String> {
        Self::reading(&["test"], set)
    }

    /// Creates an instance for records of the topics in `sources`. One instance at a time per thread.
    ///
    /// # Errors
    /// The reason that the module's `init` returns.
    pub fn reading(sources: &[&str], set: &[(&str, Value)]) -> Result<Self, String> {
        let mut values: Vec<(String, Value)> = Vec::new();
        for (name, preset) in M::parameters().iter().filter_map(crate::Parameter::preset_value) {
            if !set.iter().any(|(n, _)| *n == name) {
                values.push((name.to_owned(), preset));
            }
        }
        values.extend(set.iter().map(|(n, v)| ((*n).to_owned(), v.clone())));
        crate::state::forget();
        #[cfg(not(target_arch = "wasm32"))]
        crate::timers::host::forget();
        let config = wit::Config {
            partition: 0,
            sources: sources.iter().map(|s| (*s).to_owned()).collect(),
            values,
        };
        Ok(Self {
            interface: Adapter::<M>::init(config)?,
            now: 0,
            watermark: i64::MIN,
            fired: Vec::new(),
            module: PhantomData,
        })
    }

    /// Returns the names of the module's outputs; the first is output 1.
    pub fn outputs(&self) -> &[String] {
        &self.interface.outputs
    }

    /// Processes a batch.
    ///
    /// # Errors
    /// The module's fault.
    pub fn process(&mut self, records: &[Input]) -> Result<Outcome, Fault> {
        self.process_from(0, records)
    }

    /// Processes a batch of the topic with index `source`.
    ///
    /// # Errors
    /// The module's fault.
    pub fn process_from(&mut self, source: u32, records: &[Input]) -> Result<Outcome, Fault> {
        Adapter::<M>::process(wit::Batch {
            source,
            ..self.batch(records)
        })
    }

    /// Advances `clock` to `to`, in milliseconds since 1970, and fires the timers due by then; returns `None`
    /// if there are none. For [`Clock::Event`], `to` is the watermark. Clocks never go back.
    ///
    /// # Errors
    /// The module's fault.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn advance(&mut self, clock: Clock, to: i64) -> Result<Option<Outcome>, Fault> {
        let (time, name) = match clock {
            Clock::Event => (&mut self.watermark, wit::Clock::Event),
            Clock::Processing => (&mut self.now, wit::Clock::Processing),
        };
        *time = to.max(*time);
        let due = crate::timers::host::take_due(clock, *time);
        let record = |(at, key, _): &(i64, Vec<u8>, u32)| Input {
            key: Some(key.clone()),
            timestamp: *at,
            ..Input::default()
        };
        self.fired = due.iter().map(record).collect();
        if due.is_empty() {
            return Ok(None);
        }
        let fired = wit::Fired {
            clock: name,
            now: self.now,
            watermark: self.watermark,
            at: due.iter().map(|(at, ..)| *at).collect(),
            keys: column(due.iter().map(|(_, key, _)| Some(&key[..]))),
            tags: due.iter().map(|(.., tag)| *tag).collect(),
        };
        Adapter::<M>::on_timers(fired).map(Some)
    }

    /// Returns the timers of the last [`advance`](Self::advance) as records: the origins of records that the
    /// module emitted.
    pub fn fired(&self) -> &[Input] {
        &self.fired
    }

    fn marks(&self, records: &[Input]) -> Option<Vec<u8>> {
        let late = |r: &Input| u8::from(r.timestamp < self.watermark);
        let marks: Vec<u8> = records.iter().map(late).collect();
        marks.contains(&1).then_some(marks)
    }

    /// Builds a batch of `records` with the columns that the module requests.
    pub fn batch(&self, records: &[Input]) -> wit::Batch {
        let headers = || {
            let all = || records.iter().flat_map(|r| &r.headers);
            let ends = records.iter().scan(0, |n, r| {
                *n += r.headers.len() as u32;
                Some(*n)
            });
            wit::Headers {
                ends: ends.collect(),
                names: column(all().map(|(n, _)| Some(n.as_bytes()))),
                values: column(all().map(|(_, v)| v.as_deref())),
            }
        };
        wit::Batch {
            source: 0,
            now: self.now,
            watermark: self.watermark,
            timestamps: records.iter().map(|r| r.timestamp).collect(),
            marks: self.marks(records),
            keys: self
                .interface
                .keys
                .then(|| column(records.iter().map(|r| r.key.as_deref()))),
            values: self
                .interface
                .values
                .then(|| column(records.iter().map(|r| r.value.as_deref()))),
            headers: self.interface.headers.then(headers),
        }
    }

    /// Processes a batch from [`Native::batch`], for benchmarks.
    ///
    /// # Errors
    /// The module's fault.
    pub fn process_batch(&mut self, batch: wit::Batch) -> Result<Outcome, Fault> {
        Adapter::<M>::process(batch)
    }
}

fn column<'a>(items: impl Iterator<Item = Option<&'a [u8]>>) -> wit::Column {
    let (mut ends, mut data, mut nulls) = (Vec::new(), Vec::new(), Vec::new());
    for item in items {
        data.extend_from_slice(item.unwrap_or_default());
        ends.push(data.len() as u32);
        nulls.push(u8::from(item.is_none()));
    }
    let nulls = nulls.contains(&1).then_some(nulls);
    wit::Column { ends, data, nulls }
}

/// Returns the values of new records as text.
#[cfg(test)]
pub(crate) fn texts(outcome: &Outcome) -> Vec<String> {
    let columns = outcome.emits.iter().filter_map(|run| run.values.as_ref());
    let texts = columns.flat_map(|c| {
        let column = crate::Column::new(c);
        (0..column.len()).map(move |n| String::from_utf8(column.get(n).unwrap().to_vec()).unwrap())
    });
    texts.collect()
}
