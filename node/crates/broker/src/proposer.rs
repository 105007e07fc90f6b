//! Where requests become entries: the one home of everything computed ahead of commitment.
//!
//! [`Core`] is a plain state machine: requests in, at most one entry out. It owns the speculative state of its term
//! (next offsets, producers' windows), which begins empty on top of what is applied and is dropped whole when the
//! term ends. [`Driver`] runs it on a thread of its own, and decides how long small requests wait for company.

use crate::access::ledger::Taken;
use crate::broker::Produced;
use crate::chain::Footing;
use crate::entry::Building;
use crate::error::{AdminError, ProduceError};
use crate::hook::Output;
use crate::owners::Owners;
use crate::state::applied::Applied;
use crate::state::rows::producer::Window;
use crate::state::rows::topic::Topic;
use crate::state::tables::Tables;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SendError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use weir_log::{Log, Op, Running, Stop, Turn, Wake, Worker};
use weir_replica::{Group, Leader, Proposal, ProposeError};
use weir_types::limits::{
    ENTRY_BYTES_TARGET, OP_HEAD_BYTES_MAX, PRODUCERS_MAX, REQUEST_BYTES_MAX, ROW_BYTES_MAX,
};
use weir_types::planted::{Bug, planted};
use weir_types::{Batch, Clock, Offset, PartitionId};

/// Whether small batches may share a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Framing {
    /// They may: many producers of single records then cost a row an entry.
    Merge,
    /// Each is stored as it came, as Kafka does.
    AsSent,
}

/// What an append takes until it is answered: given back when it is dropped.
#[expect(dead_code, reason = "they are held")]
pub(crate) enum Room {
    /// A share of the bytes in flight.
    Records(Taken),
    /// A step's place.
    Step(OwnedSemaphorePermit),
}

/// Records for one partition, with what a pipeline made of them.
pub(crate) struct Append {
    pub(crate) topic: Arc<Topic>,
    pub(crate) partition: PartitionId,
    /// None for what a pipeline made of no batch: of the time.
    pub(crate) kept: Option<Batch>,
    pub(crate) framing: Framing,
    /// What a pipeline made of it, if it passed one.
    pub(crate) made: Option<Box<Made>>,
    pub(crate) reply: oneshot::Sender<Result<Produced, ProduceError>>,
    /// Who sent it; none for the node's own.
    pub(crate) account: Option<Arc<str>>,
    /// Its share of the bytes in flight, or a step's place, given back with the answer.
    pub(crate) permit: Room,
}

/// What a pipeline made of a batch, beside what it kept.
pub(crate) struct Made {
    pub(crate) outputs: Vec<Output>,
    /// Rows that its modules keep.
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

    /// What its ops take in an entry, at most.
    pub(crate) fn bytes(&self) -> usize {
        let outputs = self.outputs().iter().map(|o| &o.batch);
        let batches = outputs.chain(&self.kept);
        let batches = batches.map(|batch| OP_HEAD_BYTES_MAX + batch.bytes().len());
        batches.sum::<usize>() + self.rows().iter().map(Op::bytes).sum::<usize>()
    }

    pub(crate) fn rows(&self) -> &[Op] {
        self.made.as_ref().map_or(&[], |made| &made.rows)
    }

    /// Why no entry can have it.
    pub(crate) fn is_refused(&self, bytes: usize) -> Option<ProposeError> {
        let row = self.rows().iter().find_map(too_large);
        row.or_else(|| over(bytes, REQUEST_BYTES_MAX))
    }
}

pub(crate) fn over(bytes: usize, limit: usize) -> Option<ProposeError> {
    let is_over = bytes > limit && !planted(Bug::NoEntryBound);
    is_over.then_some(ProposeError::TooLarge { bytes, limit })
}

/// Why no entry can have `op`: it writes a row that is larger than rows may be.
fn too_large(op: &Op) -> Option<ProposeError> {
    match op {
        Op::Put { key, value } => over(key.as_bytes().len() + value.len(), ROW_BYTES_MAX),
        Op::Append { .. } | Op::Remove { .. } | Op::Trim { .. } | Op::Drop { .. } | Op::Gone(_) => None,
    }
}

/// What `ops` take, if an entry can have them beside others.
pub(crate) fn bytes_of(ops: &[Op]) -> Result<usize, ProposeError> {
    let bytes = ops.iter().map(Op::bytes).sum();
    let refused = ops.iter().find_map(too_large);
    match refused.or_else(|| over(bytes, REQUEST_BYTES_MAX)) {
        Some(refused) => Err(refused),
        None => Ok(bytes),
    }
}

type MakeOps = Box<dyn FnOnce(&Tables, &Log) -> Result<Vec<Op>, AdminError> + Send>;

type AdminReply = oneshot::Sender<Result<(), AdminError>>;

