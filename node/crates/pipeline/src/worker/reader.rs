//! A pipeline at work behind the log: threads that read what is stored, each some of the partitions.
//!
//! What comes of a few batches is one step of a chain, as in-line: outputs, what modules remember, timers and the place up to
//! which was read are in one entry. A step waits for nothing but those before it, and nothing waits for a pipeline behind the
//! log: it may lag, which [`crate::PipelineInfo::places`] shows. Its time is that of its records, so that reading the same log
//! again gives the same; only at the end of the log time passes by itself.

use crate::partition::refusal::Refusal;
use crate::worker::backoff::RetryQueue;
use crate::worker::counts::State;
use crate::worker::timers::LEAD_POLL;
use crate::worker::worker::Worker;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use weir_types::limits::FETCH_WAIT_MS_MAX;
use weir_types::{GroupId, Offset, PartitionId, TopicName};

/// How soon steps that are under way are looked at again when there is nothing else to do: if one of them fails, what it was made
/// of is read again. So soon a node that has begun to lead looks whether it serves, too.
const SOON: Duration = Duration::from_millis(50);

/// It is a few bytes, and a pipeline stands still meanwhile.
const ENDS_WITHIN: Duration = Duration::from_millis(500);

/// Who does not answer is left alone for so many times as long as that was waited for, so that what others have goes on.
const PATIENCE: u32 = 4;

/// Tells threads to end.
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
        // Asked for before looking.
        set.as_mut().enable();
        if !self.is_set() {
            set.await;
        }
    }
}

/// One thread of a pipeline.
pub(crate) struct Reader {
    pub(crate) worker: Worker,
    pub(crate) stop: Arc<StopSignal>,
    /// Which of how many: it has each partition whose number has that rest.
    pub(crate) share: (u32, u32),
    /// Replica groups of which nobody said how far their partitions have come, and until when nobody is asked.
    silent: BTreeMap<GroupId, Instant>,
    /// Partitions that could not be gone on with, and until when they are left alone.
    stuck: BTreeMap<u32, Instant>,
    slow: RetryQueue,
    /// Up to where partitions are read that had nothing more. Of others it has to be looked for.
    known: BTreeMap<u32, Vec<(TopicName, Offset)>>,
    turns: watch::Receiver<u64>,
}

