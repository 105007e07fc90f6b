//! A thread of a pipeline: its state, counters and circuit breaker.

use crate::partition::partition_set::PartitionSet;
use crate::partition::place::Ends;
use crate::partition::refusal::Refusal;
use crate::partition::states::PartitionStates;
use crate::spec::Spec;
use crate::spec::on_error::Policy;
use crate::spec::row::RowFingerprint;
use crate::spec::source::At;
use crate::stages::dated::Dated;
use crate::stages::effects::{Effects, ErrorHandling, StageInput, Stopped, TooMuch};
use crate::stages::run;
use crate::stages::stage::Stage;
use crate::worker::counts::{Counts, State};
use crate::worker::desired::{self, SharedDesiredState};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use weir_broker::{Broker, HookError, Output, StateKey};
use weir_runtime::Moment;
use weir_types::limits::{OP_HEAD_BYTES_MAX, REQUEST_BYTES_MAX};
use weir_types::planted::{Bug, planted};
use weir_types::sync::Mutex;
use weir_types::{Batch, RecordRef};

/// Consecutive batches without any successful record after which the pipeline halts.
const BREAKER: u32 = 10;

/// Interval at which a lack of memory is logged.
const FULL_TOLD_EVERY: Duration = Duration::from_secs(60);

/// State shared by the handle and the threads of a pipeline.
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) counts: Counts,
    /// Log pipelines: end offsets reported by other nodes.
    pub(crate) ends: Mutex<Ends>,
    pub(crate) queued_bytes: AtomicUsize,
    pub(crate) fingerprint: RowFingerprint,
    pub(crate) desired: SharedDesiredState,
}

/// A thread of a pipeline, or a side of a comparison.
pub(crate) struct Worker {
    pub(crate) spec: Arc<Spec>,
    /// Partitions of the worker.
    pub(crate) share: PartitionSet,
    /// Stages of a stateless pipeline, and the template for stages of partitions.
    pub(crate) stages: Vec<Stage>,
    pub(crate) parts: PartitionStates,
    pub(crate) broker: Broker,
    pub(crate) shared: Arc<Shared>,
    pub(crate) failed_in_a_row: u32,
    /// Batches since the last failure.
    pub(crate) good_in_a_row: u32,
    /// The thread has background priority since a failure.
    pub(crate) is_demoted: bool,
    /// Rows, timers and bytes that are included in the counters.
    pub(crate) reported: (usize, usize, usize),
    /// When a lack of memory was last logged.
    pub(crate) warned_full_at: Option<Instant>,
    /// The last batch lacked memory: instances are dropped.
    pub(crate) is_full: bool,
}