pub(crate) enum Request {
    Append(Append),
    /// Rows that depend on nothing: they join the next entry.
    Put {
        ops: Vec<Op>,
        reply: AdminReply,
    },
    /// A change that depends on what is applied: it waits until all before it is.
    Change {
        make: MakeOps,
        reply: AdminReply,
    },
    /// Something happened that the core asks for itself.
    Wake,
    Stop,
}

/// Where requests wait for the proposer. Clones are handles to the same one.
#[derive(Clone)]
pub(crate) struct Queue {
    requests: SyncSender<Request>,
    /// Set once the proposer runs: it looks for itself when it begins.
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

    /// Puts it there, if there is a place.
    #[expect(clippy::result_large_err, reason = "the request comes back, to be answered")]
    pub(crate) fn try_send(&self, request: Request) -> Result<(), TrySendError<Request>> {
        self.requests.try_send(request)?;
        self.wake();
        Ok(())
    }

    /// Puts it there; blocks while there is no place.
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

/// What is assumed of entries that are proposed and not yet committed.
#[derive(Default)]
pub(crate) struct Speculation {
    pub(crate) next: BTreeMap<PartitionId, Offset>,
    pub(crate) producers: BTreeMap<(PartitionId, i64), Window>,
}

/// Why requests wait.
pub(crate) enum Blocked {
    /// Until all that was proposed is decided, to make a change on top of it.
    Change { make: MakeOps, reply: AdminReply },
    /// Until all that was proposed is decided: later requests must see it, or too much is assumed.
    Settle,
    /// Until most voters are heard again: what is proposed before would be refused, and what comes after it not.
    Silence,
}

pub(crate) struct Core {
    pub(crate) log: Log,
    pub(crate) group: Group,
    /// None while another node leads.
    pub(crate) leader: Option<Leader>,
    pub(crate) applied: Arc<Applied>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Has the driver hand over [`Request::Wake`].
    pub(crate) wake: Arc<dyn Fn() + Send + Sync>,
    pub(crate) speculation: Speculation,
    /// Whose producers are, since this node leads.
    pub(crate) owners: Owners,
    /// The last proposal.
    pub(crate) last_ticket: u64,
    /// The last one that was waited for and is decided.
    pub(crate) settled: Arc<AtomicU64>,
    pub(crate) round: Round,
    pub(crate) blocked: Option<Blocked>,
    /// What came meanwhile. Bounded by the places that requests have.
    pub(crate) waiting: VecDeque<Request>,
}

/// Runs a core until it is told to stop or nobody is left to tell it.
pub(crate) struct Driver {
    pub(crate) core: Core,
    pub(crate) requests: Receiver<Request>,
    /// How long a small request waits for company.
    pub(crate) linger: Duration,
}

impl Driver {
    /// Takes a request, and those that `next` has behind it until an entry is full. False when it was the last.
    pub(crate) fn take(
        &mut self,
        first: Request,
        mut next: impl FnMut(&Receiver<Request>) -> Option<Request>,
    ) -> bool {
        let mut taken = Some(first);
        while let Some(request) = taken.take() {
            if !self.core.handle(request) {
                self.core.flush();
                return false;
            }
            if self.core.round.is_empty() || self.core.round.bytes >= ENTRY_BYTES_TARGET {
                break;
            }
            taken = next(&self.requests);
        }
        self.core.flush();
        true
    }
}

impl Worker for Driver {
    fn run(mut self: Box<Self>) {
        while let Ok(first) = self.requests.recv() {
            let (begun, linger) = (Instant::now(), self.linger);
            let next = |requests: &Receiver<Request>| {
                requests.recv_timeout(linger.saturating_sub(begun.elapsed())).ok()
            };
            if !self.take(first, next) {
                return;
            }
        }
    }

    fn turn(&mut self) -> Turn {
        loop {
            let first = match self.requests.try_recv() {
                Ok(first) => first,
                Err(TryRecvError::Empty) => return Turn::Wait(None),
                Err(TryRecvError::Disconnected) => return Turn::Over,
            };
            if !self.take(first, |requests| requests.try_recv().ok()) {
                return Turn::Over;
            }
        }
    }
}

impl Core {
    pub(crate) fn new(
        log: Log,
        group: Group,
        applied: Arc<Applied>,
        clock: Arc<dyn Clock>,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        let (speculation, round, waiting) = Default::default();
        Self {
            owners: Owners::default(),
            leader: None,
            log,
            group,
            applied,
            clock,
            wake,
            speculation,
            last_ticket: 0,
            settled: Arc::default(),
            round,
            blocked: None,
            waiting,
        }
    }