/// What comes after a round.
enum Next {
    AtOnce,
    /// Nothing, until something comes or so much time is over.
    Something(Duration),
    /// What could not be done, after a while.
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
            stuck: BTreeMap::new(),
            slow: RetryQueue::default(),
            known: BTreeMap::new(),
            turns,
        }
    }

    /// Works until it is told to stop.
    pub(crate) fn run(mut self) {
        while !self.stop.is_set() {
            match self.round() {
                Next::AtOnce => {}
                Next::Something(patience) => self.wait(patience),
                Next::Again => self.pause(LEAD_POLL),
            }
        }
        // Whoever comes next begins on what this one has written.
        self.worker.parts.end_all();
    }

    /// Looks at each partition once.
    fn round(&mut self) -> Next {
        let forever = Duration::from_millis(FETCH_WAIT_MS_MAX);
        // Whoever lets it go on puts another in its place.
        if self.worker.state() != State::Running {
            return Next::Something(forever);
        }
        if !self.worker.may_work() {
            // The one that should work takes its place in a moment.
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
            self.known.clear();
            self.worker.parts.end_all();
            // While another leads, it need not look until that has changed; one that leads serves in a moment.
            return Next::Something(match broker.group().lead() {
                Some(_) => SOON,
                None => forever,
            });
        }
        let due = match self.worker.due() {
            Ok(due) => due,
            Err(refusal) => return self.refused(refusal),
        };
        let count = topics
            .iter()
            .map(|t| t.partitions.len() as u32)
            .max()
            .unwrap_or(0);
        let is_elsewhere = self.fetch_remote_ends();
        let (mine, of) = self.share;
        let mut is_idle = true;
        for partition in (mine..count).step_by(of.max(1) as usize) {
            if self.stop.is_set() {
                return Next::AtOnce;
            }
            if !self.worker.share.has(partition) {
                continue;
            }
            if !due.contains(&partition) && !self.has_more(partition) {
                continue;
            }
            if self
                .stuck
                .get(&partition)
                .is_some_and(|until| Instant::now() < *until)
            {
                // What is due there is not forgotten.
                self.known.remove(&partition);
                continue;
            }
            self.stuck.remove(&partition);
            if !self.slow.may(partition, Instant::now()) {
                self.known.remove(&partition);
                continue;
            }
            let begun = Instant::now();
            let mut parts = std::mem::take(&mut self.worker.parts);
            let turned = self.worker.poll_partition(&mut parts, first, partition);
            parts.release_buffers(partition);
            let place = parts.place(partition);
            self.worker.parts = parts;
            self.worker.report_size();
            match turned {
                Ok(did) => {
                    is_idle &= !did;
                    if did {
                        self.worker.parts.widen(partition);
                    }
                    self.slow.is_back(partition);
                }
                Err(Refusal::TooMuch(much)) => {
                    // From what is applied, with fewer.
                    self.worker.parts.narrow(partition, much.of);
                    self.known.remove(&partition);
                    is_idle = false;
                    continue;
                }
                Err(Refusal::Busy) => {
                    // The others go on.
                    self.known.remove(&partition);
                    let took = begun.elapsed();
                    match took > LEAD_POLL {
                        true => self.note_slow(partition, took),
                        false => drop(self.stuck.insert(partition, Instant::now() + LEAD_POLL)),
                    }
                    continue;
                }
                Err(refusal) => return self.refused(refusal),
            }
            self.known.remove(&partition);
            self.known.extend(place.map(|place| (partition, place)));
        }
        if !is_idle {
            return Next::AtOnce;
        }
        let timers = self.worker.next_due_in().map_or(forever, |due| due.min(forever));
        let timers = match self.stuck.is_empty() && self.slow.is_empty() {
            true => timers,
            false => timers.clamp(SOON, LEAD_POLL),
        };
        Next::Something(match self.worker.parts.are_decided() && !is_elsewhere {
            true => timers,
            false => timers.min(SOON),
        })
    }

    /// What holds up `partition` holds up the others of its group, too.
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
        // The one that was tried comes last.
        alike.retain(|p| *p != partition);
        alike.push(partition);
        self.slow.note(alike, Instant::now() + took * PATIENCE);
    }

    /// Asks other nodes how far partitions have come that they lead, and that were read up to their ends. Whether there are any.
    fn fetch_remote_ends(&mut self) -> bool {
        let (broker, now) = (&self.worker.broker, Instant::now());
        self.silent.retain(|_, until| now < *until);
        let mut is_elsewhere = false;
        let places = self.known.iter();
        let places: Vec<_> = places
            .flat_map(|(partition, of)| of.iter().map(|(topic, _)| (topic.clone(), *partition)))
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
        let mut known = self
            .worker
            .shared
            .ends
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.extend(
            ends.into_iter()
                .map(|(topic, partition, end)| ((topic, partition), end)),
        );
        true
    }

    /// Whether there may be something to read, or the steps before have failed.
    fn has_more(&self, partition: u32) -> bool {
        let Some(places) = self.known.get(&partition) else {
            return true;
        };
        let broker = &self.worker.broker;
        let heard = self
            .worker
            .shared
            .ends
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let has_grown = |(topic, at): &(TopicName, Offset)| {
            let marks = broker.marks(topic.as_str(), partition);
            let end = marks.map(|marks| marks.committed_end());
            end.max(heard.get(&(topic.clone(), partition)).copied())
                .is_some_and(|end| end > *at)
        };
        places.iter().any(has_grown) || self.worker.parts.is_broken(partition)
    }

    /// What to do after a refusal of all.
    fn refused(&mut self, refusal: Refusal) -> Next {
        // What was due and is not done is looked for on all.
        self.known.clear();
        if let Refusal::Halt(why) = refusal {
            self.worker.halt(why);
        }
        Next::Again
    }

    /// Waits so long, unless it is told to stop.
    fn pause(&self, wait: Duration) {
        let broker = self.worker.broker.clone();
        broker.block_on(async {
            let _ = tokio::time::timeout(wait, self.stop.wait()).await;
        });
    }

    /// Waits until there may be something to do.
    fn wait(&mut self, patience: Duration) {
        let broker = self.worker.broker.clone();
        let places: Vec<_> = self
            .known
            .iter()
            .flat_map(|(p, places)| places.iter().map(|(topic, at)| (topic.to_string(), *p, *at)))
            .collect();
        let is_reading = self.worker.state() == State::Running && !places.is_empty();
        let Self { stop, turns, .. } = self;
        let grown = async {
            match is_reading {
                true => drop(broker.wait_for_any(&places, patience).await),
                false => tokio::time::sleep(patience).await,
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
