//! Runs a module against records without a node: what `weir module test` does, and what a module's own tests can do.

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

/// Why a test did not run.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum TestError {
    #[error(transparent)]
    Load(#[from] weir_runtime::LoadError),
    #[error(transparent)]
    Init(#[from] weir_runtime::InitError),
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("batch of records {from} to {to}: {error}")]
    Call {
        from: usize,
        to: usize,
        error: CallError,
    },
    #[error("timers due by {at}: {error}")]
    Timers { at: i64, error: CallError },
}

/// Timers that one call is told of: as many as on a node.
const FIRED_MAX: usize = weir_types::limits::TIMERS_FIRED_MAX;

/// What became of the records.
#[derive(Debug, Default)]
pub struct Tested {
    /// Records by output, in order.
    pub outputs: BTreeMap<String, Vec<Record>>,
    /// Index and reason of each dead letter.
    pub dead: Vec<(usize, String)>,
    /// Records that went in.
    pub records: usize,
    /// Time inside the module, the wall included.
    pub spent: Duration,
}

/// Compiles `component` (or a core module built with the SDK) here.
///
/// # Errors
/// When it is not taken.
pub fn load(component: &[u8]) -> Result<Module, TestError> {
    let runtime = Runtime::new(RuntimeOptions::plain())?;
    let component = weir_runtime::componentize(component)?;
    Ok(runtime.load(&component)?)
}

/// What happens to a module under test that it must not notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Faults {
    /// Nothing.
    #[default]
    None,
    /// The node is killed between every two entries: each call is of a fresh instance, on what is stored.
    Kills,
    /// Each call traps when it is through: nothing of it counts, and it is made again on a fresh instance.
    Traps,
}

impl Faults {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::None, Self::Kills, Self::Traps];
}

/// What a module remembers at a moment, and the time that it is for it: [`Testkit::restore`] goes back there.
#[derive(Clone, Debug)]
pub struct Snapshot {
    table: Option<Table>,
    moment: Moment,
}

impl Snapshot {
    /// Keys and values of its state, in order.
    pub fn rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = self.table.iter().flat_map(|table| table.scan(b"", None));
        rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    /// Timers that are set.
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
    /// What it remembers, if it asks to.
    table: Option<Table>,
    moment: Moment,
}

impl Testkit {
    /// Compiles `component` (or a core module built with the SDK) here and instantiates it with these settings.
    ///
    /// # Errors
    /// When it is not taken, or refuses its settings.
    pub fn new(
        component: &[u8],
        settings: BTreeMap<String, Setting>,
        sink: Arc<dyn LogSink>,
    ) -> Result<Self, TestError> {
        Self::of(&load(component)?, settings, sink)
    }

    /// As [`Testkit::new`], for a module that is loaded.
    ///
    /// # Errors
    /// When it refuses its settings.
    pub fn of(
        module: &Module,
        settings: BTreeMap<String, Setting>,
        sink: Arc<dyn LogSink>,
    ) -> Result<Self, TestError> {
        Self::reading(module, &["test".to_owned()], settings, sink)
    }

    /// As [`Testkit::of`], for records of these topics.
    ///
    /// # Errors
    /// When it refuses its settings.
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

    /// What is to happen to it from here on.
    pub fn suffer(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// As if the node had been killed and started again: what is stored is all there is.
    ///
    /// # Errors
    /// When there is no fresh instance.
    pub fn kill(&mut self) -> Result<(), TestError> {
        let (sink, instruments) = (Arc::clone(&self.sink), Arc::clone(&self.instruments));
        let limits = CallLimits::default();
        self.instance = self.module.instantiate(&self.config, limits, sink, instruments)?;
        Ok(())
    }

    /// What it remembers.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            table: self.table.clone(),
            moment: self.moment,
        }
    }

    /// Goes back to where it was.
    ///
    /// # Errors
    /// As [`Testkit::kill`].
    pub fn restore(&mut self, to: &Snapshot) -> Result<(), TestError> {
        self.table = to.table.clone();
        self.moment = to.moment;
        self.kill()
    }

    /// A call of the module, with what is to happen to it.
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

    /// Names of the module's outputs.
    pub fn outputs(&self) -> &[String] {
        &self.instance.plan().outputs
    }

    /// Processes `records` in batches of `batch`, at the time `now`. The watermark follows their timestamps, and timers fire
    /// as on a node: those that are due by `now` before a batch, those of the records' time after it.
    ///
    /// # Errors
    /// At the first batch without an outcome.
    pub fn run(&mut self, records: &[Record], batch: usize, now: i64) -> Result<Tested, TestError> {
        let mut tested = Tested::default();
        self.advance(TimerClock::Processing, now, &mut tested)?;
        self.run_on(records, batch, &mut tested)?;
        Ok(tested)
    }

    /// As [`Testkit::run`], at the time that it is, for what goes on from an earlier run.
    ///
    /// # Errors
    /// As there.
    pub fn run_on(&mut self, records: &[Record], batch: usize, tested: &mut Tested) -> Result<(), TestError> {
        self.run_from(0, records, batch, tested)
    }

    /// As [`Testkit::run_on`], for records of the topic at that place among the sources.
    ///
    /// # Errors
    /// As there.
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

    /// Lets the time of `clock` become `to` (of [`TimerClock::Event`], the watermark), unless it is ahead, and fires what is
    /// then due.
    ///
    /// # Errors
    /// At the first call without an outcome.
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

    /// Writes down what became of `part`.
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

/// `records` as columns, by way of a batch as a node would have it.
fn columns(records: &[Record], wanted: Wanted) -> Result<Columns, BatchError> {
    let mut builder = BatchBuilder::new(Codec::None);
    records.iter().for_each(|r| builder.push_record(r));
    let batch = builder.build(Offset::ZERO, None)?;
    Columns::read(&batch.body()?, batch.count(), wanted)
}
