//! State that the handle of a group shares with consensus and with the state machine.

use crate::error::ProposeError;
use crate::types::{Membership, NodeId, Types};
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;
use weir_log::{AppendError, EntryHeader, EntryId};
use weir_types::Term;
use weir_types::planted::{Bug, planted};
use weir_types::sync::Mutex;

/// Called once with the outcome of a proposal.
pub type Decided = Box<dyn FnOnce(Result<(), ProposeError>) + Send>;

/// The state changed by committed entries. Calls come from a single task and must not block.
pub trait StateMachine: Send + Sync + 'static {
    /// Applies a committed and readable entry. Called in order, before the entry's waiters.
    ///
    /// # Errors
    /// Returns words about contents that this release does not understand: the group stops rather than skip
    /// them.
    fn apply(&self, header: &EntryHeader) -> Result<(), String>;
    /// This node leads from now on, with everything before its term applied. `Group::lead` gives the right to
    /// propose.
    fn leading(&self);
    /// The term is over: results computed ahead of commitment are void.
    fn stepped_down(&self);
    /// A snapshot of another node has replaced the state, which is in the log's rows.
    fn replaced(&self);
}

/// Last index that each node has confirmed to a leader with a witness.
pub(crate) type Confirmed = BTreeMap<NodeId, u64>;

/// Validity of a member's refusal, in which the member is asked several times.
const REFUSES_FOR: Duration = Duration::from_secs(2);

/// State shared by the handle and the state machine.
pub(crate) struct Shared {
    pub(crate) machine: Arc<dyn StateMachine>,
    pub(crate) node: NodeId,
    /// Other nodes have the group's log, too, or will.
    pub(crate) has_followers: AtomicBool,
    pub(crate) has_witness: AtomicBool,
    /// This node is the only voter: no other node can be elected.
    pub(crate) is_only_voter: AtomicBool,
    /// This node is not a voter: other nodes can be elected at any time.
    pub(crate) is_not_voter: AtomicBool,
    /// Time of the leader's last message, in milliseconds since `begun`.
    pub(crate) heard_leader: AtomicU64,
    pub(crate) begun: Instant,
    /// Consensus has ended.
    pub(crate) ended: AtomicBool,
    /// The leader's entries were refused for lack of disk space.
    pub(crate) is_disk_full: AtomicBool,
    /// Maintained while there is a witness, which gets entries after the others.
    pub(crate) confirmed: tokio::sync::watch::Sender<Confirmed>,
    /// Signals that the right to propose may have changed.
    pub(crate) turned: Arc<tokio::sync::Notify>,
    pub(crate) state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    /// The last term that began here: its first entry is applied.
    pub(crate) began: Term,
    /// The term in which this node may propose.
    pub(crate) leading: Option<Term>,
    /// An entry too large for any message: a leader with this entry could not commit.
    pub(crate) unsendable: Option<EntryId>,
    /// A term with a refused proposal that others were computed on: nothing more is proposed in the term.
    pub(crate) void: Option<Term>,
    /// End of a hand-over: until then another node may be elected, so that this node serves nothing.
    pub(crate) handing_over: Option<Instant>,
    /// Last ticket of a proposal of this node, over all terms.
    pub(crate) last_ticket: u64,
    /// Last proposal known to be committed.
    pub(crate) committed: u64,
    pub(crate) pending: BTreeMap<u64, Pending>,
    /// Called when no proposal up to a ticket is undecided.
    pub(crate) settling: Vec<(u64, Settled)>,
    /// Called when most voters are heard again, or the lead is lost.
    pub(crate) silent: Vec<Settled>,
    pub(crate) members: Option<Membership>,
    /// Members that refuse entries: time and reason of the last refusal, a single entry per member.
    pub(crate) refused: BTreeMap<NodeId, (Instant, String)>,
}

pub(crate) type Settled = Box<dyn FnOnce() + Send>;

impl State {
    /// Removes and returns the waiters whose proposals are all decided.
    pub(crate) fn settled(&mut self) -> Vec<Settled> {
        let first = self
            .pending
            .first_key_value()
            .map_or(u64::MAX, |(ticket, _)| *ticket);
        let (done, rest) = std::mem::take(&mut self.settling)
            .into_iter()
            .partition(|(upto, _)| *upto < first);
        self.settling = rest;
        done.into_iter()
            .map(|(_, waiter): (u64, Settled)| waiter)
            .collect()
    }
}

