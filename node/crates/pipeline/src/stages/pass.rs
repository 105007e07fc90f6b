//! A pass of records through all stages. A pass succeeds or fails as a whole.

use crate::stages::dead_letter::{self, DeadLetter};
use crate::stages::effects::{Effects, ErrorHandling, StageInput};
use crate::stages::item::{InFlight, columns};
use crate::stages::stage::Stage;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_runtime::{CallError, CallFailure, Digest, Fired, Mark, Moment, Table};
use weir_types::RecordRef;
use weir_types::limits::{
    BATCH_EFFECTS_BYTES_MAX, OP_HEAD_BYTES_MAX, RECORD_EFFECTS_BYTES_MAX, STEP_STATE_BYTES_MAX,
};
use weir_types::planted::{Bug, planted};

/// Upper bound for the bytes that a changed row or timer adds to an entry beside its key and value.
const ROW_AROUND_BYTES: usize = OP_HEAD_BYTES_MAX + 288;

/// Factor by which a stage may enlarge a batch beyond `limits.output_bytes`: an honest fan-out of a batch
/// that compresses well.
const FAN_OUT_MAX: usize = 16;

/// A run of the stages over a batch.
pub(crate) struct BatchRun<'a> {
    pub(crate) stages: &'a mut [Stage],
    pub(crate) on_error: ErrorHandling,
    pub(crate) input: StageInput<'a>,
    /// Source records. Timers are represented as records.
    pub(crate) records: &'a [RecordRef<'a>],
    /// Marks of the records, or empty.
    pub(crate) marks: &'a [u8],
    pub(crate) moment: Moment,
    pub(crate) effects: Effects,
}

/// Result of a pass.
#[derive(Default)]
pub(crate) struct Pass {
    pub(crate) main: Vec<InFlight>,
    pub(crate) outputs: BTreeMap<String, Vec<InFlight>>,
    pub(crate) dead: Vec<DeadLetter>,
    /// Bytes of records for outputs, and of dead letters.
    pub(crate) bytes: usize,
}

/// A failed pass: the stage, and its error.
pub(crate) struct Failed {
    pub(crate) stage: usize,
    pub(crate) error: CallError,
    /// Source indexes of the stage's input, to find the source of a poison record.
    pub(crate) sources: Vec<u32>,
}

