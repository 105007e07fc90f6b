//! What the handle of a group shares with consensus and with the state machine.

use crate::error::ProposeError;
use crate::types::{Membership, NodeId, Types};
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use weir_log::{AppendError, EntryHeader, EntryId};
use weir_types::Term;
use weir_types::planted::{Bug, planted};

/// Called once with what became of a proposal.
pub type Decided = Box<dyn FnOnce(Result<(), ProposeError>) + Send>;

/// What committed entries change. Calls come from one task at a time and must not block.
pub trait StateMachine: Send + Sync + 'static {
    /// An entry is committed and readable. Called in order, before its waiters are told.
    ///
    /// # Errors
    /// In words, when it says what this release does not understand: the group stops, since it would go on without.
    fn apply(&self, header: &EntryHeader) -> Result<(), String>;
    /// This node leads from now on, and all that was committed before is applied: [`Group::lead`] gives the right to
    /// propose.
    fn leading(&self);
    /// The term is over: what was computed ahead of commitment is void.
    fn stepped_down(&self);
    /// All of the state was replaced by another node's: it is in the log's rows.
    fn replaced(&self);
}

/// How far each node's log is confirmed to a leader with a witness.
pub(crate) type Confirmed = BTreeMap<NodeId, u64>;

/// A member that takes nothing is asked again several times in this.
const REFUSES_FOR: Duration = Duration::from_secs(2);

/// What the handle and the state machine share.
pub(crate) struct Shared {
    pub(crate) machine: Arc<dyn StateMachine>,
    pub(crate) node: NodeId,
    /// More than one node has the group's log, or will.
    pub(crate) many: AtomicBool,
    pub(crate) has_witness: AtomicBool,
    /// This node is the only voter: nobody else can be elected, whether others are heard or not.
    pub(crate) sole: AtomicBool,
    /// This node is no voter: others can be elected, whoever is heard.
    pub(crate) out: AtomicBool,
    /// When a leader last sent something, in milliseconds since `begun`.
    pub(crate) heard_leader: AtomicU64,
    pub(crate) begun: Instant,
    /// Consensus is not there any more.
    pub(crate) ended: AtomicBool,
    /// What the leader sent was refused for want of room.
    pub(crate) full: AtomicBool,
    /// Kept while there is a witness, which comes after the others.
    pub(crate) confirmed: tokio::sync::watch::Sender<Confirmed>,
    /// Whether this node may propose is to be looked at again.
    pub(crate) turned: Arc<tokio::sync::Notify>,
    pub(crate) state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    /// The last term that began here: its first entry is applied.
    pub(crate) began: Term,
    /// The term in which this node may propose.
    pub(crate) leading: Option<Term>,
    /// An entry that no follower can be sent: whoever has it in its log would lead in vain.
    pub(crate) unsendable: Option<EntryId>,
    /// A term in which something was refused after others had been computed on top of it: nothing more is proposed in it.
    pub(crate) void: Option<Term>,
    /// Another was asked to lead: until then this node answers nothing, since that one may be elected any moment.
    pub(crate) handing_over: Option<Instant>,
    /// Numbers proposals of this node, over all terms.
    pub(crate) last_ticket: u64,
    /// The last proposal that is known to be committed.
    pub(crate) committed: u64,
    pub(crate) pending: BTreeMap<u64, Pending>,
    /// Called when no proposal up to a ticket is undecided.
    pub(crate) settling: Vec<(u64, Settled)>,
    /// Called when this node is heard again, or leads no more.
    pub(crate) silent: Vec<Settled>,
    pub(crate) members: Option<Membership>,
    /// Members that would not take entries: when they last said so, and why. One for each, however often it is asked.
    pub(crate) refused: BTreeMap<NodeId, (Instant, String)>,
}

pub(crate) type Settled = Box<dyn FnOnce() + Send>;

impl State {
    /// Those whose proposals are all decided.
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

/// A proposal that is not decided. It stays, also when nobody waits for it any more: whatever is computed next must not
/// take it for void.
pub(crate) struct Pending {
    pub(crate) waiters: Vec<Decided>,
    pub(crate) since: Instant,
}

/// A proposal that is not decided within this time has an unknown outcome for those who wait: below the 30 s that a
/// Kafka client waits.
pub(crate) const PROPOSAL_WAIT: Duration = Duration::from_secs(10);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first entry of a term is applied. If it is this node's, it leads.
    pub(crate) fn began(&self, term: Term) {
        self.lock().began = term;
        self.turned.notify_one();
    }

