//! Proposing, for as long as a term lasts.

use crate::error::ProposeError;
use crate::group::{Group, Proposal};
use crate::raft::shared::{Decided, Pending};
use crate::types::{Command, Reply, Types};
use futures_util::FutureExt;
use openraft::raft::ClientWriteResult;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::Instant;
use weir_log::{AppendError, Op};
use weir_types::Term;
use weir_types::limits::ENTRY_BYTES_MAX;
use weir_types::planted::{Bug, planted};

/// The right to propose under one term. There is one at a time, and it is not cloned.
pub struct Leader {
    pub(super) group: Group,
    pub(super) term: Term,
}

impl Leader {
    /// Its term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Whether the term is not known to be over.
    pub fn is_current(&self) -> bool {
        self.group.0.shared.lock().leading == Some(self.term)
    }

    /// Takes `proposal` as the term's next entry and returns its ticket; `decided` is called when it is committed
    /// (after its effects), or when it is unknown whether it will be. Does not block.
    ///
    /// # Errors
    /// When nothing was taken; `decided` is then dropped.
    pub fn propose(&mut self, proposal: Proposal, decided: Decided) -> Result<u64, ProposeError> {
        let (inner, shared) = (&self.group.0, &self.group.0.shared);
        let bytes = proposal.ops.iter().map(Op::bytes).sum::<usize>();
        if bytes > ENTRY_BYTES_MAX && !planted(Bug::NoEntryBound) {
            // No follower would take it, and who leads with it in its log leads in vain.
            return Err(ProposeError::TooLarge {
                bytes,
                limit: ENTRY_BYTES_MAX,
            });
        }
        // Records beside it do not come in with it.
        let has_records = proposal.ops.iter().any(|op| matches!(op, Op::Append { .. }));
        match !has_records && proposal.ops.iter().any(Op::gives_room) {
            true => inner.store.log().room_to_free(bytes as u64)?,
            false => inner.store.log().room_for(bytes as u64, proposal.control)?,
        }
        if let Some(reason) = inner.store.log().poisoned() {
            return Err(AppendError::Poisoned(reason).into());
        }
        let ticket = {
            let mut state = shared.lock();
            if state.leading != Some(self.term) {
                return Err(self.not_leader());
            }
            state.last_ticket += 1;
            let pending = Pending {
                waiters: vec![decided],
                since: Instant::now(),
            };
            let ticket = state.last_ticket;
            state.pending.insert(ticket, pending);
            ticket
        };
        let command = Command {
            ops: proposal.ops.into(),
            lazy: proposal.lazy && !shared.many.load(Ordering::Relaxed),
        };
        let (weak, term) = (Arc::downgrade(shared), self.term);
        let reply = Reply(Box::new(move |result: ClientWriteResult<Types>| {
            if let Some(shared) = weak.upgrade() {
                shared.decided(term, ticket, result);
            }
        }));
        let write = inner
            .raft
            .write(command)
            .with_leader(self.term.0)
            .responder(reply);
        // What may be under way is bounded below the size of the channel: it has room.
        match write.into_future().now_or_never() {
            Some(Ok(())) => Ok(ticket),
            _ => {
                shared.lock().pending.remove(&ticket);
                Err(AppendError::Closed.into())
            }
        }
    }

    fn not_leader(&self) -> ProposeError {
        ProposeError::NotLeader {
            leader: self.group.leader().map(|(id, _)| id),
        }
    }
}

impl Group {
    /// The right to propose, if this node leads and has applied all that was committed before its term.
    pub fn lead(&self) -> Option<Leader> {
        let term = self.0.shared.lock().leading?;
        Some(Leader {
            group: self.clone(),
            term,
        })
    }

    /// Calls `waiter` once the proposal `ticket` is decided; at once if it is.
    pub fn when_decided(&self, ticket: u64, waiter: Decided) {
        let mut state = self.0.shared.lock();
        if let Some(pending) = state.pending.get_mut(&ticket) {
            pending.waiters.push(waiter);
            return;
        }
        let committed = ticket <= state.committed;
        drop(state);
        waiter(if committed {
            Ok(())
        } else {
            Err(ProposeError::Unknown)
        });
    }

    /// Calls `waiter` once no proposal up to `ticket` is undecided, whatever became of them; at once if none is.
    pub fn when_settled(&self, ticket: u64, waiter: Box<dyn FnOnce() + Send>) {
        let settled = {
            let mut state = self.0.shared.lock();
            state.settling.push((ticket, waiter));
            state.settled()
        };
        settled.into_iter().for_each(|waiter| waiter());
    }
}