impl Worker {
    /// Creates a worker without a handle, for a comparison.
    pub(crate) fn detached(spec: Arc<Spec>, stages: Vec<Stage>, broker: Broker) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::Running),
            counts: Counts::default(),
            ends: Mutex::default(),
            queued_bytes: AtomicUsize::new(0),
            fingerprint: RowFingerprint::NONE,
            desired: SharedDesiredState::default(),
        });
        Self::new(spec, PartitionSet::All, stages, broker, shared)
    }

    pub(crate) fn new(
        spec: Arc<Spec>,
        share: PartitionSet,
        stages: Vec<Stage>,
        broker: Broker,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            spec,
            stages,
            parts: PartitionStates::of(share.clone()),
            share,
            broker,
            shared,
            failed_in_a_row: 0,
            good_in_a_row: 0,
            is_demoted: false,
            reported: (0, 0, 0),
            warned_full_at: None,
            is_full: false,
        }
    }

    /// Creates another worker of the same pipeline, with instances of its own.
    pub(crate) fn another(&self) -> Self {
        let stages = self.stages.iter().map(|s| s.of_partition(s.config.partition));
        let (spec, broker, shared) = (&self.spec, self.broker.clone(), Arc::clone(&self.shared));
        Self::new(
            Arc::clone(spec),
            self.share.clone(),
            stages.collect(),
            broker,
            shared,
        )
    }

    /// Logs a lack of memory, at most once a minute.
    fn warn_full(&mut self, why: &str) {
        self.is_full = true;
        let is_told = self
            .warned_full_at
            .is_some_and(|at| at.elapsed() < FULL_TOLD_EVERY);
        if !is_told {
            self.warned_full_at = Some(Instant::now());
            tracing::warn!(pipeline = %self.spec.name, why, "records wait: raise `modules_memory_bytes`, or remove a pipeline");
        }
    }

    pub(crate) fn halt(&self, why: String) -> HookError {
        match self.spec.at {
            At::Ingest => {
                tracing::error!(pipeline = %self.spec.name, %why, "pipeline halted: its source refuses records")
            }
            At::Log => {
                tracing::error!(pipeline = %self.spec.name, %why, "pipeline halted: its lag grows until it is resumed")
            }
        }
        let mut state = self.shared.state.lock();
        if *state == State::Running {
            *state = State::Halted(why.clone());
        }
        HookError::Halted {
            pipeline: self.spec.name.to_string(),
            why,
        }
    }

    /// Updates the counters of memory by the change since the last call.
    pub(crate) fn report_size(&mut self) {
        let (rows, timers, bytes) = self.parts.size();
        let counts = &self.shared.counts;
        let tell = |counter: &AtomicU64, before: usize, now: usize| {
            // Wraps for a decrease.
            counter.fetch_add((now as u64).wrapping_sub(before as u64), Ordering::Relaxed);
        };
        tell(&counts.state_rows, self.reported.0, rows);
        tell(&counts.timers, self.reported.1, timers);
        tell(&counts.state_bytes, self.reported.2, bytes);
        self.reported = (rows, timers, bytes);
    }

    /// Checks that the result of `of` records or timers fits into an entry.
    pub(crate) fn check_size(
        kept: Option<&Batch>,
        outputs: &[Output],
        rows: &[(StateKey, Option<Bytes>)],
        of: usize,
    ) -> Result<(), Refusal> {
        let batches = kept.into_iter().chain(outputs.iter().map(|o| &o.batch));
        let batches = batches.map(|b| OP_HEAD_BYTES_MAX + b.bytes().len());
        let rows = rows.iter().map(|(key, value)| {
            OP_HEAD_BYTES_MAX + key.as_bytes().len() + value.as_ref().map_or(0, Bytes::len)
        });
        let (bytes, limit) = (batches.sum::<usize>() + rows.sum::<usize>(), REQUEST_BYTES_MAX);
        if bytes > limit && !planted(Bug::NoEntryBound) {
            Err(Refusal::TooMuch(TooMuch { bytes, limit, of }))
        } else {
            Ok(())
        }
    }

    /// Runs the input through `stages`, and watches for failures.
    pub(crate) fn run_through(
        &mut self,
        stages: &mut [Stage],
        input: StageInput<'_>,
        records: &[RecordRef<'_>],
        dated: &Dated,
        moment: Moment,
    ) -> Result<Effects, Refusal> {
        let rules = ErrorHandling {
            policy: self.spec.policy(),
            attempts: self.spec.on_error.attempts,
        };
        let effects = match run::run(stages, rules, input, records, dated, moment) {
            Ok(effects) => effects,
            Err(Stopped::Halt(why)) => {
                (self.good_in_a_row, self.is_demoted) = (0, true);
                return Err(Refusal::Halt(why));
            }
            Err(Stopped::TooMuch(much)) => return Err(Refusal::TooMuch(much)),
            Err(Stopped::Full(why)) => {
                self.warn_full(&why);
                return Err(Refusal::Busy);
            }
        };
        let counts = &self.shared.counts;
        for (count, many) in [
            (&counts.bad_times, dated.bad),
            (&counts.late, dated.late),
            (&counts.redated, dated.redated),
        ] {
            count.fetch_add(many, Ordering::Relaxed);
        }
        self.is_demoted |= effects.failures > 0;
        self.good_in_a_row = if effects.failures > 0 {
            0
        } else {
            self.good_in_a_row.saturating_add(1)
        };
        Ok(effects)
    }

    /// Halts a pipeline that has not had a successful record for [`BREAKER`] batches.
    pub(crate) fn check_breaker(&mut self, records: usize, effects: &Effects) -> Result<(), Refusal> {
        let through = effects.main.len() + effects.outputs.values().map(Vec::len).sum::<usize>();
        let lost = effects.failures > 0 && through == 0 && records > 0;
        self.failed_in_a_row = if lost { self.failed_in_a_row + 1 } else { 0 };
        if self.failed_in_a_row < BREAKER || self.spec.policy() == Policy::Skip {
            return Ok(());
        }
        self.failed_in_a_row = 0;
        let last = effects.dead.last().map_or("", |d| d.error.as_str());
        Err(Refusal::Halt(format!(
            "{BREAKER} batches in a row failed, the last with: {last}"
        )))
    }

    /// Moves the main stream to the output `main`, for log pipelines.
    pub(crate) fn divert_main(&self, effects: &mut Effects) {
        let main = std::mem::take(&mut effects.main);
        if !main.is_empty() && self.spec.outputs.contains_key("main") {
            effects.outputs.insert("main".to_owned(), main);
        }
    }

    /// Counts the results of fired timers.
    pub(crate) fn count_fired(&self, timers: usize, effects: &Effects) {
        let fired = &self.shared.counts.timers_fired;
        fired.fetch_add(timers as u64, Ordering::Relaxed);
        self.count(0, effects);
    }

    /// Counts the results of a batch of `records`.
    pub(crate) fn count(&self, records: usize, effects: &Effects) {
        let counts = &self.shared.counts;
        let add = |counter: &AtomicU64, n: usize| counter.fetch_add(n as u64, Ordering::Relaxed);
        let kept = effects.main.iter().filter(|i| i.made.is_none()).count();
        let routed: usize = effects.outputs.values().map(Vec::len).sum();
        let used = effects.main.len() + routed + effects.dead.len() + effects.skipped as usize;
        add(&counts.records_in, records);
        add(&counts.kept, kept);
        add(&counts.emitted, effects.main.len() - kept);
        add(&counts.dropped, records.saturating_sub(used));
        add(&counts.dead_letters, effects.dead.len());
        add(&counts.skipped, effects.skipped as usize);
        add(&counts.failures, effects.failures as usize);
        add(&counts.wasm_ns, effects.spent.as_nanos() as usize);
        let mut by_output = counts.routed.lock();
        for (output, items) in &effects.outputs {
            *by_output.entry(output.clone()).or_default() += items.len() as u64;
        }
    }

    /// Returns true if the worker may act without a batch: it runs and is not outdated.
    pub(crate) fn may_work(&self) -> bool {
        let Shared {
            fingerprint, desired, ..
        } = &*self.shared;
        self.state() == State::Running && desired::is_desired(desired, self.spec.name.as_str(), *fingerprint)
    }

    pub(crate) fn state(&self) -> State {
        let state = self.shared.state.lock();
        state.clone()
    }
}

/// Returns a builder for a named thread whose stack fits a guest and the host around it.
pub(crate) fn thread(pipeline: &str) -> std::thread::Builder {
    std::thread::Builder::new()
        .name(format!("pipe-{pipeline}"))
        .stack_size(4 << 20)
}
