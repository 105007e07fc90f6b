//! Who leads a group, and whether this node may serve and propose.

use crate::group::Group;
use crate::raft::shared::PROPOSAL_WAIT;
use crate::types::{Member, NodeId};
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use weir_types::planted::{Bug, planted};

/// A leader that has sent nothing for so long leads no more, for those who ask: several heartbeats, and an election.
const LEADER_SILENT: Duration = Duration::from_secs(3);

impl Group {
    /// Whether this node leads, has applied all from before its term, and has heard from most voters so lately that
    /// nobody else can have been elected: what it has applied is then the newest there is. Without an election nobody
    /// else commits, so this holds for reads too.
    pub fn is_serving(&self) -> bool {
        self.leads_within(self.0.timing.election_min)
    }

    /// Whether this node leads, and has heard from most voters in the last `patience`.
    pub(super) fn leads_within(&self, patience: Duration) -> bool {
        {
            let state = self.0.shared.lock();
            if state.leading.is_none() || state.handing_over.is_some_and(|until| Instant::now() < until) {
                return false;
            }
        }
        if self.0.shared.sole.load(Ordering::Relaxed) || planted(Bug::NoLease) {
            return true;
        }
        if self.0.shared.out.load(Ordering::Relaxed) {
            return false;
        }
        let heard = self.0.raft.as_leader().ok().and_then(|l| l.last_quorum_acked());
        heard.is_some_and(|at| at.elapsed() < patience)
    }

    /// Whether something can be proposed here: this node leads, has applied all from before its term, and has not asked another to
    /// take over. It need not have heard from most voters just now, as for reading: what a leader of yesterday proposes is not
    /// committed, and to refuse some of what comes in a row would change its order. Where most are away for good it says so.
    pub fn may_propose(&self) -> bool {
        let patience = match planted(Bug::LeaseToPropose) {
            true => self.0.timing.election_min,
            // Those that wait have been told by then that nothing is known of them.
            false => PROPOSAL_WAIT,
        };
        self.leads_within(patience)
    }

    /// Whether this node leads, and has not heard from most voters for a moment: consensus would refuse what it is given now, and
    /// with it all that follows in the term. What comes is better held until that is over ([`Group::when_heard`]).
    pub fn is_silent(&self) -> bool {
        !self.is_serving() && self.may_propose()
    }

    /// Calls `waiter` once most voters are heard again, or this node may not propose any more.
    pub fn when_heard(&self, waiter: Box<dyn FnOnce() + Send>) {
        self.0.shared.lock().silent.push(waiter);
        self.0.shared.turned.notify_one();
    }

    /// Tells those who wait to be heard, if that is over. Whether some still wait.
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

    /// The term that this node knows of.
    pub fn term(&self) -> u64 {
        self.0.raft.metrics().borrow_watched().current_term
    }

    /// Who leads, as far as is known, and how to reach it. One that has been silent for several elections does not lead: consensus
    /// keeps it in mind until there is another.
    pub fn leader(&self) -> Option<(NodeId, Member)> {
        let id = self.0.raft.metrics().borrow_watched().current_leader?;
        if id != self.node() && self.0.shared.heard_leader_ago() > LEADER_SILENT {
            return None;
        }
        let state = self.0.shared.lock();
        let member = state.members.as_ref().and_then(|m| m.get_node(&id)).cloned();
        Some((id, member.unwrap_or_default()))
    }

    /// Answers nothing for the time in which one that was asked to lead may be elected.
    pub(crate) fn hand_over(&self) {
        let until = Instant::now() + 2 * self.0.timing.election_max;
        self.0.shared.lock().handing_over = Some(until);
    }
}
