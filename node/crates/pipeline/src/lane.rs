//! A pipeline at work: a thread of its own, with a bounded queue in front.

use crate::behind::{Reader, Stop};
use crate::firing::For;
use crate::follow::{self, Wanted};
use crate::partition::parts::Parts;
use crate::partition::place::Ends;
use crate::partition::refusal::Refusal;
use crate::partition::share::Share;
use crate::priority::{self, Priority};
use crate::spec::Spec;
use crate::spec::on_error::Policy;
use crate::spec::row::Stamp;
use crate::spec::source::At;
use crate::stages::dated::Dated;
use crate::stages::dead_letter::Stem;
use crate::stages::effects::{Begin, Effects, Rules, Stopped, TooMuch};
use crate::stages::output::{self, Assembly};
use crate::stages::run;
use crate::stages::stage::Stage;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use weir_broker::{
    Broker, Footing, HookDone, HookError, HookJob, Output, Processed, StateKey, Stop as StopAt,
};
use weir_runtime::Moment;
use weir_types::limits::{OP_HEAD_BYTES_MAX, PIPELINE_QUEUE_MAX, PIPELINE_THREADS_MAX, REQUEST_BYTES_MAX};
use weir_types::planted::{Bug, planted};
use weir_types::{Batch, GroupId, Offset, PartitionId, RecordRef, TopicName};

/// Bytes that may wait for one pipeline: a quarter of what the node takes in at once, so that one that is stuck does
/// not starve the others.
const QUEUE_BYTES_MAX: usize = weir_types::limits::PRODUCE_INFLIGHT_BYTES_MAX / 4;

/// Batches without a failure after which a module that misbehaved is trusted again.
const GOOD_BATCHES: u32 = 20;

/// Batches in a row of which not one record got through, after which the breaker opens.
const BREAKER: u32 = 10;

/// Whether a pipeline works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "why")]
pub enum State {
    /// It works.
    Running,
    /// Somebody paused it. In-line, its source refuses records until it is resumed.
    Paused,
    /// It stopped. In-line, its source refuses records until it is resumed.
    Halted(String),
}

/// Counts since the lane began.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "named for what they count")]
pub struct Counts {
    pub records_in: AtomicU64,
    pub kept: AtomicU64,
    pub dropped: AtomicU64,
    pub emitted: AtomicU64,
    pub dead_letters: AtomicU64,
    pub skipped: AtomicU64,
    /// Records whose field of the event time says none.
    pub bad_times: AtomicU64,
    /// Records that the watermark had passed.
    pub late: AtomicU64,
    /// Records that were too far ahead of the node's time.
    pub redated: AtomicU64,
    pub failures: AtomicU64,
    pub wasm_ns: AtomicU64,
    /// Rows of state in memory.
    pub state_rows: AtomicU64,
    /// Timers that are set, of those partitions.
    pub timers: AtomicU64,
    /// What both take.
    pub state_bytes: AtomicU64,
    /// Timers that were due.
    pub timers_fired: AtomicU64,
    /// Offsets that were gone before they were read.
    pub missed: AtomicU64,
    /// Records by output.
    pub routed: Mutex<BTreeMap<String, u64>>,
}

/// The handle of a pipeline's thread.
pub(crate) struct Lane {
    pub(crate) name: String,
    pub(crate) stamp: Stamp,
    front: Front,
    shared: Arc<Shared>,
    share: Share,
    /// What is tried on the partitions that it has not.
    pub(crate) canary: Option<Arc<Self>>,
    /// Its other end is dropped when all lanes before it have finished.
    pub(crate) started: Mutex<Option<Receiver<()>>>,
    /// Gone when its threads have finished all they had.
    pub(crate) finished: Mutex<Option<Receiver<()>>>,
    /// Resolves when the lane before it has finished all it had.
    pub(crate) begun: Mutex<Option<oneshot::Receiver<()>>>,
}

/// Where a lane gets its work.
enum Front {
    /// From who produces.
    Ingest(SyncSender<(HookJob, HookDone)>),
    /// From the log, until it is told to stop.
    Log(Arc<Stop>),
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Self::Log(stop) = self {
            stop.set();
        }
    }
}

pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) counts: Counts,
    /// Behind the log: ends of what it reads from other nodes.
    pub(crate) ends: Mutex<Ends>,
    queued_bytes: AtomicUsize,
    stamp: Stamp,
    wanted: Wanted,
}

