//! Threads of a log pipeline. Each reads a share of the partitions.
//!
//! The result of a few batches is a step: outputs, state, timers and read positions are stored in a single
//! entry, as in-line. A step waits only for the steps before it, and nothing waits for a log pipeline. It may
//! lag, as [`crate::PipelineInfo::places`] shows.
//!
//! Its time is the time of its records, so that reprocessing a log gives the same result. Only at the end of
//! the log does the wall clock count.

use crate::partition::refusal::Refusal;
use crate::worker::counts::State;
use crate::worker::schedule::{SOON, Schedule};
use crate::worker::thread::Worker;
use crate::worker::timers::LEAD_POLL;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use weir_broker::Topic;
use weir_types::limits::FETCH_WAIT_MS_MAX;
use weir_types::{GroupId, Offset, PartitionId, TopicName};

/// Longest wait for new records.
const FOREVER: Duration = Duration::from_millis(FETCH_WAIT_MS_MAX);

/// Timeout for asking other nodes for end offsets. The pipeline waits meanwhile.
const ENDS_WITHIN: Duration = Duration::from_millis(500);

/// Factor by which a node that did not answer is left alone longer than the wait for its answer.
const PATIENCE: u32 = 4;

/// Signal that ends threads.
#[derive(Debug, Default)]
pub(crate) struct StopSignal {
    is_set: AtomicBool,
    set: Notify,
}

impl StopSignal {
    pub(crate) fn set(&self) {
        self.is_set.store(true, Ordering::Release);
        self.set.notify_waiters();
    }

    fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    async fn wait(&self) {
        let mut set = std::pin::pin!(self.set.notified());
        // Registered before the flag is read.
        set.as_mut().enable();
        if !self.is_set() {
            set.await;
        }
    }
}

/// A thread of a log pipeline.
pub(crate) struct Reader {
    pub(crate) worker: Worker,
    pub(crate) stop: Arc<StopSignal>,
    /// Index of the thread, and number of threads. The thread has every partition whose number modulo the
    /// latter is the index.
    pub(crate) share: (u32, u32),
    /// Replica groups that did not answer, each with the time of the next request.
    silent: BTreeMap<GroupId, Instant>,
    schedule: Schedule,
    turns: watch::Receiver<u64>,
}

/// What a thread does after a round.
enum Next {
    AtOnce,
    /// Waits for new records, at most for this time.
    Something(Duration),
    /// Retries after a pause.
    Again,
}

impl Reader {
    pub(crate) fn new(worker: Worker, stop: Arc<StopSignal>, share: (u32, u32)) -> Self {
        let turns = worker.broker.turns();
        Self {
            worker,
            stop,
            share,
            silent: BTreeMap::new(),
            schedule: Schedule::default(),
            turns,
        }
    }

    /// Works until the stop signal is set.
    pub(crate) fn run(mut self) {
        while !self.stop.is_set() {
            match self.round() {
                Next::AtOnce => {}
                Next::Something(patience) => self.wait(patience),
                Next::Again => self.pause(LEAD_POLL),
            }
        }
        // The next pipeline starts from the state that this thread has written.
        self.worker.parts.end_all();
    }

    /// Polls each partition of the thread once.
    fn round(&mut self) -> Next {
        // Resuming replaces this worker.
        if self.worker.state() != State::Running {
            return Next::Something(FOREVER);
        }
        if !self.worker.may_work() {
            // The configuration has changed: another worker is about to replace this.
            return Next::Again;
        }
        self.turns.mark_unchanged();
        let broker = self.worker.broker.clone();
        let spec = Arc::clone(&self.worker.spec);
        let topics: Option<Vec<_>> = spec.source.iter().map(|t| broker.topic(t.as_str())).collect();
        let first = topics.as_deref().and_then(|topics| topics.first());
        let Some((topics, first)) = topics.as_deref().zip(first) else {
            return Next::Again;
        };
        if broker.led_term(PartitionId::HOME).is_none() {
            self.schedule.poll_all();
            self.worker.parts.end_all();
            // A follower waits for a change of leader. A new leader starts to serve soon.
            return Next::Something(match broker.group().lead() {
                Some(_) => SOON,
                None => FOREVER,
            });
        }
        let due = match self.worker.due() {
            Ok(due) => due,
            Err(refusal) => return self.refused(refusal),
        };
        let count = topics.iter().map(|t| t.partitions.len() as u32).max();
        let is_elsewhere = self.fetch_remote_ends();
        let (mine, of) = self.share;
        let mut is_idle = true;
        for partition in (mine..count.unwrap_or(0)).step_by(of.max(1) as usize) {
            if self.stop.is_set() {
                return Next::AtOnce;
            }
            let is_ours = self.worker.share.has(partition);
            if !is_ours || !due.contains(&partition) && !self.has_more(partition) {
                continue;
            }
            if !self.schedule.may_poll(partition, Instant::now()) {
                continue;
            }
            match self.poll(first, partition) {
                Ok(did) => is_idle &= !did,
                Err(refusal) => return self.refused(refusal),
            }
        }
        if is_idle {
            Next::Something(self.idle_time(is_elsewhere))
        } else {
            Next::AtOnce
        }
    }

