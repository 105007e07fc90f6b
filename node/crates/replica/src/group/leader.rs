//! Proposals, for the time of a term.

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

/// The right to propose under a term. Only a single holder at a time, without clones.
pub struct Leader {
    pub(super) group: Group,
    pub(super) term: Term,
}

impl Leader {
    /// Returns the term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Returns true until the term is known to be over.
    pub fn is_current(&self) -> bool {
        self.group.0.shared.lock().leading == Some(self.term)
    }

    /// Proposes the term's next entry and returns its ticket. `decided` is called when the entry is committed
    /// and applied, or when its outcome is unknown. Does not block.
    ///
    /// # Errors
    /// Fails when nothing was taken: `decided` is dropped.
    pub fn propose(&mut self, proposal: Proposal, decided: Decided) -> Result<u64, ProposeError> {
        let (inner, shared) = (&self.group.0, &self.group.0.shared);
        let bytes = proposal.ops.iter().map(Op::bytes).sum::<usize>();
        if bytes > ENTRY_BYTES_MAX && !planted(Bug::NoEntryBound) {
            // No follower would accept the entry, and a leader with such an entry could not commit.
            return Err(ProposeError::TooLarge {
                bytes,
                limit: ENTRY_BYTES_MAX,
            });
        }
        // Records in the same proposal need normal space.
        let has_records = proposal.ops.iter().any(|op| matches!(op, Op::Append { .. }));
        if !has_records && proposal.ops.iter().any(Op::gives_room) {
            inner.store.log().room_to_free(bytes as u64)?
        } else {
            inner.store.log().room_for(bytes as u64, proposal.control)?
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
            lazy: proposal.lazy && !shared.has_followers.load(Ordering::Relaxed),
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
        // The bound on proposals under way is below the channel's size: there is space.
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
    /// Returns the right to propose, if this node leads and has applied all earlier committed entries.
    pub fn lead(&self) -> Option<Leader> {
        let term = self.0.shared.lock().leading?;
        Some(Leader {
            group: self.clone(),
            term,
        })
    }

    /// Calls `waiter` once the proposal `ticket` is decided, at once if it already is.
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

    /// Calls `waiter` once all proposals up to `ticket` are decided, whatever their outcome; at once if they
    /// already are.
    pub fn when_settled(&self, ticket: u64, waiter: Box<dyn FnOnce() + Send>) {
        let settled = {
            let mut state = self.0.shared.lock();
            state.settling.push((ticket, waiter));
            state.settled()
        };
        settled.into_iter().for_each(|waiter| waiter());
    }
}
