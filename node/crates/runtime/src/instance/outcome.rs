//! Checking a guest's answer: lengths agree, indexes and outputs exist, order holds.

use crate::bindings::weir::module::types as wit;
use weir_types::columns::{ColumnView, HeadersView};
use weir_types::limits::BATCH_RECORDS_MAX;
use weir_types::record::HeaderBuf;

/// Additional records that an outcome may make, however small the batch; per record for a larger batch. More
/// is no honest fan-out: a copy costs a guest eight bytes, and the host a record.
const MADE_RECORDS_MAX: usize = BATCH_RECORDS_MAX as usize;
const MADE_PER_RECORD_MAX: usize = 16;

/// Route of a dropped record.
const DROP: u8 = 0;
/// Route of a dead letter.
const DEAD: u8 = 255;

/// The outcome of a batch. Every index is below the number of records, and every output is in the plan.
#[derive(Debug)]
pub struct Outcome {
    /// A byte per record: 0 drops the record, 255 makes a dead letter, other values are outputs.
    pub routes: Vec<u8>,
    /// Index and output of additional copies.
    pub copies: Vec<(u32, u8)>,
    emits: Vec<wit::Emits>,
    reasons: Vec<(u32, String)>,
}

/// A rejected record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection<'a> {
    /// Index in the batch.
    pub index: u32,
    /// The module's reason.
    pub reason: &'a str,
}

/// A record made by a module.
#[derive(Clone, Debug)]
pub struct EmittedRecord<'a> {
    /// Index of the source record.
    pub source: u32,
    /// Output of the record.
    pub output: u8,
    /// Timestamp; `None` keeps the source's.
    pub timestamp: Option<i64>,
    /// Key; `None` keeps the source's, and the inner `None` means no key.
    pub key: Option<Option<&'a [u8]>>,
    /// Value; `None` keeps the source's, and the inner `None` means null.
    pub value: Option<Option<&'a [u8]>>,
    /// Headers after the source's, or instead of them with `bare`.
    pub headers: HeaderBuf,
    /// Leave out the source's headers.
    pub bare: bool,
}

impl Outcome {
    /// Checks the answer for a batch of `records` with `outputs` outputs.
    pub(crate) fn check(from: wit::Outcome, records: usize, outputs: usize) -> Result<Self, String> {
        let wit::Outcome {
            mut routes,
            copies,
            emits,
            mut reasons,
        } = from;
        if routes.is_empty() {
            routes = vec![DROP; records];
        }
        if routes.len() != records {
            return Err(format!("{} routes for {records} records", routes.len()));
        }
        let exists = |output: u8| output >= 1 && usize::from(output) <= outputs;
        // A single pass that a compiler can vectorise; search for the culprit only if there is an error.
        let top = outputs as u8;
        if routes.iter().any(|r| (*r > top) & (*r != DEAD)) {
            let bad = routes
                .iter()
                .find(|r| **r > top && **r != DEAD)
                .copied()
                .unwrap_or_default();
            return Err(format!("route to output {bad}, there are {outputs}"));
        }
        let made = copies.len() + emits.iter().map(|run| run.sources.len()).sum::<usize>();
        let most = MADE_RECORDS_MAX.max(records.saturating_mul(MADE_PER_RECORD_MAX));
        if made > most {
            return Err(format!(
                "{made} copies and new records for a batch of {records}: at most {most} are allowed"
            ));
        }
        if let Some((index, output)) = copies.iter().find(|(i, o)| *i as usize >= records || !exists(*o)) {
            return Err(format!(
                "copy of record {index} to output {output}: {records} records, {outputs} outputs"
            ));
        }
        if let Some((index, _)) = reasons.iter().find(|(i, _)| *i as usize >= records) {
            return Err(format!("reason for record {index} of {records}"));
        }
        for (n, run) in emits.iter().enumerate() {
            check_emits(run, records, outputs).map_err(|e| format!("emits[{n}] {e}"))?;
        }
        // Stable: the first of several reasons for a record counts.
        reasons.sort_by_key(|(index, _)| *index);
        Ok(Self {
            routes,
            copies,
            emits,
            reasons,
        })
    }

