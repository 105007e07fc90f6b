//! One replica group.

use crate::{CommitRule, Decider, ProposeError};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use weir_log::{AppendError, Entry, EntryHeader, Log, Op};
use weir_types::{GroupId, Term};

/// Called once with what became of an entry.
pub type Decided = Box<dyn FnOnce(Result<u64, ProposeError>) + Send>;

/// What committed entries change.
pub trait StateMachine: Send + Sync + 'static {
    /// An entry is committed and readable. Called in order, before its waiters are told; must not block.
    fn apply(&self, header: &EntryHeader);
    /// The term is over: what was computed ahead of commitment is void. Call [`Group::lead`] for the next one.
    fn stepped_down(&self);
}

/// What to propose.
pub struct Proposal {
    /// Effects, all or none of them.
    pub ops: Vec<Op>,
    /// May be acknowledged before it is synced.
    pub lazy: bool,
    /// May use part of the disk's reserve: frees space, or keeps the node in order.
    pub control: bool,
}

/// A group that is open. Clones are handles to the same one.
#[derive(Clone)]
pub struct Group(Arc<Shared>);

pub(crate) struct Shared {
    id: GroupId,
    log: Log,
    rule: Arc<dyn CommitRule>,
    machine: Arc<dyn StateMachine>,
    state: Mutex<State>,
}

struct State {
    term: Term,
    last: u64,
    committed: u64,
    pending: VecDeque<Pending>,
    /// Set when the term is over: entries from here on are to be truncated.
    discard_from: Option<u64>,
}

struct Pending {
    index: u64,
    header: Arc<EntryHeader>,
    waiters: Vec<Decided>,
}

impl Group {
    /// The group `id` over `log`, whose entries up to `last` are committed and applied.
    pub fn open(
        id: GroupId,
        log: Log,
        last: u64,
        rule: Arc<dyn CommitRule>,
        machine: Arc<dyn StateMachine>,
    ) -> Self {
        let state = State {
            term: Term(0),
            last,
            committed: last,
            pending: VecDeque::new(),
            discard_from: Some(last + 1),
        };
        Self(Arc::new(Shared {
            id,
            log,
            rule,
            machine,
            state: Mutex::new(state),
        }))
    }

    /// Begins the next term: truncates what the last one left undecided, tells those who waited for it, and returns
    /// the only handle that may propose. Blocks for the truncation.
    ///
    /// # Errors
    /// When the log stopped.
    pub fn lead(&self) -> Result<Leader, ProposeError> {
        let (from, discarded) = {
            let mut state = self.0.lock();
            let from = state
                .discard_from
                .unwrap_or(state.committed + 1)
                .max(state.committed + 1);
            state.discard_from = Some(from);
            let keep = state.pending.iter().take_while(|p| p.index < from).count();
            let discarded: Vec<Pending> = state.pending.drain(keep..).collect();
            (from, discarded)
        };
        if !discarded.is_empty() {
            let (done, truncated) = mpsc::channel();
            self.0
                .log
                .truncate(self.0.id, from, move |r| done.send(r).unwrap_or_default())?;
            truncated.recv().map_err(|_| AppendError::Closed)??;
        }
        let term = {
            let mut state = self.0.lock();
            state.term = Term(state.term.0 + 1);
            state.last = from - 1;
            state.discard_from = None;
            state.term
        };
        // Only now is it certain that nothing of them is left.
        for waiter in discarded.into_iter().flat_map(|p| p.waiters) {
            waiter(Err(ProposeError::Discarded));
        }
        Ok(Leader {
            group: self.clone(),
            term,
        })
    }

    /// Calls `waiter` once the entry `index` of the current term is decided; at once if it is.
    pub fn when_committed(&self, index: u64, waiter: Decided) {
        let mut state = self.0.lock();
        match state.pending.iter_mut().find(|p| p.index == index) {
            Some(pending) => pending.waiters.push(waiter),
            None => {
                let committed = state.committed >= index;
                drop(state);
                let stopped = self.0.log.poisoned().map(AppendError::Poisoned);
                waiter(match stopped {
                    _ if committed => Ok(index),
                    Some(e) => Err(e.into()),
                    None => Err(ProposeError::Discarded),
                });
            }
        }
    }

    /// Last committed entry.
    pub fn committed(&self) -> u64 {
        self.0.lock().committed
    }
}

/// The right to propose under one term. There is one at a time, and it is not cloned: entries reach the log in the
/// order of their indexes because one thread hands them over.
pub struct Leader {
    group: Group,
    term: Term,
}

impl Leader {
    /// Takes `proposal` as the next entry and returns its index; `decided` is called when it is committed (after its
    /// effects) or will never be. Blocks while the writer's queue is full.
    ///
    /// # Errors
    /// When nothing was taken; `decided` is then dropped.
    pub fn propose(&mut self, proposal: Proposal, decided: Decided) -> Result<u64, ProposeError> {
        let shared = &self.group.0;
        let entry = {
            let mut state = shared.lock();
            if state.term != self.term || state.discard_from.is_some() {
                return Err(ProposeError::Fenced);
            }
            let index = state.last + 1;
            let Proposal { ops, lazy, .. } = proposal;
            let entry = Entry {
                group: shared.id,
                index,
                term: self.term,
                lazy,
                ops,
            };
            state.last = index;
            let header = Arc::new(entry.header());
            state.pending.push_back(Pending {
                index,
                header,
                waiters: vec![decided],
            });
            entry
        };
        // Not under the lock: the writer takes it to decide, and must be free to make room in its queue.
        let index = entry.index;
        let (term, weak) = (self.term, Arc::downgrade(shared));
        let taken = shared.log.append(entry, proposal.control, move |result| {
            if let Some(shared) = weak.upgrade() {
                shared.flushed(term, index, result);
            }
        });
        if let Err(e) = taken {
            let mut state = shared.lock();
            state.pending.pop_back_if(|p| p.index == index);
            state.last = index - 1;
            return Err(e.into());
        }
        Ok(index)
    }

    /// Its term.
    pub fn term(&self) -> Term {
        self.term
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flushed(self: &Arc<Self>, term: Term, index: u64, result: Result<(), AppendError>) {
        match result {
            Ok(()) => self.rule.flushed(term, index, &Decider(Arc::downgrade(self))),
            Err(e) => {
                // What was written and what was not is unknown for all that is still undecided.
                let pending: Vec<Pending> = self.lock().pending.drain(..).collect();
                for waiter in pending.into_iter().flat_map(|p| p.waiters) {
                    waiter(Err(e.clone().into()));
                }
            }
        }
    }

    pub(crate) fn commit(&self, term: Term, index: u64) {
        let decided: Vec<Pending> = {
            let mut state = self.lock();
            if state.term != term || state.discard_from.is_some() {
                return;
            }
            let n = state.pending.iter().take_while(|p| p.index <= index).count();
            let decided: Vec<Pending> = state.pending.drain(..n).collect();
            if let Some(last) = decided.last() {
                state.committed = last.index;
            }
            // Applied under the lock: effects become visible in the order of the entries whoever decides.
            for pending in &decided {
                self.log.apply(Arc::clone(&pending.header));
                self.machine.apply(&pending.header);
            }
            decided
        };
        for pending in decided {
            for waiter in pending.waiters {
                waiter(Ok(pending.index));
            }
        }
    }

    pub(crate) fn step_down(&self, term: Term, from: u64) {
        {
            let mut state = self.lock();
            if state.term != term || state.discard_from.is_some() {
                return;
            }
            state.discard_from = Some(from);
        }
        self.machine.stepped_down();
    }
}