    pub(crate) fn set_members(&self, membership: &Membership) {
        self.many.store(membership.nodes().count() > 1, Ordering::Relaxed);
        self.sole
            .store(membership.voter_ids().eq([self.node]), Ordering::Relaxed);
        let witness = membership.nodes().any(|(_, member)| member.witness);
        self.has_witness.store(witness, Ordering::Relaxed);
        self.out.store(
            !membership.voter_ids().any(|id| id == self.node),
            Ordering::Relaxed,
        );
        self.lock().members = Some(membership.clone());
    }

    /// A leader has sent something.
    pub(crate) fn hear_leader(&self) {
        let now = self.begun.elapsed().as_millis() as u64;
        self.heard_leader.store(now, Ordering::Relaxed);
    }

    pub(crate) fn heard_leader_ago(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_leader.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(heard)
    }

    /// A member has confirmed the entries up to `index`.
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

    /// Voters, other than this node, that keep records.
    pub(crate) fn other_full_voters(&self) -> BTreeSet<NodeId> {
        let state = self.lock();
        let full = state.members.iter().flat_map(full_voters);
        full.filter(|id| *id != self.node).collect()
    }

    /// A member did not take what it was sent.
    pub(crate) fn refused(&self, node: NodeId, why: &str) {
        let mut state = self.lock();
        state.refused.insert(node, (Instant::now(), why.to_owned()));
        let State { refused, members, .. } = &mut *state;
        refused.retain(|id, _| members.as_ref().is_none_or(|m| m.get_node(id).is_some()));
    }

    /// Why a member takes nothing, if it said so in the last [`REFUSES_FOR`].
    pub(crate) fn refuses(&self, node: NodeId) -> Option<String> {
        let state = self.lock();
        let (_, why) = state
            .refused
            .get(&node)
            .filter(|(at, _)| at.elapsed() < REFUSES_FOR)?;
        Some(why.clone())
    }

    /// Says once when there is no room for what the leader sends, and when there is again.
    pub(crate) fn tell_of_room(&self, full: Option<&AppendError>) {
        if self.full.load(Ordering::Relaxed) == full.is_some() {
            return;
        }
        self.full.store(full.is_some(), Ordering::Relaxed);
        match full {
            Some(error) => {
                tracing::warn!(%error, "what the leader sends is not taken; this node falls behind")
            }
            None => tracing::info!("there is room again for what the leader sends"),
        }
    }

    /// The log goes on with an entry that is too large for any message: this node leads no longer, and does not stand until the
    /// entry is gone. Where there is nobody else it goes on alone.
    pub(crate) fn cannot_send(&self, entry: EntryId, bytes: usize) {
        let sole = self.sole.load(Ordering::Relaxed);
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

    /// Whether this node may stand for election, if that is to be said anew.
    pub(crate) fn may_stand(&self, last: EntryId) -> Option<bool> {
        let mut state = self.lock();
        let entry = state.unsendable?;
        // Another leader has put something else in its place, or has got it to the others.
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
            // Taken back here, and perhaps still with another that will lead: it may yet be committed.
            Err(_) => Err(ProposeError::Unknown),
        };
        let (pending, settled, stepped_down) = {
            let mut state = self.lock();
            let mut stepped_down = false;
            match &result {
                Ok(()) => state.committed = state.committed.max(ticket),
                // Others may have been computed on top of it, and must not follow.
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

    /// Tells all who wait that they will not hear what became of their proposals.
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

    /// Whether `term` is this node's, and nothing more is proposed in it.
    pub(crate) fn is_void(&self, term: Term) -> bool {
        self.lock().void >= Some(term)
    }

    /// Follows what openraft says of who leads.
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
            // What was confirmed to it earlier may have been taken back since.
            self.confirmed.send_modify(Confirmed::clear);
            self.machine.leading();
        }
        for waiter in overdue {
            waiter(Err(ProposeError::Unknown));
        }
    }
}

/// Voters that keep records.
pub(crate) fn full_voters(members: &Membership) -> impl Iterator<Item = NodeId> + '_ {
    let full = |id: &NodeId| members.get_node(id).is_some_and(|m| !m.witness);
    members.voter_ids().filter(full)
}
