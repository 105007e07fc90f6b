//! Leadership of a group, and the rights to serve and to propose.

use crate::group::Group;
use crate::raft::shared::PROPOSAL_WAIT;
use crate::types::{Member, NodeId};
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use weir_types::planted::{Bug, planted};

/// Silence after which a leader no longer counts: several heartbeats and an election.
const LEADER_SILENT: Duration = Duration::from_secs(3);

impl Group {
    /// Returns true when this node leads, has applied all entries before its term, and has heard from most
    /// voters so recently that no other node can have been elected. Its applied state is then the newest,
    /// also for reads.
    pub fn is_serving(&self) -> bool {
        self.leads_within(self.0.timing.election_min)
    }

    /// Returns true when this node leads and has heard from most voters within `patience`.
    pub(super) fn leads_within(&self, patience: Duration) -> bool {
        {
            let state = self.0.shared.lock();
            if state.leading.is_none() || state.handing_over.is_some_and(|until| Instant::now() < until) {
                return false;
            }
        }
        if self.0.shared.is_only_voter.load(Ordering::Relaxed) || planted(Bug::NoLease) {
            return true;
        }
        if self.0.shared.is_not_voter.load(Ordering::Relaxed) {
            return false;
        }
        let heard = self.0.raft.as_leader().ok().and_then(|l| l.last_quorum_acked());
        heard.is_some_and(|at| at.elapsed() < patience)
    }

    /// Returns true when this node leads, has applied all entries before its term, and is not handing over.
    /// In contrast to [`Group::is_serving`] a short silence of the voters is tolerated: an outdated leader
    /// commits nothing, and refusals in the middle of a sequence would change its order. After a long silence
    /// the answer is false.
    pub fn may_propose(&self) -> bool {
        let patience = match planted(Bug::LeaseToPropose) {
            true => self.0.timing.election_min,
            // By then the waiting proposals have been answered with an unknown outcome.
            false => PROPOSAL_WAIT,
        };
        self.leads_within(patience)
    }

    /// Returns true when this node leads but has not heard from most voters for a moment. Consensus would
    /// refuse proposals now, and the rest of the term with them. Hold proposals until [`Group::when_heard`].
    pub fn is_silent(&self) -> bool {
        !self.is_serving() && self.may_propose()
    }

    /// Calls `waiter` once most voters are heard again, or once this node may not propose any more.
    pub fn when_heard(&self, waiter: Box<dyn FnOnce() + Send>) {
        self.0.shared.lock().silent.push(waiter);
        self.0.shared.turned.notify_one();
    }

    /// Calls the waiters of [`Group::when_heard`] when the silence is over. Returns true when some still
    /// wait.
    pub(super) fn tell_heard(&self) -> bool {
        if self.0.shared.lock().silent.is_empty() {
            return false;
        }
        if self.is_silent() {
            return true;
        }
        let waiters = std::mem::take(&mut self.0.shared.lock().silent);
        waiters.into_iter().for_each(|waiter| waiter());
        false
    }

    /// Returns the newest known term.
    pub fn term(&self) -> u64 {
        self.0.raft.metrics().borrow_watched().current_term
    }

    /// Returns the leader, as far as known, and its addresses. A leader that was silent for several elections
    /// does not count, although consensus remembers it.
    pub fn leader(&self) -> Option<(NodeId, Member)> {
        let id = self.0.raft.metrics().borrow_watched().current_leader?;
        if id != self.node() && self.0.shared.heard_leader_ago() > LEADER_SILENT {
            return None;
        }
        let state = self.0.shared.lock();
        let member = state.members.as_ref().and_then(|m| m.get_node(&id)).cloned();
        Some((id, member.unwrap_or_default()))
    }

    /// Stops serving while the node that was asked to lead may be elected.
    pub(crate) fn hand_over(&self) {
        let until = Instant::now() + 2 * self.0.timing.election_max;
        self.0.shared.lock().handing_over = Some(until);
    }
}
