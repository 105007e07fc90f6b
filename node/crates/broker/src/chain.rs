//! Steps of a pipeline that remembers, each computed on top of what those before it wrote, ahead of commitment.
//!
//! Whoever computes them begins a [`Chain`] in a term of the group's leader, from rows that are applied, and takes a
//! [`Step`] for each batch. A step is taken into an entry only in the chain's own term and only if every step before it
//! was: one that is refused, lost on its way or proposed in vain breaks the chain, and what was computed on top of it is
//! refused with it. The next chain begins when the fate of all steps of this one is known, again from what is applied.
//! So the rows that an entry writes are those of a computation that saw exactly the entries before it.

use crate::broker::Broker;
use crate::producer::{Accepted, Verdict, Window};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use weir_log::{ReadError, StateKey};
use weir_types::limits::PRODUCERS_MAX;
use weir_types::{Batch, Offset, PartitionId, Term};

/// Steps on top of each other. See the module's docs.
pub struct Chain {
    broker: Broker,
    partition: PartitionId,
    shared: Arc<Shared>,
    /// What is assumed of the producers whose batches are in steps that are not decided yet, or were lately.
    windows: BTreeMap<i64, Window>,
}

struct Shared {
    term: Term,
    is_broken: AtomicBool,
    undecided: Mutex<usize>,
    decided: Condvar,
}

/// One step of a chain. Dropped before its entry is committed, it breaks the chain.
pub struct Step {
    shared: Arc<Shared>,
    is_committed: bool,
}

/// What a batch that passed a pipeline stands on.
#[derive(Default)]
pub enum Footing {
    /// On nothing: its pipeline remembers nothing.
    #[default]
    Free,
    /// On the steps before it.
    Step(Step),
    /// It was taken before, it seems, or cannot be: the pipeline has not looked at it, and it must not be stored.
    Unseen,
}

impl Chain {
    /// Begins a chain for a pipeline on `partition`; nothing while another node leads it. All chains of this pipeline
    /// before it must have been [drained](Self::drain).
    pub fn begin(broker: &Broker, partition: PartitionId) -> Option<Self> {
        let term = term(broker, partition)?;
        Some(Self {
            broker: broker.clone(),
            partition,
            shared: Arc::new(Shared {
                term,
                is_broken: AtomicBool::new(false),
                undecided: Mutex::new(0),
                decided: Condvar::new(),
            }),
            windows: BTreeMap::new(),
        })
    }

    /// Hands the applied rows whose keys begin as `from` does to `each`: what the chain's first step stands on. Blocks.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn rows(&self, from: &StateKey, mut each: impl FnMut(&[u8], Bytes)) -> Result<(), ReadError> {
        let log = self.broker.log();
        let (settle, settled) = mpsc::sync_channel(1);
        let stopped = || ReadError::Busy("the log has stopped".to_owned());
        log.settle(move |result| {
            let _ = settle.send(result.is_ok());
        })
        .map_err(|_| stopped())?;
        if !settled.recv().unwrap_or(false) {
            return Err(stopped());
        }
        log.rows_under(from, |key, value| {
            each(key, value);
            true
        })
    }

    /// Whether a batch is its producer's next, as far as can be known before its entry is made. One that is not is sent
    /// on without a step, as [`Footing::Unseen`].
    pub fn is_next(&mut self, batch: &Batch) -> bool {
        let Some(producer) = batch.producer() else {
            return true;
        };
        let applied;
        let known = match self.windows.get(&producer.id) {
            Some(window) => Some(window),
            None => {
                applied = self.broker.window(self.partition, producer.id);
                applied.as_ref()
            }
        };
        if Window::check(known, &producer, batch.span()) != Verdict::Next {
            return false;
        }
        let mut window = known.cloned().unwrap_or_default();
        let accepted = Accepted {
            sequence: producer.sequence,
            span: batch.span(),
            base: Offset::ZERO,
        };
        window.accept(&producer, accepted, self.broker.now_ms());
        self.windows.insert(producer.id, window);
        if self.windows.len() > PRODUCERS_MAX {
            // What is applied says the same of most; of the others it will when the next chain begins.
            self.shared.is_broken.store(true, Ordering::Release);
        }
        true
    }

    /// The next step.
    pub fn step(&self) -> Step {
        *self.shared.lock() += 1;
        Step {
            shared: Arc::clone(&self.shared),
            is_committed: false,
        }
    }

    /// Whether something can be computed on top of it: it is whole, and the term in which it began is not over. Another may
    /// have led meanwhile.
    pub fn is_standing(&self) -> bool {
        self.shared.stands_in(term(&self.broker, self.partition))
    }

    /// Waits until the fate of each step is known. Blocks; while most nodes are away, until they are back.
    pub fn drain(&self) {
        let mut undecided = self.shared.lock();
        while *undecided > 0 {
            let waited = self.shared.decided.wait(undecided);
            undecided = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The term in which this node leads `partition`.
fn term(broker: &Broker, partition: PartitionId) -> Option<Term> {
    let leader = broker.serving_lane(partition).ok()?.group.lead()?;
    Some(leader.term())
}

impl Shared {
    fn stands_in(&self, term: Option<Term>) -> bool {
        Some(self.term) == term && !self.is_broken.load(Ordering::Acquire)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, usize> {
        self.undecided.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Step {
    /// Whether it may be taken into an entry of `term`.
    pub(crate) fn stands_in(&self, term: Option<Term>) -> bool {
        self.shared.stands_in(term)
    }

    /// Its batch is not taken: nothing on top of it may be.
    pub(crate) fn fall(&self) {
        self.shared.is_broken.store(true, Ordering::Release);
    }

    /// Its entry is committed, and applied here.
    pub(crate) fn commit(mut self) {
        self.is_committed = true;
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.is_committed {
            self.fall();
        }
        *self.shared.lock() -= 1;
        self.shared.decided.notify_all();
    }
}
