//! `weir:module/metrics`.

use crate::bindings::weir::module::metrics::{Host, Instrument};
use crate::host::Guest;
use crate::limits::{INSTRUMENT_NAME_BYTES_MAX, INSTRUMENTS_MAX};
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_types::sync::Mutex;

/// Value of an instrument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// A sum that only grows.
    Counter(f64),
    /// The last value.
    Gauge(f64),
    /// Number and sum of values.
    Histogram(u64, f64),
}

/// Instruments of all instances of a stage. They survive the instances.
#[derive(Debug, Default)]
pub struct Instruments(Mutex<BTreeMap<String, Reading>>);

impl Instruments {
    /// Returns the name and the reading of each instrument.
    pub fn read(&self) -> Vec<(String, Reading)> {
        let map = self.0.lock();
        map.iter()
            .map(|(name, reading)| (name.clone(), *reading))
            .collect()
    }

    fn update(&self, name: &str, values: &[f64]) {
        let mut map = self.0.lock();
        let Some(reading) = map.get_mut(name) else { return };
        for v in values.iter().filter(|v| v.is_finite()) {
            match reading {
                Reading::Counter(sum) => *sum += v.max(0.0),
                Reading::Gauge(last) => *last = *v,
                Reading::Histogram(count, sum) => {
                    *count += 1;
                    *sum += v;
                }
            }
        }
    }
}

/// Instruments defined by an instance, by number.
pub(crate) struct Defined {
    shared: Arc<Instruments>,
    names: Vec<String>,
    pub(crate) in_init: bool,
}

impl Defined {
    pub(crate) fn new(shared: Arc<Instruments>) -> Self {
        Self {
            shared,
            names: Vec::new(),
            in_init: false,
        }
    }
}

impl Host for Guest {
    fn define(&mut self, instrument: Instrument, name: String) -> wasmtime::Result<u32> {
        let defined = &mut self.metrics;
        if !defined.in_init {
            return Err(wasmtime::Error::msg("`metrics.define` is for `init` only"));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || name.len() > INSTRUMENT_NAME_BYTES_MAX || !name.chars().all(legal) {
            return Err(wasmtime::Error::msg(
                "an instrument's name is 1 to 64 letters, digits or `_`",
            ));
        }
        if defined.names.len() >= INSTRUMENTS_MAX {
            return Err(wasmtime::Error::msg("more than 64 instruments"));
        }
        let fresh = match instrument {
            Instrument::Counter => Reading::Counter(0.0),
            Instrument::Gauge => Reading::Gauge(0.0),
            Instrument::Histogram => Reading::Histogram(0, 0.0),
        };
        let mut map = defined.shared.0.lock();
        map.entry(name.clone()).or_insert(fresh);
        drop(map);
        defined.names.push(name);
        Ok(defined.names.len() as u32 - 1)
    }

    fn update(&mut self, id: u32, values: Vec<f64>) -> wasmtime::Result<()> {
        let defined = &self.metrics;
        let name = defined.names.get(id as usize);
        let name = name.ok_or_else(|| wasmtime::Error::msg(format!("instrument {id} was not defined")))?;
        defined.shared.update(name, &values);
        Ok(())
    }
}