    /// Takes a request into the round. False when it was the last.
    fn handle(&mut self, request: Request) -> bool {
        self.unblock();
        let leads = self.leader.as_ref().is_some_and(Leader::is_current);
        if self.blocked.is_some() && !(leads && self.group.may_propose()) {
            self.refuse_waiting();
        }
        if self.blocked.is_none() && leads && self.group.is_silent() {
            self.flush();
            self.blocked = Some(Blocked::Silence);
            let wake = Arc::clone(&self.wake);
            self.group.when_heard(Box::new(move || wake()));
        }
        match request {
            Request::Stop => return false,
            request if self.blocked.is_some() => self.waiting.push_back(request),
            request => self.take(request),
        }
        true
    }

    pub(crate) fn take(&mut self, request: Request) {
        match request {
            Request::Append(append) => {
                let bytes = append.bytes();
                if let Some(refused) = append.is_refused(bytes) {
                    // A step that comes to nothing breaks its chain when it is dropped.
                    let _ = append.reply.send(Err(refused.into()));
                    return;
                }
                self.room_for(bytes);
                self.round.appends.push(append);
            }
            Request::Put { ops, reply } => match bytes_of(&ops) {
                Ok(bytes) => {
                    self.room_for(bytes);
                    self.round.puts.push((ops, reply));
                }
                Err(refused) => drop(reply.send(Err(refused.into()))),
            },
            Request::Change { make, reply } => {
                self.flush();
                self.block(Blocked::Change { make, reply });
            }
            // Whoever leads now is asked when something is proposed.
            Request::Wake | Request::Stop => {}
        }
    }

    /// Makes room in the round for so many bytes more: what has come so far goes if they are too many together.
    pub(crate) fn room_for(&mut self, bytes: usize) {
        if self.round.bytes + bytes > REQUEST_BYTES_MAX && !planted(Bug::NoEntryBound) {
            self.flush();
        }
        self.round.bytes += bytes;
    }

    /// Lets nothing pass until all that was proposed is decided.
    fn block(&mut self, blocked: Blocked) {
        let (ticket, settled, wake) = (
            self.last_ticket,
            Arc::clone(&self.settled),
            Arc::clone(&self.wake),
        );
        self.blocked = Some(blocked);
        let decided = move || {
            settled.fetch_max(ticket, Ordering::AcqRel);
            wake();
        };
        self.group.when_settled(ticket, Box::new(decided));
        self.unblock();
    }

    /// The term is over: what waited for it is told so. What was proposed in it tells by itself.
    fn refuse_waiting(&mut self) {
        if let Some(Blocked::Change { reply, .. }) = self.blocked.take() {
            let _ = reply.send(Err(self.not_leader().into()));
        }
        for request in std::mem::take(&mut self.waiting) {
            self.take(request);
        }
        self.flush();
    }

    fn unblock(&mut self) {
        loop {
            let is_settled = || self.settled.load(Ordering::Acquire) >= self.last_ticket;
            match &self.blocked {
                None => return,
                Some(Blocked::Silence) if self.group.is_silent() => return,
                Some(Blocked::Silence) => self.blocked = None,
                Some(Blocked::Change { .. } | Blocked::Settle) if !is_settled() => return,
                Some(Blocked::Change { .. } | Blocked::Settle) => {
                    // Nothing is under way now: what is applied is all there is, and topics may have come or gone.
                    self.speculation = Speculation::default();
                    if let Some(Blocked::Change { make, reply }) = self.blocked.take() {
                        self.change(make, reply);
                    }
                }
            }
            while self.blocked.is_none()
                && let Some(request) = self.waiting.pop_front()
            {
                self.take(request);
                if self.round.bytes >= ENTRY_BYTES_TARGET {
                    self.flush();
                }
            }
        }
    }

