//! From requests to entries: everything that is computed ahead of commitment.
//!
//! [`Proposer`] is a plain state machine, from requests to at most a single entry. It owns the speculative
//! state of its term: next offsets and windows of producers. The state begins empty on top of the applied
//! state, and is discarded when the term ends. The thread around the state machine decides how long small
//! requests wait for company.

use crate::error::{AdminError, ProduceError};
use crate::propose::entry::{Context, EntryBuilder, Speculation};
use crate::propose::owners::Owners;
use crate::propose::request::{AdminReply, MakeOps, Produced, Request, Round, bytes_of};
use crate::propose::step::Footing;
use crate::state::applied::AppliedState;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use weir_log::{Log, Stop};
use weir_replica::{Group, Leader, Proposal, ProposeError};
use weir_types::limits::{ENTRY_BYTES_TARGET, PRODUCERS_MAX, REQUEST_BYTES_MAX};
use weir_types::planted::{Bug, planted};
use weir_types::{Batch, Clock, Offset};

/// Why requests wait.
pub(crate) enum Barrier {
    /// Until all proposals are decided, to make a change on top of them.
    Change { make: MakeOps, reply: AdminReply },
    /// Until all proposals are decided, since later requests must see the change, or too much is assumed.
    Settle,
    /// Until a majority is heard again: earlier proposals would be refused, but later proposals would not.
    Silence,
}

pub(crate) struct Proposer {
    pub(crate) log: Log,
    pub(crate) group: Group,
    /// None while another node leads.
    pub(crate) leader: Option<Leader>,
    pub(crate) applied: Arc<AppliedState>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Has the driver hand over [`Request::Wake`].
    pub(crate) wake: Arc<dyn Fn() + Send + Sync>,
    pub(crate) speculation: Speculation,
    /// Owners of producers, since this node leads.
    pub(crate) owners: Owners,
    /// The last proposal.
    pub(crate) last_ticket: u64,
    /// The last proposal that was waited for and is decided.
    pub(crate) settled: Arc<AtomicU64>,
    pub(crate) round: Round,
    pub(crate) barrier: Option<Barrier>,
    /// Requests behind the barrier. Bounded by the permits of requests.
    pub(crate) waiting: VecDeque<Request>,
}

