//! The outcome of a batch under construction.

use crate::bindings::weir::module::types as wit;

/// Collects the outcome of a batch.
#[derive(Debug, Default)]
pub struct Out {
    routes: Vec<u8>,
    copies: Vec<(u32, u8)>,
    reasons: Vec<(u32, String)>,
    emits: wit_emits::Emits,
}

const DROP: u8 = 0;
const DEAD: u8 = 255;

impl Out {
    pub(crate) fn new(records: usize) -> Self {
        Self {
            routes: vec![DROP; records],
            ..Self::default()
        }
    }

    /// Sends record `index` unchanged to `output`; output 1 is the first. The last call for a record counts;
    /// records without a call are dropped.
    #[inline]
    pub fn route(&mut self, index: usize, output: u8) {
        if let Some(route) = self.routes.get_mut(index) {
            *route = output;
        }
    }

    /// Sends all records: the first item of `outputs` is the output of the first record, and 0 drops. Items
    /// beyond the batch are ignored. Cheaper than [`Out::route`] per record.
    #[inline]
    pub fn route_all(&mut self, outputs: impl Iterator<Item = u8>) {
        for (route, output) in self.routes.iter_mut().zip(outputs) {
            *route = output;
        }
    }

    /// Keeps record `index` in the stream: sends it to the first output.
    #[inline]
    pub fn keep(&mut self, index: usize) {
        self.route(index, 1);
    }

    /// Sends record `index` to an additional output.
    pub fn copy(&mut self, index: usize, output: u8) {
        self.copies.push((index as u32, output));
    }

    /// Rejects record `index`: it becomes a dead letter with a reason for people.
    pub fn reject(&mut self, index: usize, reason: impl Into<String>) {
        self.route(index, DEAD);
        self.reasons.push((index as u32, reason.into()));
    }

    /// Emits a new record that originates from record `index`. Indexes must ascend.
    pub fn emit(&mut self, index: usize, output: u8, record: &NewRecord<'_>) {
        self.emits.push(index as u32, output, record);
    }

    /// Emits a copy of record `index` with a new value, which `write` writes into its final buffer. Emits
    /// nothing if `write` fails.
    ///
    /// # Errors
    /// The errors of `write`.
    #[inline]
    pub fn emit_value<E>(
        &mut self,
        index: usize,
        output: u8,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.emits.push_value(index as u32, output, write)
    }

    pub(crate) fn into_wit(self) -> wit::Outcome {
        wit::Outcome {
            routes: self.routes,
            copies: self.copies,
            emits: self.emits.into_wit(),
            reasons: self.reasons,
        }
    }
}

/// A new record. Fields that are not set are taken from the record it originates from.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewRecord<'a> {
    /// The value; the inner `None` is null.
    pub value: Option<Option<&'a [u8]>>,
    /// The key; the inner `None` is no key.
    pub key: Option<Option<&'a [u8]>>,
    /// The timestamp, in milliseconds since 1970.
    pub timestamp: Option<i64>,
}

impl<'a> NewRecord<'a> {
    /// Makes a copy of the origin with another value.
    pub fn value(value: &'a [u8]) -> Self {
        Self {
            value: Some(Some(value)),
            ..Self::default()
        }
    }

    /// Sets the timestamp, in milliseconds since 1970.
    #[must_use]
    pub fn at(mut self, timestamp: i64) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// Sets the key.
    #[must_use]
    pub fn with_key(mut self, key: &'a [u8]) -> Self {
        self.key = Some(Some(key));
        self
    }
}

mod wit_emits {
    use super::{NewRecord, wit};

    /// New records with the same set of columns, which share one `emits`.
    #[derive(Debug, Default)]
    pub(super) struct Emits {
        runs: Vec<wit::Emits>,
    }

    impl Emits {
        pub(super) fn push(&mut self, source: u32, output: u8, record: &NewRecord<'_>) {
            let fits = |run: &wit::Emits| {
                run.values.is_some() == record.value.is_some()
                    && run.keys.is_some() == record.key.is_some()
                    && run.timestamps.is_some() == record.timestamp.is_some()
                    && run.sources.last().is_none_or(|last| *last <= source)
            };
            if !self.runs.last().is_some_and(fits) {
                self.runs.push(wit::Emits {
                    sources: Vec::new(),
                    outputs: Vec::new(),
                    timestamps: record.timestamp.map(|_| Vec::new()),
                    keys: record.key.map(|_| empty()),
                    values: record.value.map(|_| empty()),
                    headers: None,
                    bare: false,
                });
            }
            let Some(run) = self.runs.last_mut() else { return };
            run.sources.push(source);
            run.outputs.push(output);
            if let (Some(timestamps), Some(timestamp)) = (&mut run.timestamps, record.timestamp) {
                timestamps.push(timestamp);
            }
            if let (Some(column), Some(item)) = (&mut run.values, record.value) {
                push(column, item);
            }
            if let (Some(column), Some(item)) = (&mut run.keys, record.key) {
                push(column, item);
            }
        }

        #[inline]
        pub(super) fn push_value<E>(
            &mut self,
            source: u32,
            output: u8,
            write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
        ) -> Result<(), E> {
            let fits = |run: &wit::Emits| {
                run.values.as_ref().is_some_and(|v| v.nulls.is_none())
                    && run.keys.is_none()
                    && run.timestamps.is_none()
                    && run.sources.last().is_none_or(|last| *last <= source)
            };
            if !self.runs.last().is_some_and(fits) {
                self.runs.push(wit::Emits {
                    sources: Vec::new(),
                    outputs: Vec::new(),
                    timestamps: None,
                    keys: None,
                    values: Some(empty()),
                    headers: None,
                    bare: false,
                });
            }
            let Some(run) = self.runs.last_mut() else {
                return Ok(());
            };
            let Some(values) = &mut run.values else {
                return Ok(());
            };
            let before = values.data.len();
            if let Err(e) = write(&mut values.data) {
                values.data.truncate(before);
                return Err(e);
            }
            values.ends.push(values.data.len() as u32);
            run.sources.push(source);
            run.outputs.push(output);
            Ok(())
        }

        pub(super) fn into_wit(self) -> Vec<wit::Emits> {
            self.runs
        }
    }

    fn empty() -> wit::Column {
        wit::Column {
            ends: Vec::new(),
            data: Vec::new(),
            nulls: None,
        }
    }

    fn push(column: &mut wit::Column, item: Option<&[u8]>) {
        match item {
            Some(bytes) => column.data.extend_from_slice(bytes),
            None => column.nulls.get_or_insert_default().resize(column.ends.len(), 0),
        }
        column.ends.push(column.data.len() as u32);
        if let Some(nulls) = &mut column.nulls {
            nulls.push(u8::from(item.is_none()));
        }
    }
}