/// An undecided proposal. It stays without waiters, too: later computations must not take it for void.
pub(crate) struct Pending {
    pub(crate) waiters: Vec<Decided>,
    pub(crate) since: Instant,
}

/// Longest wait for a decision before waiters get an unknown outcome: below the 30 s of a Kafka client.
pub(crate) const PROPOSAL_WAIT: Duration = Duration::from_secs(10);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Notes that the first entry of a term is applied. If the term is this node's, the node leads.
    pub(crate) fn began(&self, term: Term) {
        self.lock().began = term;
        self.turned.notify_one();
    }

    pub(crate) fn set_members(&self, membership: &Membership) {
        self.has_followers
            .store(membership.nodes().count() > 1, Ordering::Relaxed);
        self.is_only_voter
            .store(membership.voter_ids().eq([self.node]), Ordering::Relaxed);
        let witness = membership.nodes().any(|(_, member)| member.witness);
        self.has_witness.store(witness, Ordering::Relaxed);
        self.is_not_voter.store(
            !membership.voter_ids().any(|id| id == self.node),
            Ordering::Relaxed,
        );
        self.lock().members = Some(membership.clone());
    }

    /// Notes a message of the leader.
    pub(crate) fn hear_leader(&self) {
        let now = self.begun.elapsed().as_millis() as u64;
        self.heard_leader.store(now, Ordering::Relaxed);
    }

    pub(crate) fn heard_leader_ago(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_leader.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(heard)
    }

    /// Notes that a member has confirmed the entries up to `index`.
    pub(crate) fn has_confirmed(&self, node: NodeId, index: u64) {
        if self.has_witness.load(Ordering::Relaxed) {
            self.confirmed.send_modify(|confirmed| {
                confirmed.insert(node, index);
            });
        }
    }

    pub(crate) fn confirmed(&self) -> tokio::sync::watch::Receiver<Confirmed> {
        self.confirmed.subscribe()
    }

    /// Returns the other voters that keep records.
    pub(crate) fn other_full_voters(&self) -> BTreeSet<NodeId> {
        let state = self.lock();
        let full = state.members.iter().flat_map(full_voters);
        full.filter(|id| *id != self.node).collect()
    }

    /// Notes that a member refused entries.
    pub(crate) fn refused(&self, node: NodeId, why: &str) {
        let mut state = self.lock();
        state.refused.insert(node, (Instant::now(), why.to_owned()));
        let State { refused, members, .. } = &mut *state;
        refused.retain(|id, _| members.as_ref().is_none_or(|m| m.get_node(id).is_some()));
    }

    /// Returns the reason of a member's refusal within the last [`REFUSES_FOR`].
    pub(crate) fn refuses(&self, node: NodeId) -> Option<String> {
        let state = self.lock();
        let (_, why) = state
            .refused
            .get(&node)
            .filter(|(at, _)| at.elapsed() < REFUSES_FOR)?;
        Some(why.clone())
    }

    /// Logs the begin and the end of a lack of disk space, once each.
    pub(crate) fn tell_of_room(&self, full: Option<&AppendError>) {
        if self.is_disk_full.load(Ordering::Relaxed) == full.is_some() {
            return;
        }
        self.is_disk_full.store(full.is_some(), Ordering::Relaxed);
        match full {
            Some(error) => {
                tracing::warn!(%error, "what the leader sends is not taken; this node falls behind")
            }
            None => tracing::info!("there is room again for what the leader sends"),
        }
    }

    /// Handles an entry that is too large for any message. This node stops leading, and does not stand until
    /// the entry is gone. A single node continues alone.
    pub(crate) fn cannot_send(&self, entry: EntryId, bytes: usize) {
        let sole = self.is_only_voter.load(Ordering::Relaxed);
        tracing::error!(
            index = entry.index,
            bytes,
            "an entry is too large to be sent to other nodes{}",
            if sole { "" } else { ": another node has to lead" }
        );
        if sole {
            return;
        }
        let mut state = self.lock();
        state.unsendable = Some(entry);
        state.void = state.void.max(state.leading);
        self.turned.notify_one();
    }

    /// Returns true or false when this node's right to stand for election changes.
    pub(crate) fn may_stand(&self, last: EntryId) -> Option<bool> {
        let mut state = self.lock();
        let entry = state.unsendable?;
        // Another leader has replaced the entry, or has replicated it.
        let is_gone = last.index < entry.index || last.term > entry.term;
        if is_gone {
            state.unsendable = None;
        }
        Some(is_gone)
    }

    pub(crate) fn members(&self) -> Option<Membership> {
        self.lock().members.clone()
    }

    pub(crate) fn decided(&self, term: Term, ticket: u64, result: ClientWriteResult<Types>) {
        let result = match result {
            Ok(_) => Ok(()),
            // Not even appended.
            Err(ClientWriteError::ForwardToLeader(to)) => {
                Err(ProposeError::NotLeader { leader: to.leader_id })
            }
            Err(_) if planted(Bug::TakenBackIsOk) => Ok(()),
            // Removed here, but a later leader may still have the entry: it may yet be committed.
            Err(_) => Err(ProposeError::Unknown),
        };
        let (pending, settled, stepped_down) = {
            let mut state = self.lock();
            let mut stepped_down = false;
            match &result {
                Ok(()) => state.committed = state.committed.max(ticket),
                // Later proposals may depend on this one, and must not follow.
                Err(_) => {
                    state.void = state.void.max(Some(term));
                    stepped_down = state.leading.take_if(|t| *t <= term).is_some();
                    self.turned.notify_one();
                }
            }
            let pending = state.pending.remove(&ticket);
            (pending, state.settled(), stepped_down)
        };
        for waiter in pending.into_iter().flat_map(|p| p.waiters) {
            waiter(result.clone());
        }
        settled.into_iter().for_each(|waiter| waiter());
        if stepped_down {
            self.machine.stepped_down();
        }
    }

    /// Answers all waiters with an unknown outcome.
    pub(crate) fn give_up(&self) {
        let (left, settling) = {
            let mut state = self.lock();
            let mut settling = std::mem::take(&mut state.settling);
            settling.extend(
                std::mem::take(&mut state.silent)
                    .into_iter()
                    .map(|waiter| (0, waiter)),
            );
            (std::mem::take(&mut state.pending), settling)
        };
        for waiter in left.into_values().flat_map(|p| p.waiters) {
            waiter(Err(ProposeError::Unknown));
        }
        settling.into_iter().for_each(|(_, waiter)| waiter());
    }

    /// Returns true when this node leads `term` but may propose nothing more in it.
    pub(crate) fn is_void(&self, term: Term) -> bool {
        self.lock().void >= Some(term)
    }

    /// Follows openraft's report of the leader.
    pub(crate) fn follow(&self, leading: Option<Term>) {
        let (before, after, overdue) = {
            let mut state = self.lock();
            let before = state.leading;
            let began = |term: Term| state.began >= term || planted(Bug::LeadBeforeApplied);
            let leading = leading.filter(|term| began(*term) && state.void < Some(*term));
            state.leading = leading;
            let now = Instant::now();
            let mut overdue = Vec::new();
            for pending in state.pending.values_mut() {
                if now.duration_since(pending.since) <= PROPOSAL_WAIT {
                    break;
                }
                overdue.append(&mut pending.waiters);
            }
            (before, leading, overdue)
        };
        if before.is_some() && before != after {
            tracing::info!("this node does not lead any more");
            self.machine.stepped_down();
        }
        if let Some(term) = after.filter(|_| before != after) {
            tracing::info!(term = term.0, "this node leads");
            // Earlier confirmations may have been taken back since.
            self.confirmed.send_modify(Confirmed::clear);
            self.machine.leading();
        }
        for waiter in overdue {
            waiter(Err(ProposeError::Unknown));
        }
    }
}

/// Returns the voters that keep records.
pub(crate) fn full_voters(members: &Membership) -> impl Iterator<Item = NodeId> + '_ {
    let full = |id: &NodeId| members.get_node(id).is_some_and(|m| !m.witness);
    members.voter_ids().filter(full)
}
