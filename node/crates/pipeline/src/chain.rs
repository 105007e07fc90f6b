//! The stages of a pipeline over one batch: which records stay, which go elsewhere, which are dead letters.
//!
//! A batch that a module fails on is tried again on a fresh instance, then halved until what spoils it stands alone.
//! All records of the batch that pass do so as if the others had not been there.

use crate::dead_letter;
use crate::dead_letter::DeadLetter;
use crate::flow::{Item, columns};
use crate::priority::Priority;
use crate::spec::on_error::Policy;
use crate::time::Dated;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_runtime::{
    CallError, CallFailure, CallLimits, Digest, Fired, InitError, Instance, InstanceConfig, Instruments,
    LogSink, Mark, Module, Moment, Quota, Table,
};
use weir_types::RecordRef;
use weir_types::limits::{
    BATCH_EFFECTS_BYTES_MAX, OP_HEAD_BYTES_MAX, RECORD_EFFECTS_BYTES_MAX, STEP_STATE_BYTES_MAX,
};
use weir_types::planted::{Bug, planted};

/// Failed calls after which the rest of a batch is not tried any more: halving a thousand records to one takes ten
/// steps, and a module that fails on everything would be called two thousand times.
const FAILURES_MAX: u32 = 24;

/// Pause before a batch whose module asked for a retry is tried again; doubled each time.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Bytes of a key that an error tells.
const KEY_TOLD_BYTES: usize = 64;

/// A module in its place.
pub(crate) struct Stage {
    pub(crate) module: Module,
    /// Name and version of the module, for people.
    pub(crate) label: Arc<str>,
    pub(crate) config: InstanceConfig,
    pub(crate) limits: CallLimits,
    pub(crate) sink: Arc<dyn LogSink>,
    pub(crate) instruments: Arc<Instruments>,
    /// The instance in use; dropped after any error.
    pub(crate) instance: Option<Instance>,
    /// What the module remembers, if it may.
    pub(crate) table: Option<Table>,
    /// What it may take for that, with the others of its pipeline.
    pub(crate) quota: Quota,
    /// Under which rows that is.
    pub(crate) generation: u8,
}

impl Stage {
    /// Its like for a partition of its own.
    pub(crate) fn of_partition(&self, partition: u32) -> Self {
        Self {
            module: self.module.clone(),
            label: Arc::clone(&self.label),
            config: InstanceConfig {
                partition,
                ..self.config.clone()
            },
            limits: self.limits,
            sink: Arc::clone(&self.sink),
            instruments: Arc::clone(&self.instruments),
            instance: None,
            table: None,
            quota: self.quota.clone(),
            generation: self.generation,
        }
    }

    /// Takes back what its state has become since `mark`. The instance may have seen it: it goes, too.
    fn take_back(&mut self, mark: Mark) {
        if let Some(table) = &mut self.table {
            table.roll_back(mark);
            self.instance = None;
        }
    }

    /// Another instance.
    pub(crate) fn fresh(&self) -> Result<Instance, InitError> {
        let (sink, instruments) = (Arc::clone(&self.sink), Arc::clone(&self.instruments));
        self.module
            .instantiate(&self.config, self.limits, sink, instruments)
    }

    fn instance(&mut self) -> Result<&mut Instance, CallError> {
        if self.instance.is_none() {
            let failed = |e| match e {
                InitError::Failed(CallFailure::Full(max)) => CallError::Failed(CallFailure::Full(max)),
                e => CallError::Failed(CallFailure::Host(format!("no fresh instance: {e}"))),
            };
            self.instance = Some(self.fresh().map_err(failed)?);
        }
        self.instance
            .as_mut()
            .ok_or_else(|| CallError::Failed(CallFailure::Host("no instance".to_owned())))
    }
}

/// What a chain does with what it fails on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) policy: Policy,
    pub(crate) attempts: u32,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// In order of the sources: what stays in the stream.
    pub(crate) main: Vec<Item>,
    /// What goes to named outputs.
    pub(crate) outputs: BTreeMap<String, Vec<Item>>,
    pub(crate) dead: Vec<DeadLetter>,
    /// Failed on, under the policy that drops.
    pub(crate) skipped: u64,
    pub(crate) failures: u32,
    pub(crate) spent: Duration,
    bytes: usize,
}

/// Why a batch goes nowhere.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The pipeline stops.
    Halt(String),
    /// What it comes to is too much for one entry. Of one record alone it never is.
    TooMuch(TooMuch),
    /// There is no memory for a module at present.
    Full(String),
}

/// What records come to together is more than an entry may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMuch {
    pub(crate) bytes: usize,
    pub(crate) limit: usize,
    /// Records that were looked at together, or timers.
    pub(crate) of: usize,
}

