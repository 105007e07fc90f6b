//! Runs a module on records without a node, for `weir module test` and for a module's own tests.

pub mod case;

use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_runtime::{
    CallError, CallLimits, Fired, Instance, InstanceConfig, Instruments, LogSink, Module, Moment, Outcome,
    Runtime, RuntimeOptions, Setting, Table, TimerClock,
};
use weir_types::{BatchBuilder, BatchError, Codec, Columns, Offset, Record, Wanted};

/// An error that ends a test.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// The component cannot be loaded.
    #[error(transparent)]
    Load(#[from] weir_runtime::LoadError),
    /// The module rejects its settings.
    #[error(transparent)]
    Init(#[from] weir_runtime::InitError),
    /// The input records do not form a batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A call of `process` failed.
    #[error("batch of records {from} to {to}: {error}")]
    Call {
        /// Index of the first record of the batch.
        from: usize,
        /// Index after the last record of the batch.
        to: usize,
        /// The failure.
        error: CallError,
    },
    /// A call of `on_timers` failed.
    #[error("timers due by {at}: {error}")]
    Timers {
        /// Time up to which timers fired, in milliseconds since 1970.
        at: i64,
        /// The failure.
        error: CallError,
    },
}

/// Maximum timers per call, as on a node.
const FIRED_MAX: usize = weir_types::limits::TIMERS_FIRED_MAX;

/// The result of a run.
#[derive(Debug, Default)]
pub struct Tested {
    /// Records by output, in order.
    pub outputs: BTreeMap<String, Vec<Record>>,
    /// Record index and reason of each dead letter.
    pub dead: Vec<(usize, String)>,
    /// Number of input records.
    pub records: usize,
    /// Time spent in the module, including the sandbox boundary.
    pub spent: Duration,
}

/// Compiles `component` (or a core module built with the SDK).
///
/// # Errors
/// If the bytes are not a valid module.
pub fn load(component: &[u8]) -> Result<Module, TestError> {
    let runtime = Runtime::new(RuntimeOptions::plain())?;
    let component = weir_runtime::componentize(component)?;
    Ok(runtime.load(&component)?)
}

/// Faults injected into a module under test. A correct module gives the same result with each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Faults {
    /// No faults.
    #[default]
    None,
    /// Kills the node between every two entries: each call runs on a fresh instance with the stored state.
    Kills,
    /// Traps each call at its end: the call is discarded and repeated on a fresh instance.
    Traps,
}

impl Faults {
    /// All kinds of faults.
    pub const ALL: [Self; 3] = [Self::None, Self::Kills, Self::Traps];
}

/// The state and the times of a module at some point. [`Testkit::restore`] returns to the snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    table: Option<Table>,
    moment: Moment,
}

impl Snapshot {
    /// Returns keys and values of the state, by key.
    pub fn rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = self.table.iter().flat_map(|table| table.scan(b"", None));
        rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    /// Returns the number of pending timers.
    pub fn timers(&self) -> usize {
        self.table.as_ref().map_or(0, Table::timers)
    }
}

/// A module under test.
pub struct Testkit {
    module: Module,
    config: InstanceConfig,
    sink: Arc<dyn LogSink>,
    instruments: Arc<Instruments>,
    faults: Faults,
    instance: Instance,
    /// State of the module, if the module requests state.
    table: Option<Table>,
    moment: Moment,
}

impl Testkit {
    /// Compiles `component` (or a core module built with the SDK) and instantiates it with these settings.
    ///
    /// # Errors
    /// If the bytes are not a valid module, or the module rejects its settings.
    pub fn new(
        component: &[u8],
        settings: BTreeMap<String, Setting>,
        sink: Arc<dyn LogSink>,
    ) -> Result<Self, TestError> {
        Self::of(&load(component)?, settings, sink)
    }

    /// Instantiates a loaded module with these settings.
    ///
    /// # Errors
    /// If the module rejects its settings.
    pub fn of(
        module: &Module,
        settings: BTreeMap<String, Setting>,
        sink: Arc<dyn LogSink>,
    ) -> Result<Self, TestError> {
        Self::reading(module, &["test".to_owned()], settings, sink)
    }