pub(crate) struct Worker {
    pub(crate) spec: Arc<Spec>,
    /// What it may look at.
    pub(crate) share: Share,
    /// At work where nothing is remembered, and the pattern of those that do.
    pub(crate) stages: Vec<Stage>,
    pub(crate) parts: Parts,
    pub(crate) broker: Broker,
    pub(crate) shared: Arc<Shared>,
    failed_in_a_row: u32,
    /// Batches without a failure since the last one.
    good_in_a_row: u32,
    /// Its thread is, since a failure.
    behind: bool,
    /// Rows, timers and bytes in memory that are counted.
    told: (usize, usize, usize),
    /// When it was told last that there is no memory for its modules.
    told_full: Option<Instant>,
    /// There was none the last time: what this lane can spare of it goes.
    is_full: bool,
}

impl Lane {
    /// Tells its threads behind the log to end with what they are at.
    pub(crate) fn end(&self) {
        if let Front::Log(stop) = &self.front {
            stop.set();
        }
        if let Some(canary) = &self.canary {
            canary.end();
        }
    }

    /// What tells when all of its threads behind the log have ended.
    pub(crate) fn ended(&self) -> Vec<Receiver<()>> {
        let own = self
            .finished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let own = own.filter(|_| matches!(self.front, Front::Log(_)));
        let tried = self.canary.iter().flat_map(|canary| canary.ended());
        own.into_iter().chain(tried).collect()
    }

