//! Requests to a proposer, and the queue in which they wait.

use crate::access::ledger::Taken;
use crate::error::{AdminError, ProduceError};
use crate::propose::step::{Footing, Output};
use crate::state::rows::topic::Topic;
use crate::state::tables::Tables;
use bytes::Bytes;
use std::sync::mpsc::{Receiver, SendError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use weir_log::{Log, Op, Running, StateKey, Wake};
use weir_replica::ProposeError;
use weir_types::limits::{OP_HEAD_BYTES_MAX, REQUEST_BYTES_MAX, ROW_BYTES_MAX};
use weir_types::planted::{Bug, planted};
use weir_types::{Batch, Offset, PartitionId};

/// Offsets of stored records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    /// Offset of the first.
    pub base: Offset,
    /// Offsets that they span.
    pub span: u32,
}

pub(crate) fn row_op((key, value): (StateKey, Option<Bytes>)) -> Op {
    match value {
        Some(value) => Op::Put { key, value },
        None => Op::Remove { key },
    }
}

/// Permission to merge small batches into a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Framing {
    /// They may: many producers of single records then cost a row an entry.
    Merge,
    /// Batches are stored as sent, like in Kafka.
    AsSent,
}

/// Permit of an append, released when the append is answered.
#[expect(dead_code, reason = "they are held")]
pub(crate) enum Room {
    /// A share of the bytes in flight.
    Records(Taken),
    /// A step's place.
    Step(OwnedSemaphorePermit),
}

/// Records for a partition, with the effects of a pipeline.
pub(crate) struct Append {
    pub(crate) topic: Arc<Topic>,
    pub(crate) partition: PartitionId,
    /// The input batch; `None` for a step without input.
    pub(crate) kept: Option<Batch>,
    pub(crate) framing: Framing,
    /// Pipeline effects, if the batch passed a pipeline.
    pub(crate) made: Option<Box<PipelineEffects>>,
    pub(crate) reply: oneshot::Sender<Result<Produced, ProduceError>>,
    /// Account of the sender; `None` for the node itself.
    pub(crate) account: Option<Arc<str>>,
    /// The permit, released with the answer.
    pub(crate) permit: Room,
}

/// Effects of a pipeline on a batch, beside the kept records.
pub(crate) struct PipelineEffects {
    pub(crate) outputs: Vec<Output>,
    /// Changed state rows.
    pub(crate) rows: Vec<Op>,
    pub(crate) footing: Footing,
}

impl Append {
    pub(crate) fn is_unseen(&self) -> bool {
        let footing = self.made.as_ref().map(|made| &made.footing);
        matches!(footing, Some(Footing::Unseen))
    }

    pub(crate) fn outputs(&self) -> &[Output] {
        self.made.as_ref().map_or(&[], |made| &made.outputs)
    }

    /// Returns an upper bound of the bytes in an entry.
    pub(crate) fn bytes(&self) -> usize {
        let outputs = self.outputs().iter().map(|o| &o.batch);
        let batches = outputs.chain(&self.kept);
        let batches = batches.map(|batch| OP_HEAD_BYTES_MAX + batch.bytes().len());
        batches.sum::<usize>() + self.rows().iter().map(Op::bytes).sum::<usize>()
    }

    pub(crate) fn rows(&self) -> &[Op] {
        self.made.as_ref().map_or(&[], |made| &made.rows)
    }

    /// Returns the reason why no entry can have this append, if any.
    pub(crate) fn is_refused(&self, bytes: usize) -> Option<ProposeError> {
        let row = self.rows().iter().find_map(too_large);
        row.or_else(|| over(bytes, REQUEST_BYTES_MAX))
    }
}

pub(crate) fn over(bytes: usize, limit: usize) -> Option<ProposeError> {
    let is_over = bytes > limit && !planted(Bug::NoEntryBound);
    is_over.then_some(ProposeError::TooLarge { bytes, limit })
}

/// Returns the reason why no entry can have `op`: a row above the limit.
fn too_large(op: &Op) -> Option<ProposeError> {
    match op {
        Op::Put { key, value } => over(key.as_bytes().len() + value.len(), ROW_BYTES_MAX),
        Op::Append { .. } | Op::Remove { .. } | Op::Trim { .. } | Op::Drop { .. } | Op::Gone(_) => None,
    }
}

/// Returns the bytes of `ops`, or the reason why no entry can have them.
pub(crate) fn bytes_of(ops: &[Op]) -> Result<usize, ProposeError> {
    let bytes = ops.iter().map(Op::bytes).sum();
    let refused = ops.iter().find_map(too_large);
    match refused.or_else(|| over(bytes, REQUEST_BYTES_MAX)) {
        Some(refused) => Err(refused),
        None => Ok(bytes),
    }
}

pub(crate) type MakeOps = Box<dyn FnOnce(&Tables, &Log) -> Result<Vec<Op>, AdminError> + Send>;

pub(crate) type AdminReply = oneshot::Sender<Result<(), AdminError>>;

pub(crate) enum Request {
    Append(Append),
    /// Rows that depend on no state: part of the next entry.
    Put {
        ops: Vec<Op>,
        reply: AdminReply,
    },
    /// A change that depends on applied state: waits until all earlier entries are applied.
    Change {
        make: MakeOps,
        reply: AdminReply,
    },
    /// Wakes the proposer to check its own conditions.
    Wake,
    Stop,
}

/// Queue of a proposer. Clones share the queue.
#[derive(Clone)]
pub(crate) struct Queue {
    requests: SyncSender<Request>,
    /// Set once the proposer runs; the proposer checks the queue when it begins.
    wake: Arc<OnceLock<Wake>>,
}

impl Queue {
    pub(crate) fn new(places: usize) -> (Self, Receiver<Request>) {
        let (requests, queue) = sync_channel(places);
        let wake = Arc::default();
        (Self { requests, wake }, queue)
    }

    pub(crate) fn wake_by(&self, proposer: &Running) {
        let _ = self.wake.set(Arc::clone(&proposer.wake));
    }

    /// Enqueues a request if there is space.
    #[expect(clippy::result_large_err, reason = "the request comes back, to be answered")]
    pub(crate) fn try_send(&self, request: Request) -> Result<(), TrySendError<Request>> {
        self.requests.try_send(request)?;
        self.wake();
        Ok(())
    }

    /// Enqueues a request; blocks while the queue is full.
    #[expect(clippy::result_large_err, reason = "the request comes back, to be answered")]
    pub(crate) fn send(&self, request: Request) -> Result<(), SendError<Request>> {
        self.requests.send(request)?;
        self.wake();
        Ok(())
    }

    pub(crate) fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake();
        }
    }
}

/// Requests that share an entry.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) appends: Vec<Append>,
    pub(crate) puts: Vec<(Vec<Op>, AdminReply)>,
    pub(crate) bytes: usize,
}

impl Round {
    pub(crate) fn is_empty(&self) -> bool {
        self.appends.is_empty() && self.puts.is_empty()
    }
}
