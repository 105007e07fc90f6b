//! Runs the stages of a pipeline over a batch, and applies the error policy.
//!
//! A batch that a module fails on is tried again on a fresh instance, then split in halves until the failing
//! record is isolated. All other records pass as if the failing record had not been there.

use crate::priority::Priority;
use crate::spec::on_error::Policy;
use crate::stages::dated::Dated;
use crate::stages::dead_letter::{self, DeadLetter};
use crate::stages::effects::{Effects, ErrorHandling, StageInput, Stopped, TooMuch};
use crate::stages::item::InFlight;
use crate::stages::pass::{BatchRun, Pass};
use crate::stages::stage::Stage;
use std::sync::Arc;
use std::time::Duration;
use weir_runtime::{CallError, CallFailure, Moment, Table};
use weir_types::RecordRef;
use weir_types::limits::BATCH_EFFECTS_BYTES_MAX;
use weir_types::planted::{Bug, planted};

/// Failed calls after which the rest of a batch is given up. Isolating a record among a thousand takes ten
/// steps, and a module that fails on every record would be called two thousand times.
const FAILURES_MAX: u32 = 24;

/// Pause before a batch whose module asked for a retry is tried again. Doubled each time.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Bytes of a key that an error message shows.
const KEY_TOLD_BYTES: usize = 64;