    /// Starts a thread for `spec` on its `share` of the partitions; `canary` has the others. It begins once all `before`, which it
    /// replaces, have finished.
    pub(crate) fn start(
        spec: Arc<Spec>,
        stamp: Stamp,
        share: Share,
        stages: Vec<Stage>,
        (broker, wanted): (Broker, Wanted),
        state: State,
        before: Vec<Receiver<()>>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            counts: Counts::default(),
            ends: Mutex::default(),
            queued_bytes: AtomicUsize::new(0),
            stamp,
            wanted,
        });
        let (finish, finished) = sync_channel::<()>(1);
        let (begin, begun) = oneshot::channel();
        let (start, started) = sync_channel::<()>(1);
        let name = spec.name.to_string();
        priority::prepare()?;
        let begin = move || {
            Priority::Prompt.ask();
            // Ends with an error when the other lane drops its end: that is the signal.
            for finished in before {
                let _ = finished.recv();
            }
            let _ = begin.send(());
            drop(start);
        };
        let worker = Worker::new(
            Arc::clone(&spec),
            share.clone(),
            stages,
            broker,
            Arc::clone(&shared),
        );
        let front = match spec.at {
            At::Ingest => {
                let (jobs, queue) = sync_channel::<(HookJob, HookDone)>(PIPELINE_QUEUE_MAX);
                thread(&name).spawn(move || {
                    begin();
                    worker.run(queue, finish);
                })?;
                Front::Ingest(jobs)
            }
            At::Log => {
                let stop = Arc::new(Stop::default());
                let ended = Arc::clone(&stop);
                thread(&name).spawn(move || {
                    begin();
                    read(worker, &ended, &finish);
                })?;
                Front::Log(stop)
            }
        };
        Ok(Self {
            name,
            stamp,
            front,
            shared,
            share,
            canary: None,
            started: Mutex::new(Some(started)),
            finished: Mutex::new(Some(finished)),
            begun: Mutex::new(Some(begun)),
        })
    }

    pub(crate) fn submit(&self, job: HookJob, done: HookDone) {
        let tried = self
            .canary
            .as_ref()
            .filter(|canary| canary.share.has(job.partition));
        if let Some(canary) = tried {
            return canary.submit(job, done);
        }
        let bytes = job.batch.bytes().len();
        let refused = match &*self.lock() {
            State::Running => None,
            State::Paused => Some("it is paused; `weir pipeline resume` lets it go on".to_owned()),
            State::Halted(why) => Some(why.clone()),
        };
        if let Some(why) = refused {
            return done(
                job,
                Err(HookError::Halted {
                    pipeline: self.name.clone(),
                    why,
                }),
            );
        }
        if self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > QUEUE_BYTES_MAX {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return done(
                job,
                Err(HookError::Busy {
                    pipeline: self.name.clone(),
                }),
            );
        }
        let sent = match &self.front {
            Front::Ingest(jobs) => jobs.try_send((job, done)),
            // Nobody is sent to one.
            Front::Log(_) => Err(TrySendError::Disconnected((job, done))),
        };
        if let Err(TrySendError::Full((job, done)) | TrySendError::Disconnected((job, done))) = sent {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            done(
                job,
                Err(HookError::Busy {
                    pipeline: self.name.clone(),
                }),
            );
        }
    }

    pub(crate) fn state(&self) -> State {
        self.lock().clone()
    }

    /// Ends of what it reads from other nodes, as last heard.
    pub(crate) fn ends(&self) -> Ends {
        let ends = self.shared.ends.lock();
        ends.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it works on a partition.
    pub(crate) fn has(&self, partition: u32) -> bool {
        self.share.has(partition)
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often it is told that records wait for memory: a minute, as other troubles that last.
const FULL_TOLD_EVERY: Duration = Duration::from_secs(60);

/// A lane's thread: named, and with a stack for a guest and the host around it.
fn thread(pipeline: &str) -> std::thread::Builder {
    std::thread::Builder::new()
        .name(format!("pipe-{pipeline}"))
        .stack_size(4 << 20)
}

/// Reads behind the log on as many threads as it may, this one among them.
fn read(worker: Worker, stop: &Arc<Stop>, finish: &SyncSender<()>) {
    let spec = Arc::clone(&worker.spec);
    let partitions = |topic: &TopicName| worker.broker.topic(topic.as_str());
    let partitions = spec.source.iter().filter_map(partitions);
    let partitions = partitions.map(|t| t.partitions.len()).max().unwrap_or(1);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = spec
        .threads
        .unwrap_or(cores)
        .min(partitions)
        .clamp(1, PIPELINE_THREADS_MAX) as u32;
    for mine in 1..threads {
        let reader = Reader::new(worker.another(), Arc::clone(stop), (mine, threads));
        let finish = finish.clone();
        let started = thread(&spec.name.to_string()).spawn(move || {
            reader.run();
            drop(finish);
        });
        if let Err(error) = started {
            worker.halt(format!("its threads cannot be started: {error}"));
        }
    }
    Reader::new(worker, Arc::clone(stop), (0, threads)).run();
}

impl Worker {
    /// One that belongs to no lane.
    pub(crate) fn apart(spec: Arc<Spec>, stages: Vec<Stage>, broker: Broker) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::Running),
            counts: Counts::default(),
            ends: Mutex::default(),
            queued_bytes: AtomicUsize::new(0),
            stamp: Stamp::NONE,
            wanted: Wanted::default(),
        });
        Self::new(spec, Share::All, stages, broker, shared)
    }

    fn new(spec: Arc<Spec>, share: Share, stages: Vec<Stage>, broker: Broker, shared: Arc<Shared>) -> Self {
        Self {
            spec,
            stages,
            parts: Parts::of(share.clone()),
            share,
            broker,
            shared,
            failed_in_a_row: 0,
            good_in_a_row: 0,
            behind: false,
            told: (0, 0, 0),
            told_full: None,
            is_full: false,
        }
    }

    /// Another of the same pipeline, with instances of its own.
    fn another(&self) -> Self {
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

    /// Once a minute: it is tried again and again.
    fn warn_full(&mut self, why: &str) {
        self.is_full = true;
        let is_told = self.told_full.is_some_and(|at| at.elapsed() < FULL_TOLD_EVERY);
        if !is_told {
            self.told_full = Some(Instant::now());
            tracing::warn!(pipeline = %self.spec.name, why, "records wait: raise `modules_memory_bytes`, or remove a pipeline");
        }
    }

    /// Serves until the lane is dropped.
    fn run(mut self, queue: Receiver<(HookJob, HookDone)>, finish: SyncSender<()>) {
        loop {
            let next = match self.patience() {
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(patience) => queue.recv_timeout(patience),
            };
            match next {
                Ok((job, done)) => self.serve(job, done),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.fire_all();
            if !self.behind || self.good_in_a_row < GOOD_BATCHES {
                continue;
            }
            // Good for long enough. Without privileges only a fresh thread is prompt again.
            self.behind = !Priority::Prompt.ask();
            if self.behind {
                let (hand, over) = sync_channel::<(Self, _, _)>(1);
                let go_on = move || {
                    Priority::Prompt.ask();
                    over.into_iter()
                        .for_each(|(worker, queue, finish)| worker.run(queue, finish));
                };
                if priority::start_prompt(thread(&self.spec.name.to_string()), Box::new(go_on)) {
                    self.behind = false;
                    let _ = hand.send((self, queue, finish));
                    return;
                }
            }
        }
        // The lane that comes next begins on what this one has written.
        self.parts.end_all();
    }

    fn serve(&mut self, job: HookJob, done: HookDone) {
        let bytes = job.batch.bytes().len();
        StopAt::Read.here();
        let result = match self.process(&job) {
            Ok(processed) => {
                StopAt::Computed.here();
                Ok(processed)
            }
            Err(Refusal::Halt(why)) => Err(self.halt(why)),
            Err(Refusal::NotLeader) => Err(HookError::NotLeader),
            Err(Refusal::Busy) => Err(HookError::Busy {
                pipeline: self.spec.name.to_string(),
            }),
            Err(Refusal::TooMuch(TooMuch { bytes, limit, .. })) => Err(HookError::TooMuch {
                pipeline: self.spec.name.to_string(),
                bytes,
                limit,
            }),
        };
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        done(job, result);
    }

    pub(crate) fn halt(&self, why: String) -> HookError {
        match self.spec.at {
            At::Ingest => {
                tracing::error!(pipeline = %self.spec.name, %why, "pipeline halted: its source refuses records")
            }
            At::Log => {
                tracing::error!(pipeline = %self.spec.name, %why, "pipeline halted: it lags from here on")
            }
        }
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == State::Running {
            *state = State::Halted(why.clone());
        }
        HookError::Halted {
            pipeline: self.spec.name.to_string(),
            why,
        }
    }

    fn process(&mut self, job: &HookJob) -> Result<Processed, Refusal> {
        let batch = job.batch.clone().at(Offset::ZERO);
        let body = batch.body()?;
        let records = body.records().collect::<Result<Vec<_>, _>>()?;
        if !self.spec.is_stateful() {
            let mut stages = std::mem::take(&mut self.stages);
            let moment = Moment {
                now: self.broker.now_ms(),
                ..Moment::default()
            };
            let processed = self.pass(&mut stages, job, &batch, &records, &Dated::default(), moment);
            self.stages = stages;
            let processed = processed?;
            Self::check_size(Some(&processed.kept), &processed.outputs, &[], records.len())?;
            return Ok(processed);
        }
        let Some(id) = job.topic.partition(job.partition) else {
            return Err(Refusal::NotLeader);
        };
        if self.spec.has_timers() {
            self.fire(&job.topic, job.partition, For::Batch)?;
        }
        let mut parts = std::mem::take(&mut self.parts);
        let processed = self.step(&mut parts, job, &batch, records, id);
        self.parts = parts;
        if std::mem::take(&mut self.is_full) {
            self.parts.let_instances_go();
            self.stages.iter_mut().for_each(|stage| stage.instance = None);
        }
        self.tell_size();
        processed
    }

    /// Counts what is in memory by now; other threads of the pipeline count theirs.
    pub(crate) fn tell_size(&mut self) {
        let (rows, timers, bytes) = self.parts.size();
        let counts = &self.shared.counts;
        let tell = |counter: &AtomicU64, before: usize, now: usize| {
            // Wraps where it is less than before.
            counter.fetch_add((now as u64).wrapping_sub(before as u64), Ordering::Relaxed);
        };
        tell(&counts.state_rows, self.told.0, rows);
        tell(&counts.timers, self.told.1, timers);
        tell(&counts.state_bytes, self.told.2, bytes);
        self.told = (rows, timers, bytes);
    }

    /// One step on top of those before it.
    fn step(
        &mut self,
        parts: &mut Parts,
        job: &HookJob,
        batch: &Batch,
        mut records: Vec<RecordRef<'_>>,
        id: PartitionId,
    ) -> Result<Processed, Refusal> {
        let spec = Arc::clone(&self.spec);
        let part = parts.part(&spec, &self.stages, &self.broker, job.partition, id)?;
        let part = part.ok_or(Refusal::NotLeader)?;
        if !part.chain.is_next(batch) {
            return Ok(Processed {
                footing: Footing::Unseen,
                ..Processed::unchanged(job.batch.clone())
            });
        }
        // Dropped on the way out when it comes to nothing: then the chain begins anew.
        let step = part.chain.step();
        let events = spec.event_time.clone().unwrap_or_default();
        part.time.pass(self.broker.now_ms(), &events);
        let dated = match spec.is_timed() {
            true => part.time.date(&mut records, &events),
            false => Dated::default(),
        };
        let moment = part.time.moment();
        let processed = self.pass(&mut part.stages, job, batch, &records, &dated, moment)?;
        part.time.follow(&records, &dated, &events);
        let rows = part.changes(&spec, job.partition);
        Self::check_size(Some(&processed.kept), &processed.outputs, &rows, records.len())?;
        Ok(Processed {
            rows,
            footing: Footing::Step(step),
            ..processed
        })
    }

    /// Takes the records of a batch through `stages`.
    fn pass(
        &mut self,
        stages: &mut [Stage],
        job: &HookJob,
        batch: &Batch,
        records: &[RecordRef<'_>],
        dated: &Dated,
        moment: Moment,
    ) -> Result<Processed, Refusal> {
        let effects = self.run_through(stages, Begin::Records { source: 0 }, records, dated, moment)?;
        self.check_breaker(records.len(), &effects)?;
        self.count(records.len(), &effects);
        let (kept, follow) = output::kept(batch, &effects.main, records)?;
        let assembly = Assembly {
            spec: &self.spec,
            broker: &self.broker,
            topic: &job.topic,
            home: job
                .topic
                .partition(job.partition)
                .map_or(GroupId::SITE, PartitionId::group),
            name: job.topic.name.as_str(),
            partition: job.partition,
            records,
            own_times: &dated.own,
            stem: Stem::Batch,
        };
        Ok(Processed {
            outputs: assembly.outputs(follow, &effects)?,
            ..Processed::unchanged(kept)
        })
    }

    /// Refuses what is more than one entry may have, of `of` records or timers.
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
        match bytes > limit && !planted(Bug::NoEntryBound) {
            true => Err(Refusal::TooMuch(TooMuch { bytes, limit, of })),
            false => Ok(()),
        }
    }

    /// Takes what there is through `stages`, and keeps an eye on how they fail.
    pub(crate) fn run_through(
        &mut self,
        stages: &mut [Stage],
        begin: Begin<'_>,
        records: &[RecordRef<'_>],
        dated: &Dated,
        moment: Moment,
    ) -> Result<Effects, Refusal> {
        let rules = Rules {
            policy: self.spec.policy(),
            attempts: self.spec.on_error.attempts,
        };
        let effects = match run::run(stages, rules, begin, records, dated, moment) {
            Ok(effects) => effects,
            Err(Stopped::Halt(why)) => {
                (self.good_in_a_row, self.behind) = (0, true);
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
        self.behind |= effects.failures > 0;
        self.good_in_a_row = if effects.failures > 0 {
            0
        } else {
            self.good_in_a_row.saturating_add(1)
        };
        Ok(effects)
    }

    /// Stops a pipeline that gets nothing through any more.
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
            "{BREAKER} batches in a row failed, the last so: {last}"
        )))
    }

    /// Behind the log, the stream is an output like any other.
    pub(crate) fn divert_main(&self, effects: &mut Effects) {
        let main = std::mem::take(&mut effects.main);
        if !main.is_empty() && self.spec.outputs.contains_key("main") {
            effects.outputs.insert("main".to_owned(), main);
        }
    }

    /// Counts what became of so many timers.
    pub(crate) fn count_fired(&self, timers: usize, effects: &Effects) {
        let fired = &self.shared.counts.timers_fired;
        fired.fetch_add(timers as u64, Ordering::Relaxed);
        self.count(0, effects);
    }

    /// Counts what became of a batch of `records`, or of no batch.
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
        let mut by_output = counts.routed.lock().unwrap_or_else(PoisonError::into_inner);
        for (output, items) in &effects.outputs {
            *by_output.entry(output.clone()).or_default() += items.len() as u64;
        }
    }

    /// Whether it may do something by itself: it works, and is what should.
    pub(crate) fn may_work(&self) -> bool {
        let Shared { stamp, wanted, .. } = &*self.shared;
        self.state() == State::Running && follow::is_wanted(wanted, self.spec.name.as_str(), *stamp)
    }

    pub(crate) fn state(&self) -> State {
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
