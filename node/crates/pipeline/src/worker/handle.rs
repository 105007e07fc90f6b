//! Handle of a pipeline that runs: a thread with a bounded queue in-line, or threads that read the log.

use crate::partition::partition_set::PartitionSet;
use crate::partition::place::Ends;
use crate::priority::{self, Priority};
use crate::spec::Spec;
use crate::spec::row::RowFingerprint;
use crate::spec::source::At;
use crate::stages::stage::Stage;
use crate::worker::counts::{Counts, State};
use crate::worker::desired::SharedDesiredState;
use crate::worker::reader::{Reader, StopSignal};
use crate::worker::thread::{Shared, Worker, thread};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use tokio::sync::oneshot;
use weir_broker::{Broker, HookDone, HookError, HookJob};
use weir_types::TopicName;
use weir_types::limits::{PIPELINE_QUEUE_MAX, PIPELINE_THREADS_MAX};
use weir_types::sync::Mutex;

/// Bytes that may be queued for a pipeline: a quarter of the node's limit, so that a slow pipeline does not
/// starve the others.
const QUEUE_BYTES_MAX: usize = weir_types::limits::PRODUCE_INFLIGHT_BYTES_MAX / 4;

/// Handle of a running pipeline. Dropping the handle ends its threads.
pub(crate) struct PipelineHandle {
    pub(crate) name: String,
    pub(crate) fingerprint: RowFingerprint,
    feed: Feed,
    shared: Arc<Shared>,
    share: PartitionSet,
    /// Handle of the canary, on all other partitions.
    pub(crate) canary: Option<Arc<Self>>,
    /// Disconnects when all replaced pipelines have finished.
    pub(crate) started: Mutex<Option<Receiver<()>>>,
    /// Disconnects when the threads have finished all queued work.
    pub(crate) finished: Mutex<Option<Receiver<()>>>,
    /// Resolves when all replaced pipelines have finished.
    pub(crate) begun: Mutex<Option<oneshot::Receiver<()>>>,
}

/// Source of a pipeline's work.
enum Feed {
    /// Batches from producers.
    Ingest(SyncSender<(HookJob, HookDone)>),
    /// The log, until the signal is set.
    Log(Arc<StopSignal>),
}

impl Drop for Feed {
    fn drop(&mut self) {
        if let Self::Log(stop) = self {
            stop.set();
        }
    }
}

impl PipelineHandle {
    /// Asks the threads of a log pipeline to end after their current cycle.
    pub(crate) fn end(&self) {
        if let Feed::Log(stop) = &self.feed {
            stop.set();
        }
        if let Some(canary) = &self.canary {
            canary.end();
        }
    }

    /// Returns channels that disconnect when all threads of a log pipeline have ended.
    pub(crate) fn ended(&self) -> Vec<Receiver<()>> {
        let own = self.finished.lock().take();
        let own = own.filter(|_| matches!(self.feed, Feed::Log(_)));
        let tried = self.canary.iter().flat_map(|canary| canary.ended());
        own.into_iter().chain(tried).collect()
    }

    /// Starts threads for `spec` on the partitions of `share`. They begin once all pipelines of `before`,
    /// which they replace, have finished.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(crate) fn start(
        spec: Arc<Spec>,
        fingerprint: RowFingerprint,
        share: PartitionSet,
        stages: Vec<Stage>,
        (broker, desired): (Broker, SharedDesiredState),
        state: State,
        before: Vec<Receiver<()>>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            counts: Counts::default(),
            ends: Mutex::default(),
            queued_bytes: AtomicUsize::new(0),
            fingerprint,
            desired,
        });
        let (finish, finished) = sync_channel::<()>(1);
        let (begin, begun) = oneshot::channel();
        let (start, started) = sync_channel::<()>(1);
        let name = spec.name.to_string();
        priority::prepare()?;
        let begin = move || {
            Priority::Prompt.ask();
            // The other end is dropped, never sent to: the error is the signal.
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
        let feed = match spec.at {
            At::Ingest => {
                let (jobs, queue) = sync_channel::<(HookJob, HookDone)>(PIPELINE_QUEUE_MAX);
                thread(&name).spawn(move || {
                    begin();
                    worker.run(queue, finish);
                })?;
                Feed::Ingest(jobs)
            }
            At::Log => {
                let stop = Arc::new(StopSignal::default());
                let ended = Arc::clone(&stop);
                thread(&name).spawn(move || {
                    begin();
                    read(worker, &ended, &finish);
                })?;
                Feed::Log(stop)
            }
        };
        Ok(Self {
            name,
            fingerprint,
            feed,
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
            State::Paused => Some("the pipeline is paused; run `weir pipeline resume`".to_owned()),
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
        let sent = match &self.feed {
            Feed::Ingest(jobs) => jobs.try_send((job, done)),
            // Unreachable: batches are only submitted to in-line pipelines.
            Feed::Log(_) => Err(TrySendError::Disconnected((job, done))),
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

    /// Returns the end offsets that other nodes last reported for its sources.
    pub(crate) fn ends(&self) -> Ends {
        let ends = self.shared.ends.lock();
        ends.clone()
    }

    /// Returns true if the pipeline processes `partition`.
    pub(crate) fn has(&self, partition: u32) -> bool {
        self.share.has(partition)
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock()
    }
}

/// Reads the log on the configured number of threads, the calling thread included.
fn read(worker: Worker, stop: &Arc<StopSignal>, finish: &SyncSender<()>) {
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
