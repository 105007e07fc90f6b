//! The group's own task: leadership, timeouts, purges and unfinished changes.

use crate::group::{Group, Inner};
use crate::raft::machine::Machine;
use crate::raft::tail::STRETCH_BYTES;
use crate::types::{NodeId, Types, Vote, log_id};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::VoteRequest;
use openraft::{ChangeMembers, Raft};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use weir_log::EntryId;
use weir_types::Term;
use weir_types::limits::{RAFT_LOG_BYTES_MAX, RAFT_LOG_ENTRIES_MAX};

/// Longest time of a snapshot, a single write: a slow disk takes a while.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(10);

/// Interval of checks of waiting proposals and of the log's length.
const KEEP_EVERY: Duration = Duration::from_millis(500);

/// Interval of checks for a majority while a waiter needs a majority: part of a heartbeat.
const HEARD_POLL: Duration = Duration::from_millis(10);

/// No node's number: nodes are numbered from 1.
const NOBODY: NodeId = 0;

/// Follows leadership, fails proposals that wait too long, and purges the log.
pub(super) async fn keep(inner: std::sync::Weak<Inner>) {
    // The first channel changes with the leader only. The second has all metrics, changes with every entry,
    // and lags behind.
    let watched = |i: Arc<Inner>| {
        (
            i.raft.server_metrics(),
            i.raft.metrics(),
            Arc::clone(&i.shared.turned),
        )
    };
    let Some((mut server, mut metrics, turned)) = inner.upgrade().map(watched) else {
        return;
    };
    // A witness never stands for election; a returned node does once it has all earlier entries.
    let came_back = |i: Arc<Inner>| !i.witness && i.forgotten != EntryId::default();
    let mut waits = inner.upgrade().is_some_and(came_back);
    let mut purge_at = Instant::now();
    loop {
        // A change is under way that the first channel does not show.
        let mut more;
        let every;
        {
            let Some(inner) = inner.upgrade() else { return };
            let (term, is_whole) = {
                let (server, metrics) = (server.borrow_and_update(), metrics.borrow_and_update());
                let leads = metrics.state.is_leader();
                let is_whole = (server.state, server.vote) == (metrics.state, metrics.vote);
                (leads.then_some(Term(metrics.current_term)), is_whole)
            };
            inner.shared.follow(term);
            more = !is_whole;
            if waits && inner.store.tail().last >= inner.forgotten {
                waits = false;
                inner.raft.runtime_config().elect(true);
            }
            let last = inner.store.tail().last;
            if let Some(stands) = inner.shared.may_stand(last).filter(|_| !inner.witness && !waits) {
                inner.raft.runtime_config().elect(stands);
            }
            // Elected but useless: after a request to hand over, consensus refuses all proposals of the term,
            // even if nobody takes over.
            if let Some(term) = term.filter(|term| inner.shared.is_void(*term)) {
                step_down(&inner, term).await;
                more = true;
            }
            every = if Group(Arc::clone(&inner)).tell_heard() {
                HEARD_POLL
            } else {
                KEEP_EVERY
            };
            if term.is_some() {
                end_change(&inner);
            }
            if purge_at.elapsed() >= KEEP_EVERY {
                purge_at = Instant::now();
                purge(&inner).await;
            }
        }
        let stopped = async {
            tokio::select! {
                changed = server.changed() => changed.is_err(),
                changed = metrics.changed(), if more => changed.is_err(),
                () = turned.notified() => false,
            }
        };
        if tokio::time::timeout(every, stopped).await == Ok(true) {
            // Consensus has stopped, as after a failed write: nothing will be decided here.
            let Some(inner) = inner.upgrade() else { return };
            inner.shared.follow(None);
            inner.shared.ended.store(true, Ordering::Relaxed);
            return inner.shared.give_up();
        }
    }
}

/// Ends `term`, which this node leads. The node votes for nobody in the next term, since consensus ignores a
/// call for an election while it leads. Any node may be elected then, this node too.
async fn step_down(inner: &Inner, term: Term) {
    let last = log_id(inner.store.tail().last);
    let mut vote = VoteRequest::new(Vote::new(term.0 + 1, NOBODY), Some(last));
    // The node gives up the lead that it holds.
    vote.leadership_transfer = true;
    // Refused when an entry was added meanwhile: the next round tries again.
    let _ = inner.raft.vote(vote).await;
}

/// Ends a change of voters that an earlier leader left half-way. A change takes two entries: between them
/// majorities of both the old and the new voters must agree, so that the loss of a single node may stop the
/// group.
fn end_change(inner: &Inner) {
    let leaving: BTreeSet<NodeId> = {
        let metrics = inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let [.., before, after] = &membership.get_joint_config()[..] else {
            return;
        };
        before.difference(after).copied().collect()
    };
    // Not during a change of this node: it will end by itself.
    let Ok(one) = Arc::clone(&inner.changing).try_lock_owned() else {
        return;
    };
    let (raft, node) = (inner.raft.clone(), inner.shared.node);
    tokio::spawn(async move {
        // Removes only the nodes of the change, which openraft remembers. A leader stays a voter, and is
        // removed after a hand-over. A witness stays, as in `Group::remove`.
        let stays = leaving.iter().copied().filter(|id| *id == node);
        let change = ChangeMembers::AddVoterIds(stays.collect());
        match raft.change_membership(change, leaving.len() > 1).await {
            Ok(_) => tracing::info!("a change of the voters that another leader began has come to its end"),
            Err(error) => tracing::debug!(%error, "a change of the voters does not come to its end yet"),
        }
        drop(one);
    });
}

async fn purge(inner: &Inner) {
    let (upto, purged) = {
        let tail = inner.store.tail();
        let upto = tail.purgeable(RAFT_LOG_BYTES_MAX, RAFT_LOG_ENTRIES_MAX);
        (upto, tail.purged.index)
    };
    // Remove many headers at once.
    let step = (RAFT_LOG_ENTRIES_MAX / 8).min((STRETCH_BYTES >> 8) as u64);
    if upto < purged + step {
        return;
    }
    purge_upto(&inner.raft, upto).await;
}

/// Purges the log up to `upto`. openraft purges only entries in a snapshot; ours can be taken at any time.
pub(super) async fn purge_upto(raft: &Raft<Types, Machine>, upto: u64) {
    if raft.trigger().snapshot().await.is_err() {
        return;
    }
    let wait = raft.wait(Some(SNAPSHOT_WITHIN));
    let taken = wait.metrics(
        |m| m.snapshot.is_some_and(|id| id.index() >= upto),
        "a snapshot that covers what is purged",
    );
    if taken.await.is_ok() {
        let _ = raft.trigger().purge_log(upto).await;
    }
}

impl Group {
    /// Purges the log up to `upto`, for tests: otherwise the keeper does when the log has grown long.
    ///
    /// # Cancel safety
    /// Safe: a purge under way goes on.
    #[cfg(feature = "testing")]
    pub async fn purge(&self, upto: u64) {
        purge_upto(&self.0.raft, upto).await;
    }
}