/// Runs `records`, whose offsets count from 0, through `stages`.
pub(crate) fn run(
    stages: &mut [Stage],
    on_error: ErrorHandling,
    input: StageInput<'_>,
    records: &[RecordRef<'_>],
    dated: &Dated,
    moment: Moment,
) -> Result<Effects, Stopped> {
    let tables = stages.iter_mut().filter_map(|s| s.table.as_mut());
    tables.for_each(Table::begin_batch);
    let mut run = BatchRun {
        stages,
        on_error,
        input,
        records,
        marks: &dated.marks,
        moment,
        effects: Effects::default(),
    };
    run.dead_letter_undated(dated);
    let items = (0..records.len() as u32)
        .filter(|source| dated.undated.is_empty() || !dated.is_undated(*source))
        .map(|source| InFlight { source, made: None })
        .collect();
    run.run_or_split(items)?;
    let mut effects = run.effects;
    if effects.bytes > BATCH_EFFECTS_BYTES_MAX && !planted(Bug::NoEntryBound) {
        return Err(Stopped::TooMuch(TooMuch {
            bytes: effects.bytes,
            limit: BATCH_EFFECTS_BYTES_MAX,
            of: records.len(),
        }));
    }
    effects.main.sort_by_key(|i| i.source);
    effects
        .outputs
        .values_mut()
        .for_each(|items| items.sort_by_key(|i| i.source));
    effects.dead.sort_by_key(|d| d.source);
    Ok(effects)
}

impl BatchRun<'_> {
    /// Makes dead letters of records without a time. No module sees them.
    fn dead_letter_undated(&mut self, dated: &Dated) {
        let module: Arc<str> = Arc::from("event_time");
        for (source, why) in &dated.undated {
            let item = InFlight {
                source: *source,
                made: None,
            };
            let error = format!("its time: {why}");
            self.effects.bytes += dead_letter::own_bytes(&module, &error) + item.view(self.records).bytes();
            self.effects.dead.push(DeadLetter {
                source: *source,
                digest: self.digest(0),
                module: Arc::clone(&module),
                error,
                attempts: 0,
            });
        }
    }

    /// Runs `items` through all stages: with retries, then in halves.
    pub(crate) fn run_or_split(&mut self, items: Vec<InFlight>) -> Result<(), Stopped> {
        let (mut tries, mut pause) = (0, RETRY_PAUSE);
        loop {
            let failed = match self.pass(items.clone()) {
                Ok(pass) => {
                    self.keep(pass);
                    return Ok(());
                }
                Err(failed) => failed,
            };
            // From here on the module's pipeline pays, and not its neighbours.
            Priority::Behind.ask();
            self.effects.failures += 1;
            tries += 1;
            match &failed.error {
                CallError::Fatal(why) => return Err(self.halt(&items, failed.stage, why)),
                CallError::Poison(index, why) => {
                    let source = failed.sources.get(*index as usize).copied();
                    let (bad, rest) = items.into_iter().partition(|i| Some(i.source) == source);
                    self.apply_error_policy(bad, failed.stage, why, 1)?;
                    return if rest.is_empty() {
                        Ok(())
                    } else {
                        self.run_or_split(rest)
                    };
                }
                // The records are not at fault: they are sent again.
                CallError::Failed(why @ (CallFailure::Full(_) | CallFailure::Crowded(_))) => {
                    return Err(Stopped::Full(why.to_string()));
                }
                CallError::Retry(_) if tries < self.on_error.attempts => {
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "a thread of its own, that the module asked to wait"
                    )]
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                CallError::Failed(_) if tries < self.on_error.attempts => {}
                CallError::Retry(_) | CallError::Failed(_) => {
                    return self.bisect(items, failed.stage, &failed.error.to_string(), tries);
                }
            }
        }
    }

    fn bisect(
        &mut self,
        mut items: Vec<InFlight>,
        stage: usize,
        error: &str,
        tries: u32,
    ) -> Result<(), Stopped> {
        if items.len() <= 1 || self.effects.failures >= FAILURES_MAX {
            return self.apply_error_policy(items, stage, error, tries);
        }
        let behind = items.split_off(items.len() / 2);
        self.run_or_split(items)?;
        self.run_or_split(behind)
    }

    /// Applies the error policy to records that fail for good.
    fn apply_error_policy(
        &mut self,
        items: Vec<InFlight>,
        stage: usize,
        error: &str,
        attempts: u32,
    ) -> Result<(), Stopped> {
        match self.on_error.policy {
            Policy::Halt => Err(self.halt(&items, stage, error)),
            Policy::Skip => {
                self.effects.skipped += items.len() as u64;
                Ok(())
            }
            Policy::DeadLetter => {
                let (digest, module) = (self.digest(stage), self.label(stage));
                let own = dead_letter::own_bytes(&module, error);
                let letters = items.iter().map(|i| own + i.view(self.records).bytes());
                self.effects.bytes += letters.sum::<usize>();
                let letter = |i: InFlight| DeadLetter {
                    source: i.source,
                    digest,
                    module: Arc::clone(&module),
                    error: error.to_owned(),
                    attempts,
                };
                self.effects.dead.extend(items.into_iter().map(letter));
                Ok(())
            }
        }
    }

    /// Returns a message for the module's author: stage, module, record and error.
    pub(crate) fn halt(&self, items: &[InFlight], stage: usize, error: &str) -> Stopped {
        let what = match self.input {
            StageInput::Timers { .. } => "timer",
            StageInput::Records { .. } => "record",
        };
        let on = match items {
            [item] => {
                let record = item.view(self.records);
                let key = record
                    .key
                    .map(|key| key.get(..KEY_TOLD_BYTES).unwrap_or(key).escape_ascii());
                let key = key.map_or_else(|| "without a key".to_owned(), |key| format!("with key `{key}`"));
                format!("a {what} {key}, of time {}", record.timestamp)
            }
            items => format!("{} {what}s", items.len()),
        };
        Stopped::Halt(format!(
            "stage {}, module `{}`, on {on}: {error}",
            stage + 1,
            self.label(stage)
        ))
    }

    pub(crate) fn keep(&mut self, pass: Pass) {
        self.effects.main.extend(pass.main);
        for (output, items) in pass.outputs {
            self.effects.outputs.entry(output).or_default().extend(items);
        }
        self.effects.dead.extend(pass.dead);
        self.effects.bytes += pass.bytes;
    }
}