impl Effects {
    /// Bytes of records that are new, copied or sent elsewhere, dead letters among them, before they are compressed.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Where a pass begins, and with what.
#[derive(Clone, Copy)]
pub(crate) enum Begin<'a> {
    /// At the first stage, with records of a source, by its place in the spec.
    Records { source: u32 },
    /// At the stage that set timers, with those.
    Timers { stage: usize, fired: Fired<'a> },
}

/// A chain at work on one batch.
pub(crate) struct Work<'a> {
    stages: &'a mut [Stage],
    rules: Rules,
    begin: Begin<'a>,
    /// What items stem from: records, or timers as if they were.
    records: &'a [RecordRef<'a>],
    /// Their marks, or nothing.
    marks: &'a [u8],
    moment: Moment,
    effects: Effects,
}

/// What one pass of some items through all stages gave.
#[derive(Default)]
struct Pass {
    main: Vec<Item>,
    outputs: BTreeMap<String, Vec<Item>>,
    dead: Vec<DeadLetter>,
    /// Of what goes to outputs, and of dead letters.
    bytes: usize,
}

/// What a row or a timer that changes takes in an entry beside its key and value: the name of the pipeline, and where in it.
const ROW_AROUND_BYTES: usize = OP_HEAD_BYTES_MAX + 288;

/// What a stage may make of a batch beyond `limits.output_bytes`: an honest fan-out of a batch that compresses well.
const FAN_OUT_MAX: usize = 16;

struct Failed {
    stage: usize,
    error: CallError,
    /// Sources of the stage's input, to find what a poison record stems from.
    sources: Vec<u32>,
}