impl BatchRun<'_> {
    /// Takes `items` through all stages, or fails as a whole.
    pub(crate) fn pass(&mut self, items: Vec<InFlight>) -> Result<Pass, Failed> {
        let mut pass = Pass {
            main: items,
            ..Pass::default()
        };
        let marks: Vec<_> = self.stages.iter().map(mark).collect();
        let (looked_at, changed_before) = (pass.main.len(), self.changed_bytes());
        let first = match self.input {
            StageInput::Records { .. } => 0,
            StageInput::Timers { stage, .. } => stage,
        };
        for stage in first..self.stages.len() {
            if pass.main.is_empty() {
                break;
            }
            let items = std::mem::take(&mut pass.main);
            let done = self.stage(stage, &items, &mut pass);
            let done = done.and_then(|()| self.check(&pass, looked_at, changed_before));
            done.map_err(|error| {
                if let Some(stage) = self.stages.get_mut(stage) {
                    stage.instance = None;
                }
                // A failed pass leaves no trace, in earlier stages neither.
                for (stage, mark) in self.stages.iter_mut().zip(&marks) {
                    stage.roll_back(*mark);
                }
                Failed {
                    stage,
                    error,
                    sources: items.iter().map(|i| i.source).collect(),
                }
            })?;
        }
        pass.bytes += self.new_bytes(&pass.main);
        Ok(pass)
    }

    /// Returns the bytes of records in `main` that are new or further copies.
    fn new_bytes(&self, main: &[InFlight]) -> usize {
        let mut before = None;
        let is_new = |item: &&InFlight| {
            let is_copy = before.replace(item.source) == Some(item.source);
            is_copy || item.made.is_some()
        };
        main.iter()
            .filter(is_new)
            .map(|i| i.view(self.records).bytes())
            .sum()
    }

    /// Returns an upper bound for the bytes of changed rows that are in no entry yet.
    pub(crate) fn changed_bytes(&self) -> usize {
        let tables = self.stages.iter().filter_map(|stage| stage.table.as_ref());
        tables
            .map(|table| table.changed_bytes() + table.changed_rows() * ROW_AROUND_BYTES)
            .sum()
    }

    /// Checks that the result so far fits into an entry. A single record whose result does not fit is the
    /// module's fault.
    pub(crate) fn check(
        &self,
        pass: &Pass,
        looked_at: usize,
        changed_before: usize,
    ) -> Result<(), CallError> {
        if planted(Bug::NoEntryBound) {
            return Ok(());
        }
        let limit = if looked_at == 1 {
            RECORD_EFFECTS_BYTES_MAX
        } else {
            BATCH_EFFECTS_BYTES_MAX
        };
        let bytes = pass.bytes + self.new_bytes(&pass.main);
        if bytes > limit {
            return Err(CallError::Failed(CallFailure::Effects { bytes, limit }));
        }
        let (bytes, limit) = (self.changed_bytes() - changed_before, STEP_STATE_BYTES_MAX);
        if looked_at == 1 && bytes > limit {
            return Err(CallError::Failed(CallFailure::Changes { bytes, limit }));
        }
        Ok(())
    }

    pub(crate) fn stage(&mut self, at: usize, items: &[InFlight], pass: &mut Pass) -> Result<(), CallError> {
        let (digest, label) = (self.digest(at), self.label(at));
        let Some(stage) = self.stages.get_mut(at) else {
            return Ok(());
        };
        let wanted = stage.instance()?.plan().wanted;
        let Stage { instance, table, .. } = stage;
        let Some(instance) = instance else { return Ok(()) };
        let (result, spent) = match self.input {
            StageInput::Timers { stage, fired } if stage == at => {
                let of = |i: &InFlight| fired.timers.get(i.source as usize).cloned();
                let timers: Vec<_> = items.iter().filter_map(of).collect();
                let clock = fired.clock;
                let fired = Fired {
                    clock,
                    timers: &timers,
                };
                timed(|| instance.on_timers(self.moment, fired, table))
            }
            StageInput::Records { .. } | StageInput::Timers { .. } => {
                let source = match self.input {
                    StageInput::Records { source } => source,
                    // Records made by a timer have no source.
                    StageInput::Timers { .. } => 0,
                };
                let columns = columns(items, self.records, wanted);
                let of = |i: &InFlight| self.marks.get(i.source as usize).copied().unwrap_or(0);
                let marks: Vec<u8> = if self.marks.is_empty() {
                    Vec::new()
                } else {
                    items.iter().map(of).collect()
                };
                timed(|| instance.process(source, self.moment, &columns, &marks, table))
            }
        };
        self.effects.spent += spent;
        let outcome = result?;
        let emitted: Vec<_> = outcome.emitted().collect();
        // Limits copies: a copy costs the guest nothing, and everyone else a record.
        let mut left = if outcome.is_routes_only() || planted(Bug::NoEntryBound) {
            usize::MAX
        } else {
            let came: usize = items.iter().map(|i| i.view(self.records).bytes()).sum();
            came + came.saturating_mul(FAN_OUT_MAX).max(stage.limits.output_bytes)
        };
        let allowed = left;
        for place in outcome.placements() {
            let Some(item) = items.get(place.source as usize) else {
                continue;
            };
            let item = match place.emitted.and_then(|n| emitted.get(n as usize)) {
                Some(new) => item
                    .emit(new, self.records)
                    .map_err(|why| CallError::Poison(place.source, why))?,
                None => item.clone(),
            };
            let bytes = if left == usize::MAX {
                0
            } else {
                item.view(self.records).bytes()
            };
            left = left.checked_sub(bytes).ok_or_else(|| {
                let bytes = allowed.saturating_add(bytes);
                CallError::Failed(CallFailure::Effects {
                    bytes,
                    limit: allowed,
                })
            })?;
            match instance.plan().outputs.get(usize::from(place.output) - 1) {
                Some(name) if name != "main" => {
                    pass.bytes += item.view(self.records).bytes();
                    match pass.outputs.get_mut(name) {
                        Some(items) => items.push(item),
                        None => drop(pass.outputs.insert(name.clone(), vec![item])),
                    }
                }
                _ => pass.main.push(item),
            }
        }
        for dead in outcome.rejections() {
            let Some(item) = items.get(dead.index as usize) else {
                continue;
            };
            let error = dead.reason.to_owned();
            pass.bytes += dead_letter::own_bytes(&label, &error) + item.view(self.records).bytes();
            pass.dead.push(DeadLetter {
                source: item.source,
                digest,
                module: Arc::clone(&label),
                error,
                attempts: 1,
            });
        }
        Ok(())
    }

    pub(crate) fn label(&self, stage: usize) -> Arc<str> {
        let stage = self.stages.get(stage);
        stage.map_or_else(|| Arc::from(""), |s| Arc::clone(&s.label))
    }

    pub(crate) fn digest(&self, stage: usize) -> Digest {
        self.stages
            .get(stage)
            .map_or_else(|| Digest::of(&[]), |s| s.module.digest())
    }
}

/// Returns the result of `call`, and its duration.
fn timed<T>(call: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let result = call();
    (result, begun.elapsed())
}

pub(crate) fn mark(stage: &Stage) -> Mark {
    stage.table.as_ref().map_or_else(Mark::default, Table::mark)
}
