//! Sessions of stateful pipelines: speculative steps, each computed on top of the last, ahead of commitment.
//!
//! A pipeline begins a [`Chain`] in a term of the group's leader, from applied rows, and takes a [`Step`] per
//! batch. The proposer accepts a step only in the session's term, and only if all earlier steps were
//! accepted. A step that is refused, dropped or not committed invalidates the session, and all later steps
//! are refused. The next session begins from applied rows, when all steps of the last are decided. So the
//! rows of an entry are computed from the state of exactly the earlier entries.

use crate::core::Broker;
use crate::hook::Stepped;
use crate::propose::request::{Append, Framing, PipelineEffects, Request, Room, row_op};
use crate::propose::step::{Footing, Shared, Step};
use crate::state::rows::producer::{Accepted, Verdict, Window};
use crate::state::rows::topic::Topic;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::oneshot;
use weir_log::StateKey;
use weir_types::limits::{PRODUCERS_MAX, STEPS_QUEUED_BYTES_MAX, STEPS_QUEUED_MAX};
use weir_types::sync::Condvar;
use weir_types::sync::Mutex;
use weir_types::{Batch, Offset, PartitionId};

impl Broker {
    /// Proposes a step without an input batch. The step itself reports the outcome. Blocks while the proposer
    /// is behind: call from a thread of your own.
    pub fn take_step(&self, topic: Arc<Topic>, partition: PartitionId, made: Stepped) {
        let Ok(replica) = self.proposing_replica(partition) else {
            return;
        };
        let outputs: usize = made.outputs.iter().map(|o| o.batch.bytes().len()).sum();
        let rows: usize = made.rows.iter().map(row_bytes).sum();
        // The floor keeps steps below the length of the queue. A step above the limit takes all permits.
        let share = (outputs + rows).clamp(STEPS_QUEUED_BYTES_MAX / STEPS_QUEUED_MAX, STEPS_QUEUED_BYTES_MAX);
        let place = Arc::clone(&replica.steps).acquire_many_owned(share as u32);
        let Ok(permit) = self.0.runtime.block_on(place).map(Room::Step) else {
            return;
        };
        // No caller waits for the answer. A step that is dropped on the way invalidates its session.
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

    /// Returns the applied window of producer `id` on `partition`.
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
    /// Windows assumed for producers whose batches are in recent or undecided steps.
    windows: BTreeMap<i64, Window>,
    /// Steps so far.
    steps: AtomicU64,
}

impl Chain {
    /// Begins a session for a pipeline on `partition`; `None` if another node leads. All earlier sessions of
    /// the pipeline must have been [drained](Self::drain).
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

    /// Returns true if a batch is its producer's next, as far as known before its entry is made. Other
    /// batches pass without a step, as [`Footing::Unseen`].
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
            // The next session starts from applied windows, which agree.
            self.shared.invalidate_from(self.steps.load(Ordering::Relaxed));
        }
        true
    }

    /// Begins the next step.
    pub fn step(&self) -> Step {
        *self.shared.lock() += 1;
        Step {
            shared: Arc::clone(&self.shared),
            number: self.steps.fetch_add(1, Ordering::Relaxed),
            is_committed: false,
        }
    }

    /// Returns true if the session is valid, and its term continues. Another node may lead meanwhile.
    pub fn is_standing(&self) -> bool {
        let next = self.steps.load(Ordering::Relaxed);
        self.shared
            .is_valid_in(self.broker.led_term(self.partition), next)
    }

    /// Returns true if all steps are decided.
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
            undecided = self.shared.decided.wait(undecided);
        }
    }
}
