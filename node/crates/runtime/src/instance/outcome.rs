//! What a guest returned, checked: lengths agree, indexes and outputs exist, order holds.

use crate::bindings::weir::module::types as wit;
use weir_types::columns::{ColumnView, HeadersView};
use weir_types::limits::BATCH_RECORDS_MAX;
use weir_types::record::HeaderBuf;

/// Records that one outcome may stand for beside those of the batch itself, however small the batch is; a larger one, so many
/// for each of its records. What makes more is no honest fan-out: a copy costs a guest eight bytes, and the host a record.
const MADE_RECORDS_MAX: usize = BATCH_RECORDS_MAX as usize;
const MADE_PER_RECORD_MAX: usize = 16;

/// Route of a record that is dropped.
const DROP: u8 = 0;
/// Route of a record that becomes a dead letter.
const DEAD: u8 = 255;

/// What becomes of a batch. Every index is below the number of records, every output one of the plan's.
#[derive(Debug)]
pub struct Outcome {
    /// A byte a record: 0 drops it, 255 makes it a dead letter, another is its output.
    pub routes: Vec<u8>,
    /// Index and output of further copies.
    pub copies: Vec<(u32, u8)>,
    emits: Vec<wit::Emits>,
    reasons: Vec<(u32, String)>,
}

/// A record that becomes a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection<'a> {
    /// Its index in the batch.
    pub index: u32,
    /// The module's words.
    pub reason: &'a str,
}

/// A record that a module made.
#[derive(Clone, Debug)]
pub struct EmittedRecord<'a> {
    /// Index of the record that it stems from.
    pub source: u32,
    /// Where it goes.
    pub output: u8,
    /// Its own timestamp, unless the source's stands.
    pub timestamp: Option<i64>,
    /// Its own key, unless the source's stands; the inner `None` is none.
    pub key: Option<Option<&'a [u8]>>,
    /// Its own value, unless the source's stands; the inner `None` is null.
    pub value: Option<Option<&'a [u8]>>,
    /// Headers of its own, to follow the source's unless `bare`.
    pub headers: HeaderBuf,
    /// It does not have the source's headers.
    pub bare: bool,
}

impl Outcome {
    /// Checks what came back for a batch of `records` with `outputs` outputs.
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
        // One pass that a compiler can vectorise; the culprit is looked for only when there is one.
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
        // Stable: of several for one record the first counts.
        reasons.sort_by_key(|(index, _)| *index);
        Ok(Self {
            routes,
            copies,
            emits,
            reasons,
        })
    }

    /// The dead letters, in order.
    pub fn rejections(&self) -> impl Iterator<Item = Rejection<'_>> {
        let dead = self.routes.iter().enumerate().filter(|(_, r)| **r == DEAD);
        // In order: each is looked at once, however they came.
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

    /// Whether it made no records and no copies: routes say it all.
    pub fn is_routes_only(&self) -> bool {
        self.copies.is_empty() && self.emits.is_empty()
    }

    /// Whether it made new records at most: nothing is kept, copied or rejected.
    pub(crate) fn is_emits_only(&self) -> bool {
        self.copies.is_empty() && self.routes.iter().all(|r| *r == DROP)
    }

    /// New records, run by run.
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

/// A record on its way to an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Index of the record that it is or stems from.
    pub source: u32,
    /// Where it goes, 1 being the plan's first.
    pub output: u8,
    /// The place among [`Outcome::emitted`], for a new one.
    pub emitted: Option<u32>,
}

impl Outcome {
    /// All records that go somewhere, in the order that the contract gives them: by source; then the record itself,
    /// its copies, what was made of it.
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
        // Stable: routes came before copies, and those before new ones.
        all.sort_by_key(|p| p.source);
        all
    }
}