/// Runs `records`, of offsets from 0 on, through `stages`.
pub(crate) fn run(
    stages: &mut [Stage],
    rules: Rules,
    begin: Begin<'_>,
    records: &[RecordRef<'_>],
    dated: &Dated,
    moment: Moment,
) -> Result<Effects, Stopped> {
    let tables = stages.iter_mut().filter_map(|s| s.table.as_mut());
    tables.for_each(Table::begin_batch);
    let mut work = Work {
        stages,
        rules,
        begin,
        records,
        marks: &dated.marks,
        moment,
        effects: Effects::default(),
    };
    work.give_up_undated(dated);
    let items = (0..records.len() as u32)
        .filter(|source| dated.undated.is_empty() || !dated.is_undated(*source))
        .map(|source| Item { source, made: None })
        .collect();
    work.settle(items)?;
    let mut effects = work.effects;
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

impl Work<'_> {
    /// Makes dead letters of records that have no time: no module sees them.
    fn give_up_undated(&mut self, dated: &Dated) {
        let module: Arc<str> = Arc::from("event_time");
        for (source, why) in &dated.undated {
            let item = Item {
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

    /// Gets `items` through, or says what stopped them.
    fn settle(&mut self, items: Vec<Item>) -> Result<(), Stopped> {
        let (mut tries, mut pause) = (0, RETRY_PAUSE);
        loop {
            let failed = match self.pass(items.clone()) {
                Ok(pass) => {
                    self.keep(pass);
                    return Ok(());
                }
                Err(failed) => failed,
            };
            // What follows costs the module's pipeline, not its neighbours.
            Priority::Behind.ask();
            self.effects.failures += 1;
            tries += 1;
            match &failed.error {
                CallError::Fatal(why) => return Err(self.halt(&items, failed.stage, why)),
                CallError::Poison(index, why) => {
                    let source = failed.sources.get(*index as usize).copied();
                    let (bad, rest) = items.into_iter().partition(|i| Some(i.source) == source);
                    self.give_up(bad, failed.stage, why, 1)?;
                    return if rest.is_empty() {
                        Ok(())
                    } else {
                        self.settle(rest)
                    };
                }
                // None of it is the records' doing: they come again.
                CallError::Failed(why @ (CallFailure::Full(_) | CallFailure::Crowded(_))) => {
                    return Err(Stopped::Full(why.to_string()));
                }
                CallError::Retry(_) if tries < self.rules.attempts => {
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "a thread of its own, that the module asked to wait"
                    )]
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                CallError::Failed(_) if tries < self.rules.attempts => {}
                CallError::Retry(_) | CallError::Failed(_) => {
                    return self.halve(items, failed.stage, &failed.error.to_string(), tries);
                }
            }
        }
    }

    fn halve(&mut self, mut items: Vec<Item>, stage: usize, error: &str, tries: u32) -> Result<(), Stopped> {
        if items.len() <= 1 || self.effects.failures >= FAILURES_MAX {
            return self.give_up(items, stage, error, tries);
        }
        let behind = items.split_off(items.len() / 2);
        self.settle(items)?;
        self.settle(behind)
    }

    /// What the policy does with records that will not get through.
    fn give_up(&mut self, items: Vec<Item>, stage: usize, error: &str, attempts: u32) -> Result<(), Stopped> {
        match self.rules.policy {
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
                let letter = |i: Item| DeadLetter {
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

    /// Why it stops, for whoever wrote the module: which one it is, on what, and what happened.
    fn halt(&self, items: &[Item], stage: usize, error: &str) -> Stopped {
        let what = match self.begin {
            Begin::Timers { .. } => "timer",
            Begin::Records { .. } => "record",
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

    fn label(&self, stage: usize) -> Arc<str> {
        let stage = self.stages.get(stage);
        stage.map_or_else(|| Arc::from(""), |s| Arc::clone(&s.label))
    }

    fn digest(&self, stage: usize) -> Digest {
        self.stages
            .get(stage)
            .map_or_else(|| Digest::of(&[]), |s| s.module.digest())
    }

    fn keep(&mut self, pass: Pass) {
        self.effects.main.extend(pass.main);
        for (output, items) in pass.outputs {
            self.effects.outputs.entry(output).or_default().extend(items);
        }
        self.effects.dead.extend(pass.dead);
        self.effects.bytes += pass.bytes;
    }

    /// Takes `items` through all stages, or fails as a whole.
    fn pass(&mut self, items: Vec<Item>) -> Result<Pass, Failed> {
        let mut pass = Pass {
            main: items,
            ..Pass::default()
        };
        let marks: Vec<_> = self.stages.iter().map(mark).collect();
        let (looked_at, changed_before) = (pass.main.len(), self.changed_bytes());
        let first = match self.begin {
            Begin::Records { .. } => 0,
            Begin::Timers { stage, .. } => stage,
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
                // Nothing of the pass counts, of the stages before it neither.
                for (stage, mark) in self.stages.iter_mut().zip(&marks) {
                    stage.take_back(*mark);
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

    /// Bytes of those of `main` that do not stay where they came: new ones, and further copies.
    fn new_bytes(&self, main: &[Item]) -> usize {
        let mut before = None;
        let is_new = |item: &&Item| {
            let is_copy = before.replace(item.source) == Some(item.source);
            is_copy || item.made.is_some()
        };
        main.iter()
            .filter(is_new)
            .map(|i| i.view(self.records).bytes())
            .sum()
    }

    /// Bytes of rows that have changed and are not told yet, at most.
    fn changed_bytes(&self) -> usize {
        let tables = self.stages.iter().filter_map(|stage| stage.table.as_ref());
        tables
            .map(|table| table.changed_bytes() + table.changed_rows() * ROW_AROUND_BYTES)
            .sum()
    }

    /// Whether what has come of `looked_at` items so far has room in an entry: what one record comes to always has, or it is
    /// the module's fault.
    fn check(&self, pass: &Pass, looked_at: usize, changed_before: usize) -> Result<(), CallError> {
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

    fn stage(&mut self, at: usize, items: &[Item], pass: &mut Pass) -> Result<(), CallError> {
        let (digest, label) = (self.digest(at), self.label(at));
        let Some(stage) = self.stages.get_mut(at) else {
            return Ok(());
        };
        let wanted = stage.instance()?.plan().wanted;
        let Stage { instance, table, .. } = stage;
        let Some(instance) = instance else { return Ok(()) };
        let (result, spent) = match self.begin {
            Begin::Timers { stage, fired } if stage == at => {
                let of = |i: &Item| fired.timers.get(i.source as usize).cloned();
                let timers: Vec<_> = items.iter().filter_map(of).collect();
                let clock = fired.clock;
                let fired = Fired {
                    clock,
                    timers: &timers,
                };
                timed(|| instance.on_timers(self.moment, fired, table))
            }
            Begin::Records { .. } | Begin::Timers { .. } => {
                let source = match self.begin {
                    Begin::Records { source } => source,
                    // What stems from a timer comes from no source.
                    Begin::Timers { .. } => 0,
                };
                let columns = columns(items, self.records, wanted);
                let of = |i: &Item| self.marks.get(i.source as usize).copied().unwrap_or(0);
                let marks: Vec<u8> = match self.marks.is_empty() {
                    true => Vec::new(),
                    false => items.iter().map(of).collect(),
                };
                timed(|| instance.process(source, self.moment, &columns, &marks, table))
            }
        };
        self.effects.spent += spent;
        let outcome = result?;
        let emitted: Vec<_> = outcome.emitted().collect();
        // What it may stand for beside what came: a copy costs the guest nothing, and everybody else a record.
        let mut left = match outcome.is_routes_only() || planted(Bug::NoEntryBound) {
            true => usize::MAX,
            false => {
                let came: usize = items.iter().map(|i| i.view(self.records).bytes()).sum();
                came + came.saturating_mul(FAN_OUT_MAX).max(stage.limits.output_bytes)
            }
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
            let bytes = match left == usize::MAX {
                true => 0,
                false => item.view(self.records).bytes(),
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
}

/// What `call` gives, and how long it took.
fn timed<T>(call: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let result = call();
    (result, begun.elapsed())
}

fn mark(stage: &Stage) -> Mark {
    stage.table.as_ref().map_or_else(Mark::default, Table::mark)
}
