//! Steps of a pipeline that remembers, each computed on top of what those before it wrote, ahead of commitment.
//!
//! Whoever computes them begins a [`Chain`] in a term of the group's leader, from rows that are applied, and takes a
//! [`Step`] for each batch. A step is taken into an entry only in the chain's own term and only if every step before it
//! was: one that is refused, lost on its way or proposed in vain breaks the chain, and what was computed on top of it is
//! refused with it. The next chain begins when the fate of all steps of this one is known, again from what is applied.
//! So the rows that an entry writes are those of a computation that saw exactly the entries before it.

use crate::core::Broker;
use crate::hook::Stepped;
use crate::propose::request::{Append, Framing, PipelineEffects, Request, Room, row_op};
use crate::propose::step::{Footing, Shared, Step};
use crate::state::rows::producer::{Accepted, Verdict, Window};
use crate::state::rows::topic::Topic;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use tokio::sync::oneshot;
use weir_log::StateKey;
use weir_types::limits::{PRODUCERS_MAX, STEPS_QUEUED_BYTES_MAX, STEPS_QUEUED_MAX};
use weir_types::{Batch, Offset, PartitionId};

impl Broker {
    /// Takes what a pipeline made of the time alone: a step that stands on a batch of nobody's. What becomes of it is the
    /// step's to tell. Blocks while the proposer is behind: for a thread of the caller's own.
    pub fn take_step(&self, topic: Arc<Topic>, partition: PartitionId, made: Stepped) {
        let Ok(replica) = self.proposing_replica(partition) else {
            return;
        };
        let outputs: usize = made.outputs.iter().map(|o| o.batch.bytes().len()).sum();
        let rows: usize = made.rows.iter().map(row_bytes).sum();
        // Its bytes; a floor also keeps steps under the queue's length. One that is larger than all may be goes alone.
        let share = (outputs + rows).clamp(STEPS_QUEUED_BYTES_MAX / STEPS_QUEUED_MAX, STEPS_QUEUED_BYTES_MAX);
        let place = Arc::clone(&replica.steps).acquire_many_owned(share as u32);
        let Ok(permit) = self.0.runtime.block_on(place).map(Room::Step) else {
            return;
        };
        // Nobody waits for the answer: dropped on the way, the step breaks its chain.
        let (reply, _) = oneshot::channel();
        let append = Append {
            topic,
            partition,
            kept: None,
            framing: Framing::Merge,
            made: Some(Box::new(PipelineEffects {
                outputs: made.outputs,
                rows: made.rows.into_iter().map(row_op).collect(),
                footing: Footing::Step(made.step),
            })),
            reply,
            account: None,
            permit,
        };
        let _ = replica.requests.send(Request::Append(append));
    }

    /// What is known of producer `id` on `partition`, as applied.
    pub(crate) fn window(&self, partition: PartitionId, id: i64) -> Option<Window> {
        self.0.applied.tables().producers.get(&(partition, id)).cloned()
    }
}

fn row_bytes((key, value): &(StateKey, Option<Bytes>)) -> usize {
    key.as_bytes().len() + value.as_ref().map_or(0, Bytes::len)
}

/// Steps on top of each other. See the module's docs.
pub struct Chain {
    broker: Broker,
    partition: PartitionId,
    shared: Arc<Shared>,
    /// What is assumed of the producers whose batches are in steps that are not decided yet, or were lately.
    windows: BTreeMap<i64, Window>,
    /// Steps so far.
    steps: AtomicU64,
}

impl Chain {
    /// Begins a chain for a pipeline on `partition`; nothing while another node leads it. All chains of this pipeline
    /// before it must have been [drained](Self::drain).
    pub fn begin(broker: &Broker, partition: PartitionId) -> Option<Self> {
        let term = broker.led_term(partition)?;
        Some(Self {
            broker: broker.clone(),
            partition,
            shared: Arc::new(Shared {
                term,
                invalid_from: AtomicU64::new(u64::MAX),
                undecided: Mutex::new(0),
                decided: Condvar::new(),
            }),
            windows: BTreeMap::new(),
            steps: AtomicU64::new(0),
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
            self.shared.invalidate_from(self.steps.load(Ordering::Relaxed));
        }
        true
    }

    /// The next step.
    pub fn step(&self) -> Step {
        *self.shared.lock() += 1;
        Step {
            shared: Arc::clone(&self.shared),
            number: self.steps.fetch_add(1, Ordering::Relaxed),
            is_committed: false,
        }
    }

    /// Whether something can be computed on top of it: it is whole, and the term in which it began is not over. Another may
    /// have led meanwhile.
    pub fn is_standing(&self) -> bool {
        let next = self.steps.load(Ordering::Relaxed);
        self.shared
            .is_valid_in(self.broker.led_term(self.partition), next)
    }

    /// Whether the fate of each step is known.
    pub fn is_decided(&self) -> bool {
        *self.shared.lock() == 0
    }

    /// Waits until the fate of each step is known. Blocks; while most nodes are away, until they are back.
    pub fn drain(&self) {
        self.drain_to(0);
    }

    /// Waits until the fate of all but `left` steps is known. Blocks, as above.
    pub fn drain_to(&self, left: usize) {
        let mut undecided = self.shared.lock();
        while *undecided > left {
            let waited = self.shared.decided.wait(undecided);
            undecided = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}