    /// Polls a partition, and notes in the schedule when to poll next. Returns true if there is more to do.
    ///
    /// # Errors
    /// A refusal that concerns all partitions.
    fn poll(&mut self, topic: &Arc<Topic>, partition: u32) -> Result<bool, Refusal> {
        let begun = Instant::now();
        let mut parts = std::mem::take(&mut self.worker.parts);
        let polled = self.worker.poll_partition(&mut parts, topic, partition);
        parts.release_buffers(partition);
        let positions = parts.place(partition);
        self.worker.parts = parts;
        self.worker.report_size();
        match polled {
            Ok(did) => {
                if did {
                    self.worker.parts.widen(partition);
                }
                self.schedule.succeeded(partition, positions);
                Ok(did)
            }
            Err(Refusal::TooMuch(much)) => {
                // Retried from the stored state, with fewer records.
                self.worker.parts.narrow(partition, much.of);
                self.schedule.poll_again(partition);
                Ok(true)
            }
            Err(Refusal::Busy) => {
                // Other partitions go on.
                let took = begun.elapsed();
                if took > LEAD_POLL {
                    self.schedule.poll_again(partition);
                    self.note_slow(partition, took);
                } else {
                    self.schedule.delay(partition, Instant::now() + LEAD_POLL);
                }
                Ok(false)
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Returns how long to wait after a round without work.
    fn idle_time(&mut self, is_elsewhere: bool) -> Duration {
        let timers = self.worker.next_due_in().map_or(FOREVER, |due| due.min(FOREVER));
        let wait = self.schedule.limit_wait(timers, LEAD_POLL);
        if self.worker.parts.are_decided() && !is_elsewhere {
            wait
        } else {
            wait.min(SOON)
        }
    }

    /// Notes that `partition`, and all others of its group, are slow.
    fn note_slow(&mut self, partition: u32, took: Duration) {
        let broker = &self.worker.broker;
        let topic = broker.topic(self.worker.spec.source.first());
        let ids = topic.map(|topic| topic.partitions.clone()).unwrap_or_default();
        let group = ids.get(partition as usize).map(|id| id.group());
        let (mine, of) = self.share;
        let mut alike: Vec<u32> = (0..)
            .zip(&ids)
            .filter(|(p, id)| p % of.max(1) == mine && Some(id.group()) == group && !broker.serves(**id))
            .map(|(p, _)| p)
            .collect();
        // The partition that was just tried is retried last.
        alike.retain(|p| *p != partition);
        alike.push(partition);
        self.schedule.note_slow(alike, Instant::now() + took * PATIENCE);
    }

    /// Asks other nodes for the end offsets of partitions that they lead and whose end was reached. Returns
    /// true if there are such partitions.
    fn fetch_remote_ends(&mut self) -> bool {
        let (broker, now) = (&self.worker.broker, Instant::now());
        self.silent.retain(|_, until| now < *until);
        let mut is_elsewhere = false;
        let ends = self.schedule.ends();
        let places: Vec<_> = ends
            .map(|(topic, partition, _)| (topic.clone(), partition))
            .filter(|(topic, partition)| {
                let id = broker.topic(topic.as_str()).and_then(|t| t.partition(*partition));
                let group = id.filter(|id| !broker.serves(*id)).map(PartitionId::group);
                is_elsewhere |= group.is_some();
                group.is_some_and(|group| !self.silent.contains_key(&group))
            })
            .collect();
        if places.is_empty() {
            return is_elsewhere;
        }
        let (ends, silent) = broker.block_on(broker.ends_elsewhere(&places, ENDS_WITHIN));
        let until = Instant::now() + ENDS_WITHIN * PATIENCE;
        self.silent.extend(silent.into_iter().map(|group| (group, until)));
        let mut known = self.worker.shared.ends.lock();
        known.extend(
            ends.into_iter()
                .map(|(topic, partition, end)| ((topic, partition), end)),
        );
        true
    }

    /// Returns true if the partition may have new records, or a step has failed.
    fn has_more(&self, partition: u32) -> bool {
        let Some(places) = self.schedule.positions(partition) else {
            return true;
        };
        let broker = &self.worker.broker;
        let heard = self.worker.shared.ends.lock();
        let has_grown = |(topic, at): &(TopicName, Offset)| {
            let marks = broker.marks(topic.as_str(), partition);
            let end = marks.map(|marks| marks.committed_end());
            end.max(heard.get(&(topic.clone(), partition)).copied())
                .is_some_and(|end| end > *at)
        };
        places.iter().any(has_grown) || self.worker.parts.is_broken(partition)
    }

    /// Reacts to a refusal that concerns all partitions.
    fn refused(&mut self, refusal: Refusal) -> Next {
        // Due timers that have not fired are looked up again.
        self.schedule.poll_all();
        if let Refusal::Halt(why) = refusal {
            self.worker.halt(why);
        }
        Next::Again
    }

    /// Waits for this time, or until the stop signal is set.
    fn pause(&self, wait: Duration) {
        let broker = self.worker.broker.clone();
        broker.block_on(async {
            let _ = tokio::time::timeout(wait, self.stop.wait()).await;
        });
    }

    /// Waits for new records, a change of leader or the stop signal, at most for this time.
    fn wait(&mut self, patience: Duration) {
        let broker = self.worker.broker.clone();
        let ends = self.schedule.ends();
        let places: Vec<_> = ends.map(|(topic, p, at)| (topic.to_string(), p, at)).collect();
        let is_reading = self.worker.state() == State::Running && !places.is_empty();
        let Self { stop, turns, .. } = self;
        let grown = async {
            if is_reading {
                let _ = broker.wait_for_any(&places, patience).await;
            } else {
                tokio::time::sleep(patience).await;
            }
        };
        broker.block_on(async {
            tokio::select! {
                () = stop.wait() => {}
                _ = turns.changed() => {}
                () = grown => {}
            }
        });
    }
}