    /// Instantiates a loaded module with these settings, for records of the topics in `sources`.
    ///
    /// # Errors
    /// If the module rejects its settings.
    pub fn reading(
        module: &Module,
        sources: &[String],
        settings: BTreeMap<String, Setting>,
        sink: Arc<dyn LogSink>,
    ) -> Result<Self, TestError> {
        let config = InstanceConfig {
            partition: 0,
            sources: sources.to_vec(),
            settings,
        };
        let instruments = Arc::new(Instruments::default());
        let limits = CallLimits::default();
        let instance = module.instantiate(&config, limits, Arc::clone(&sink), Arc::clone(&instruments))?;
        Ok(Self {
            module: module.clone(),
            faults: Faults::None,
            table: (module.wants_state() || module.wants_timers()).then(|| Table::new(limits.state_bytes)),
            instance,
            config,
            sink,
            instruments,
            moment: Moment::default(),
        })
    }

    /// Injects `faults` from here on.
    pub fn suffer(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Simulates a kill and restart of the node: only stored state survives.
    ///
    /// # Errors
    /// If no fresh instance can be made.
    pub fn kill(&mut self) -> Result<(), TestError> {
        let (sink, instruments) = (Arc::clone(&self.sink), Arc::clone(&self.instruments));
        let limits = CallLimits::default();
        self.instance = self.module.instantiate(&self.config, limits, sink, instruments)?;
        Ok(())
    }

    /// Returns a snapshot of the module's state.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            table: self.table.clone(),
            moment: self.moment,
        }
    }

    /// Restores a snapshot, on a fresh instance.
    ///
    /// # Errors
    /// If no fresh instance can be made.
    pub fn restore(&mut self, to: &Snapshot) -> Result<(), TestError> {
        self.table = to.table.clone();
        self.moment = to.moment;
        self.kill()
    }

    /// Calls the module with the injected faults.
    fn call<R>(
        &mut self,
        call: impl Fn(&mut Instance, Moment, &mut Option<Table>) -> Result<R, CallError>,
    ) -> Result<Result<R, CallError>, TestError> {
        match self.faults {
            Faults::None => {}
            Faults::Kills => self.kill()?,
            Faults::Traps => {
                let before = self.table.clone();
                let _ = call(&mut self.instance, self.moment, &mut self.table);
                self.table = before;
                self.kill()?;
            }
        }
        Ok(call(&mut self.instance, self.moment, &mut self.table))
    }

    /// Returns the names of the module's outputs.
    pub fn outputs(&self) -> &[String] {
        &self.instance.plan().outputs
    }

    /// Processes `records` in batches of `batch`, at the time `now` (milliseconds since 1970). The watermark
    /// follows the records' timestamps. Timers fire as on a node: processing-time timers due by `now` before
    /// a batch, event-time timers after it.
    ///
    /// # Errors
    /// At the first call that fails.
    pub fn run(&mut self, records: &[Record], batch: usize, now: i64) -> Result<Tested, TestError> {
        let mut tested = Tested::default();
        self.advance(TimerClock::Processing, now, &mut tested)?;
        self.run_on(records, batch, &mut tested)?;
        Ok(tested)
    }

    /// Continues an earlier run with `records`, in batches of `batch`, at the current time. Results are added
    /// to `tested`.
    ///
    /// # Errors
    /// At the first call that fails.
    pub fn run_on(&mut self, records: &[Record], batch: usize, tested: &mut Tested) -> Result<(), TestError> {
        self.run_from(0, records, batch, tested)
    }

    /// Continues an earlier run with records of the source with index `source`. Results are added to
    /// `tested`.
    ///
    /// # Errors
    /// At the first call that fails.
    pub fn run_from(
        &mut self,
        source: u32,
        records: &[Record],
        batch: usize,
        tested: &mut Tested,
    ) -> Result<(), TestError> {
        for part in records.chunks(batch.max(1)) {
            let from = tested.records;
            tested.records += part.len();
            self.run_batch(source, part, from, tested)?;
            let latest = part.iter().map(|r| r.timestamp).max();
            let latest = latest.unwrap_or(i64::MIN);
            self.advance(TimerClock::Event, latest, tested)?;
        }
        Ok(())
    }

    /// Advances `clock` to `to` (for [`TimerClock::Event`], the watermark) unless the clock is already ahead,
    /// and fires the timers due by then.
    ///
    /// # Errors
    /// At the first call that fails.
    pub fn advance(&mut self, clock: TimerClock, to: i64, tested: &mut Tested) -> Result<(), TestError> {
        let time = match clock {
            TimerClock::Event => &mut self.moment.watermark,
            TimerClock::Processing => &mut self.moment.now,
        };
        *time = to.max(*time);
        let until = *time;
        loop {
            let Some(table) = &mut self.table else {
                return Ok(());
            };
            let due = std::iter::from_fn(|| table.pop_due(clock, until)).take(FIRED_MAX);
            let timers: Vec<_> = due.collect();
            if timers.is_empty() {
                return Ok(());
            }
            let fired = Fired {
                clock,
                timers: &timers,
            };
            let begun = Instant::now();
            let outcome = self.call(|instance, moment, table| instance.on_timers(moment, fired, table))?;
            tested.spent += begun.elapsed();
            let outcome = outcome.map_err(|error| TestError::Timers { at: until, error })?;
            let sources: Vec<Record> = timers
                .iter()
                .map(|timer| Record {
                    timestamp: timer.at,
                    key: Some(Bytes::copy_from_slice(&timer.key)),
                    ..Record::default()
                })
                .collect();
            self.keep(&sources, 0, &outcome, tested);
        }
    }

    fn run_batch(
        &mut self,
        source: u32,
        part: &[Record],
        from: usize,
        tested: &mut Tested,
    ) -> Result<(), TestError> {
        let columns = columns(part, self.instance.plan().wanted)?;
        let late = |r: &Record| u8::from(r.timestamp < self.moment.watermark);
        let marks: Vec<u8> = part.iter().map(late).collect();
        let marks = if marks.contains(&1) { &marks[..] } else { &[] };
        let begun = Instant::now();
        let marks = marks.to_vec();
        let outcome =
            self.call(|instance, moment, table| instance.process(source, moment, &columns, &marks, table))?;
        tested.spent += begun.elapsed();
        let outcome = outcome.map_err(|error| TestError::Call {
            from,
            to: from + part.len(),
            error,
        })?;
        self.keep(part, from, &outcome, tested);
        Ok(())
    }

    /// Adds the outcome of `part` to `tested`.
    fn keep(&self, part: &[Record], from: usize, outcome: &Outcome, tested: &mut Tested) {
        let emitted: Vec<_> = outcome.emitted().collect();
        for place in outcome.placements() {
            let Some(source) = part.get(place.source as usize) else {
                continue;
            };
            let mut record = source.clone();
            if let Some(new) = place.emitted.and_then(|n| emitted.get(n as usize)) {
                let own = |b: Option<&[u8]>| b.map(Bytes::copy_from_slice);
                record.key = new.key.map_or(record.key, own);
                record.value = new.value.map_or(record.value, own);
                record.timestamp = new.timestamp.unwrap_or(record.timestamp);
                if new.bare {
                    record.headers.clear();
                }
                let encoded = new.headers.encoded();
                for (name, value) in weir_types::HeaderBuf::view(&encoded).iter() {
                    record
                        .headers
                        .push((String::from_utf8_lossy(name).into_owned(), own(value)));
                }
            }
            let output = self.instance.plan().outputs.get(usize::from(place.output) - 1);
            tested
                .outputs
                .entry(output.cloned().unwrap_or_default())
                .or_default()
                .push(record);
        }
        for dead in outcome.rejections() {
            tested
                .dead
                .push((from + dead.index as usize, dead.reason.to_owned()));
        }
    }
}

/// Converts `records` to columns by way of a stored batch, as on a node.
fn columns(records: &[Record], wanted: Wanted) -> Result<Columns, BatchError> {
    let mut builder = BatchBuilder::new(Codec::None);
    records.iter().for_each(|r| builder.push_record(r));
    let batch = builder.build(Offset::ZERO, None)?;
    Columns::read(&batch.body()?, batch.count(), wanted)
}