    /// Proposes the round as one entry. When the term is over, begins the next and computes everything anew.
    fn flush(&mut self) {
        let mut round = std::mem::take(&mut self.round);
        // Leadership may end between the two looks at it, and begin again; not for ever.
        while !round.is_empty() {
            if !(self.has_lead() && self.group.may_propose()) {
                let refused = self.not_leader();
                return answer(round, None)(Err(refused));
            }
            let built = Building::new(self).build(&round);
            for (i, error) in built.refused.into_iter().rev() {
                let _ = round.appends.remove(i).reply.send(Err(error));
            }
            if built.ops.is_empty() && built.answers.is_empty() && round.puts.is_empty() {
                return;
            }
            let mut ops = built.ops;
            ops.extend(round.puts.iter().flat_map(|(ops, _)| ops.iter().cloned()));
            if ops.is_empty() {
                // Nothing but duplicates: they wait for their originals, which are in an earlier entry.
                let decided = answer(round, Some(built.answers));
                if planted(Bug::RepeatedAnsweredAtOnce) {
                    return decided(Ok(()));
                }
                return self.group.when_decided(self.last_ticket, decided);
            }
            let proposal = Proposal {
                ops,
                lazy: built.lazy && round.puts.is_empty(),
                control: false,
            };
            Stop::Proposing.here();
            // The waiter is made when the entry is taken: a round whose term is over is computed again.
            match self.propose(proposal) {
                Ok(ticket) => {
                    Stop::Proposed.here();
                    let now_ms = self.clock.now_ms();
                    for (key, account) in &built.owners {
                        self.owners.wrote(*key, account, now_ms);
                    }
                    for key in &built.evicted {
                        self.owners.forget(key);
                        self.speculation.producers.remove(key);
                    }
                    self.speculation.producers.extend(built.producers);
                    self.speculation.next.extend(built.next);
                    let decided = answer(round, Some(built.answers));
                    if planted(Bug::AnswerUndecided) {
                        return decided(Ok(()));
                    }
                    self.group.when_decided(ticket, decided);
                    if self.owners.are_stale() {
                        let tables = self.applied.tables();
                        self.owners.retain(|key| tables.producers.contains_key(key));
                    }
                    if self.speculation.producers.len() > PRODUCERS_MAX {
                        self.block(Blocked::Settle);
                    }
                    return;
                }
                Err(ProposeError::NotLeader { .. }) => self.leader = None,
                Err(e) => return answer(round, None)(Err(e)),
            }
        }
    }

    /// Whether this node leads. In a new term, nothing is assumed of what was proposed in another.
    fn has_lead(&mut self) -> bool {
        if self.leader.as_ref().is_some_and(Leader::is_current) {
            return true;
        }
        if !planted(Bug::SpeculationSurvives) {
            self.speculation = Speculation::default();
        }
        // What was proposed in another term is applied by now, or will never be.
        self.last_ticket = 0;
        self.leader = self.group.lead();
        if self.leader.is_some() {
            self.learn_owners();
        }
        self.leader.is_some()
    }

    /// Nobody knows yet whose the producers are.
    fn learn_owners(&mut self) {
        let tables = self.applied.tables();
        let known = tables.producers.iter();
        self.owners = Owners::unknown(known.map(|(key, window)| (*key, window.last_ms)));
    }

    pub(crate) fn not_leader(&self) -> ProposeError {
        ProposeError::NotLeader {
            leader: self.group.leader().map(|(id, _)| id),
        }
    }

    fn propose(&mut self, proposal: Proposal) -> Result<u64, ProposeError> {
        let refused = self.not_leader();
        let leader = self.leader.as_mut().ok_or(refused)?;
        let ticket = leader.propose(proposal, Box::new(|_| {}))?;
        self.last_ticket = ticket;
        Ok(ticket)
    }

    /// All that was proposed is decided: makes a change on top of it.
    pub(crate) fn change(&mut self, make: MakeOps, reply: AdminReply) {
        if !self.has_lead() {
            let _ = reply.send(Err(self.not_leader().into()));
            return;
        }
        let ops = match make(&self.applied.tables(), &self.log) {
            Ok(ops) if ops.is_empty() => {
                let _ = reply.send(Ok(()));
                return;
            }
            Ok(ops) => ops,
            Err(e) => {
                let _ = reply.send(Err(e));
                return;
            }
        };
        if let Err(refused) = bytes_of(&ops) {
            let _ = reply.send(Err(refused.into()));
            return;
        }
        let proposal = Proposal {
            ops,
            lazy: false,
            control: true,
        };
        match self.propose(proposal) {
            Ok(ticket) => {
                let decided = move |r: Result<(), ProposeError>| {
                    let _ = reply.send(r.map_err(AdminError::from));
                };
                self.group.when_decided(ticket, Box::new(decided));
                // Later requests must see it.
                self.block(Blocked::Settle);
            }
            Err(e) => {
                let _ = reply.send(Err(e.into()));
            }
        }
    }
}

/// Answers each request once its entry is decided; without `answers`, with why it is not.
pub(crate) fn answer(round: Round, answers: Option<Vec<Offset>>) -> weir_replica::Decided {
    Box::new(move |result| {
        Stop::Answering.here();
        let bases = answers.unwrap_or_else(|| vec![Offset::ZERO; round.appends.len()]);
        for (append, base) in round.appends.into_iter().zip(bases) {
            let produced = Produced {
                base,
                span: append.kept.as_ref().map_or(0, Batch::span),
            };
            drop(append.permit);
            let footing = append.made.map(|made| made.footing);
            if let (Some(Footing::Step(step)), Ok(())) = (footing, &result) {
                step.commit();
            }
            let result = result.clone().map(|()| produced);
            let _ = append.reply.send(result.map_err(ProduceError::from));
        }
        for (_, reply) in round.puts {
            let _ = reply.send(result.clone().map_err(AdminError::from));
        }
    })
}