    /// Returns the dead letters, in order.
    pub fn rejections(&self) -> impl Iterator<Item = Rejection<'_>> {
        let dead = self.routes.iter().enumerate().filter(|(_, r)| **r == DEAD);
        // In order, so that each reason is visited once.
        let mut reasons = self.reasons.iter().peekable();
        dead.map(move |(i, _)| {
            let mut reason = None;
            while let Some((at, words)) = reasons.next_if(|(at, _)| *at as usize <= i) {
                reason = reason.or((*at as usize == i).then_some(words));
            }
            Rejection {
                index: i as u32,
                reason: reason.map_or("rejected by the module", |r| r),
            }
        })
    }

    /// Returns true when there are no new records and no copies.
    pub fn is_routes_only(&self) -> bool {
        self.copies.is_empty() && self.emits.is_empty()
    }

    /// Returns true when there are at most new records: nothing is kept, copied or rejected.
    pub(crate) fn is_emits_only(&self) -> bool {
        self.copies.is_empty() && self.routes.iter().all(|r| *r == DROP)
    }

    /// Returns the new records, run by run.
    pub fn emitted(&self) -> impl Iterator<Item = EmittedRecord<'_>> {
        self.emits.iter().flat_map(|run| {
            let n = run.sources.len();
            let keys = run.keys.as_ref().and_then(|c| view(c, n).ok());
            let values = run.values.as_ref().and_then(|c| view(c, n).ok());
            let headers = run.headers.as_ref().and_then(|h| headers_view(h, n).ok());
            (0..n).map(move |i| {
                let mut own = HeaderBuf::default();
                if let Some(headers) = &headers {
                    headers.copy_to(i, &mut own);
                }
                EmittedRecord {
                    source: run.sources.get(i).copied().unwrap_or_default(),
                    output: run.outputs.get(i).copied().unwrap_or_default(),
                    timestamp: run.timestamps.as_ref().and_then(|t| t.get(i).copied()),
                    key: keys.map(|c| c.item(i)),
                    value: values.map(|c| c.item(i)),
                    headers: own,
                    bare: run.bare,
                }
            })
        })
    }
}

fn check_emits(run: &wit::Emits, records: usize, outputs: usize) -> Result<(), String> {
    let n = run.sources.len();
    if run.outputs.len() != n || run.timestamps.as_ref().is_some_and(|t| t.len() != n) {
        return Err(format!("has columns that do not all have {n} items"));
    }
    if !run.sources.is_sorted() {
        return Err("has sources that descend".to_owned());
    }
    if let Some(bad) = run.sources.last().filter(|s| **s as usize >= records) {
        return Err(format!("stems from record {bad} of {records}"));
    }
    if let Some(bad) = run
        .outputs
        .iter()
        .find(|o| **o == 0 || usize::from(**o) > outputs)
    {
        return Err(format!("goes to output {bad}, there are {outputs}"));
    }
    run.keys
        .as_ref()
        .map(|c| view(c, n))
        .transpose()
        .map_err(|e| format!("keys: {e}"))?;
    run.values
        .as_ref()
        .map(|c| view(c, n))
        .transpose()
        .map_err(|e| format!("values: {e}"))?;
    run.headers.as_ref().map(|h| headers_view(h, n)).transpose()?;
    Ok(())
}

fn view(c: &wit::ColumnResult, n: usize) -> Result<ColumnView<'_>, String> {
    ColumnView::check(&c.ends, &c.data, c.nulls.as_deref(), n)
}

fn headers_view(h: &wit::HeadersResult, n: usize) -> Result<HeadersView<'_>, String> {
    let items = h.names.ends.len();
    let names = view(&h.names, items).map_err(|e| format!("header names: {e}"))?;
    let values = view(&h.values, items).map_err(|e| format!("header values: {e}"))?;
    HeadersView::check(&h.ends, names, values, n)
}

/// A record with its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Index of the record, or of the source of a new record.
    pub source: u32,
    /// Output; 1 is the first of the plan.
    pub output: u8,
    /// Index in [`Outcome::emitted`], for a new record.
    pub emitted: Option<u32>,
}

impl Outcome {
    /// Returns all records with an output, in the order of the contract: by source; then the record itself,
    /// its copies, and its new records.
    pub fn placements(&self) -> Vec<Placement> {
        let routed = self
            .routes
            .iter()
            .enumerate()
            .filter(|(_, r)| **r != DROP && **r != DEAD);
        let mut all: Vec<Placement> = routed
            .map(|(i, r)| Placement {
                source: i as u32,
                output: *r,
                emitted: None,
            })
            .collect();
        if self.is_routes_only() {
            return all;
        }
        all.extend(self.copies.iter().map(|(i, o)| Placement {
            source: *i,
            output: *o,
            emitted: None,
        }));
        let mut n = 0;
        for run in &self.emits {
            for (source, output) in run.sources.iter().zip(&run.outputs) {
                all.push(Placement {
                    source: *source,
                    output: *output,
                    emitted: Some(n),
                });
                n += 1;
            }
        }
        // Stable: routes came before copies, and copies before new records.
        all.sort_by_key(|p| p.source);
        all
    }
}