impl Proposer {
    pub(crate) fn new(
        log: Log,
        group: Group,
        applied: Arc<AppliedState>,
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
            barrier: None,
            waiting,
        }
    }

    /// Adds a request to the round. Returns false for the last request.
    pub(crate) fn handle(&mut self, request: Request) -> bool {
        self.unblock();
        let leads = self.leader.as_ref().is_some_and(Leader::is_current);
        if self.barrier.is_some() && !(leads && self.group.may_propose()) {
            self.refuse_waiting();
        }
        if self.barrier.is_none() && leads && self.group.is_silent() {
            self.flush();
            self.barrier = Some(Barrier::Silence);
            let wake = Arc::clone(&self.wake);
            self.group.when_heard(Box::new(move || wake()));
        }
        match request {
            Request::Stop => return false,
            request if self.barrier.is_some() => self.waiting.push_back(request),
            request => self.take(request),
        }
        true
    }

    pub(crate) fn take(&mut self, request: Request) {
        match request {
            Request::Append(append) => {
                let bytes = append.bytes();
                if let Some(refused) = append.is_refused(bytes) {
                    // A dropped step invalidates its session.
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
                self.block(Barrier::Change { make, reply });
            }
            // Leadership is checked when proposing.
            Request::Wake | Request::Stop => {}
        }
    }

    /// Reserves `bytes` in the round, and flushes the round first if the total would exceed the limit.
    pub(crate) fn room_for(&mut self, bytes: usize) {
        if self.round.bytes + bytes > REQUEST_BYTES_MAX && !planted(Bug::NoEntryBound) {
            self.flush();
        }
        self.round.bytes += bytes;
    }

    /// Sets a barrier until all proposals are decided.
    fn block(&mut self, barrier: Barrier) {
        let (ticket, settled, wake) = (
            self.last_ticket,
            Arc::clone(&self.settled),
            Arc::clone(&self.wake),
        );
        self.barrier = Some(barrier);
        let decided = move || {
            settled.fetch_max(ticket, Ordering::AcqRel);
            wake();
        };
        self.group.when_settled(ticket, Box::new(decided));
        self.unblock();
    }

    /// Refuses the requests behind the barrier, since the term is over. Proposals of the term report by
    /// themselves.
    fn refuse_waiting(&mut self) {
        if let Some(Barrier::Change { reply, .. }) = self.barrier.take() {
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
            match &self.barrier {
                None => return,
                Some(Barrier::Silence) if self.group.is_silent() => return,
                Some(Barrier::Silence) => self.barrier = None,
                Some(Barrier::Change { .. } | Barrier::Settle) if !is_settled() => return,
                Some(Barrier::Change { .. } | Barrier::Settle) => {
                    // Nothing is in flight: the applied state is complete, and topics may have come or gone.
                    self.speculation = Speculation::default();
                    if let Some(Barrier::Change { make, reply }) = self.barrier.take() {
                        self.change(make, reply);
                    }
                }
            }
            while self.barrier.is_none()
                && let Some(request) = self.waiting.pop_front()
            {
                self.take(request);
                if self.round.bytes >= ENTRY_BYTES_TARGET {
                    self.flush();
                }
            }
        }
    }

    /// Proposes the round as an entry. After a change of term, recomputes the entry in the new term.
    pub(crate) fn flush(&mut self) {
        let mut round = std::mem::take(&mut self.round);
        // Leadership may end between the two checks, and begin again, but not for ever.
        while !round.is_empty() {
            if !(self.has_lead() && self.group.may_propose()) {
                let refused = self.not_leader();
                return answer(round, None)(Err(refused));
            }
            let built = EntryBuilder::new(self.context()).build(&round);
            for (i, error) in built.refused.into_iter().rev() {
                let _ = round.appends.remove(i).reply.send(Err(error));
            }
            if built.ops.is_empty() && built.answers.is_empty() && round.puts.is_empty() {
                return;
            }
            let mut ops = built.ops;
            ops.extend(round.puts.iter().flat_map(|(ops, _)| ops.iter().cloned()));
            if ops.is_empty() {
                // Only duplicates: they wait for their originals, which are in an earlier entry.
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
                        self.block(Barrier::Settle);
                    }
                    return;
                }
                Err(ProposeError::NotLeader { .. }) => self.leader = None,
                Err(e) => return answer(round, None)(Err(e)),
            }
        }
    }

    /// Returns true if this node leads. A new term starts without assumptions from earlier terms.
    fn has_lead(&mut self) -> bool {
        if self.leader.as_ref().is_some_and(Leader::is_current) {
            return true;
        }
        if !planted(Bug::SpeculationSurvives) {
            self.speculation = Speculation::default();
        }
        // Proposals of an earlier term are applied by now, or never will be.
        self.last_ticket = 0;
        self.leader = self.group.lead();
        if self.leader.is_some() {
            self.learn_owners();
        }
        self.leader.is_some()
    }

    /// Resets the owners of all applied producers to unknown.
    fn learn_owners(&mut self) {
        let tables = self.applied.tables();
        let known = tables.producers.iter();
        self.owners = Owners::unknown(known.map(|(key, window)| (*key, window.last_ms)));
    }

    fn context(&self) -> Context<'_> {
        Context {
            log: &self.log,
            applied: &self.applied,
            now_ms: self.clock.now_ms(),
            home: self.group.id(),
            term: self.leader.as_ref().map(Leader::term),
            speculation: &self.speculation,
            owners: &self.owners,
        }
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

    /// Makes a change on top of the applied state, after all proposals are decided.
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
                // Later requests must see the change.
                self.block(Barrier::Settle);
            }
            Err(e) => {
                let _ = reply.send(Err(e.into()));
            }
        }
    }
}

/// Returns a callback that answers each request once its entry is decided. Without `answers`, the entry was
/// not proposed.
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
