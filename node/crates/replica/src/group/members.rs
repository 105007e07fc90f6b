//! Members of a group, and changes of members.

use crate::error::GroupError;
use crate::group::Group;
use crate::group::status::SILENT;
use crate::raft::shared::full_voters;
use crate::types::{Member, NodeId, Types};
use futures_util::future::BoxFuture;
use openraft::ChangeMembers;
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use weir_types::limits::MEMBERS_MAX;

/// Time in which a new leader hears from the live members: a few heartbeats.
const FIRST_ANSWERS: Duration = Duration::from_secs(1);

impl Group {
    /// Returns the members by number, as applied here.
    pub fn members(&self) -> BTreeMap<NodeId, Member> {
        let membership = self.shared().members();
        let nodes = membership
            .iter()
            .flat_map(|m| m.nodes().map(|(id, n)| (*id, n.clone())));
        nodes.collect()
    }

    /// Returns the voters, as applied here.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.shared()
            .members()
            .iter()
            .flat_map(|m| m.voter_ids())
            .collect()
    }

    /// Returns true during a change of voters, as far as this node knows. Majorities of the old and the new
    /// voters must agree meanwhile.
    pub fn is_changing(&self) -> bool {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().get_joint_config().len() > 1
    }

    /// Adds `node` as a learner. Returns when the change is committed. An existing member keeps its role and
    /// gets the new addresses.
    ///
    /// # Errors
    /// Fails when this node does not lead, or another change is under way.
    ///
    /// # Cancel safety
    /// A dropped change may still be committed.
    pub fn add_learner(&self, node: NodeId, member: Member) -> BoxFuture<'_, Result<(), GroupError>> {
        Box::pin(async move {
            let members = self.members();
            // A node that rejoins under another number replaces its old member.
            let is_new = members.values().all(|m| m.key != member.key);
            if members.len() >= MEMBERS_MAX && is_new {
                return Err(GroupError::Refused(format!(
                    "a site has at most {MEMBERS_MAX} nodes"
                )));
            }
            if members.contains_key(&node) {
                let nodes = BTreeMap::from([(node, member)]);
                return self.change(ChangeMembers::SetNodes(nodes)).await;
            }
            let added = self.raft().add_learner(node, member, false).await;
            added.map(drop).map_err(refused)
        })
    }

    /// Returns true when `node` should vote once it has caught up. A witness votes only beside two full
    /// voters.
    pub fn may_vote(&self, node: NodeId) -> bool {
        let members = self.shared().members();
        let is_witness = members
            .as_ref()
            .and_then(|m| m.get_node(&node))
            .is_some_and(|m| m.witness);
        let full = members.iter().flat_map(full_voters).count();
        !is_witness || full >= 2
    }

    /// Makes the learner `node` a voter.
    ///
    /// # Errors
    /// Fails when this node does not lead, when another change is under way, or when `node` is not a member.
    ///
    /// # Cancel safety
    /// A dropped change may still be committed.
    pub fn promote(&self, node: NodeId) -> BoxFuture<'_, Result<(), GroupError>> {
        Box::pin(async move { self.change(ChangeMembers::AddVoterIds([node].into())).await })
    }

    /// Removes `node`, voter or learner. A witness left with a single full voter stops voting, since it could
    /// only block that voter.
    ///
    /// # Errors
    /// Fails when this node does not lead, when another change is under way, when no full voter would be
    /// left, or when `node` is this leader: the others could elect a new leader while this node still
    /// answers.
    ///
    /// # Cancel safety
    /// A dropped change may still be committed.
    pub fn remove(&self, node: NodeId) -> BoxFuture<'_, Result<(), GroupError>> {
        Box::pin(async move {
            if node == self.node() && self.lead().is_some() {
                return Err(GroupError::Refused(format!(
                    "node {node} leads: it hands over first"
                )));
            }
            let full: BTreeSet<NodeId> = self.shared().members().iter().flat_map(full_voters).collect();
            if full == BTreeSet::from([node]) {
                let why = format!("node {node} is the only voter with records and cannot be removed");
                return Err(GroupError::Refused(why));
            }
            // A new leader has not heard from anybody yet.
            let begun = tokio::time::Instant::now();
            while let Some(why) = self.would_lose_majority(node) {
                if begun.elapsed() > FIRST_ANSWERS {
                    return Err(GroupError::Refused(why));
                }
                tokio::time::sleep(self.timing().heartbeat).await;
            }
            if self.voters().contains(&node) {
                let leave = self.leave_with(node);
                // The witness continues as a learner, and for a moment so does the node.
                let retain = leave.len() > 1;
                let leave = ChangeMembers::RemoveVoters(leave);
                let _one = self.changing().lock().await;
                let left = self.raft().change_membership(leave, retain).await;
                left.map(drop).map_err(refused)?;
            }
            if self.members().contains_key(&node) {
                self.change(ChangeMembers::RemoveNodes([node].into())).await?;
            }
            Ok(())
        })
    }

    /// Returns the voters that stop voting when `node` leaves.
    fn leave_with(&self, node: NodeId) -> BTreeSet<NodeId> {
        let full: BTreeSet<NodeId> = self.shared().members().iter().flat_map(full_voters).collect();
        let alone = full.iter().filter(|id| **id != node).count() == 1;
        let witnesses = self.voters().into_iter().filter(|id| alone && !full.contains(id));
        witnesses.chain([node]).collect()
    }

    /// Returns true when `node` is this node, or has answered this leader recently.
    fn heard_recently(&self, node: NodeId) -> bool {
        let metrics = self.raft().metrics().borrow_watched().clone();
        let heard = metrics
            .heartbeat
            .and_then(|heard| heard.get(&node).copied().flatten());
        node == self.node() || heard.is_some_and(|at| at.elapsed() < SILENT)
    }

    /// Returns the reason why the voters without `node` could not commit: too few of them answer. Such a
    /// change could neither be committed nor taken back.
    fn would_lose_majority(&self, node: NodeId) -> Option<String> {
        let voters = self.voters();
        if !voters.contains(&node) || self.lead().is_none() {
            return None;
        }
        let leave = self.leave_with(node);
        let (left, silent): (Vec<NodeId>, Vec<NodeId>) = voters
            .into_iter()
            .filter(|id| !leave.contains(id))
            .partition(|id| self.heard_recently(*id));
        let silent_ones = silent
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        (left.len() <= silent.len()).then(|| {
            format!(
                "without node {node} no majority of the others answers: node {silent_ones} is silent. Bring it back, or \
                 remove it first"
            )
        })
    }

    async fn change(&self, change: ChangeMembers<NodeId, Member>) -> Result<(), GroupError> {
        let _one = self.changing().lock().await;
        let changed = self.raft().change_membership(change, false).await;
        changed.map(drop).map_err(refused)
    }

    /// Tells the leader this node's new addresses.
    ///
    /// # Errors
    /// Fails when there is no leader, or no answer.
    ///
    /// # Cancel safety
    /// A dropped notice may have been accepted; it can be repeated.
    pub fn announce(&self, member: Member) -> BoxFuture<'_, Result<(), GroupError>> {
        Box::pin(async move {
            if self.lead().is_some() {
                return self.add_learner(self.node(), member).await;
            }
            // A node that has just started at another address has not heard of the leader, and the leader cannot
            // reach the node.
            let leader = self.leader().filter(|(id, _)| *id != self.node());
            let others = self.members().into_iter().filter(|(id, _)| *id != self.node());
            for (id, at) in leader.into_iter().chain(others) {
                if let Ok(true) = crate::group::client::announce(self, id, at, member.clone()).await {
                    return Ok(());
                }
            }
            Err(GroupError::NotLeader { leader: None })
        })
    }

    /// Asks `to` to take over the lead. Returns at once; the hand-over happens when `to` has all entries.
    /// Does nothing if `to` leads already.
    ///
    /// # Errors
    /// Fails when this node does not lead, or `to` is not a voter or is silent.
    ///
    /// # Cancel safety
    /// A dropped request may have started the hand-over.
    pub fn transfer(&self, to: NodeId) -> BoxFuture<'_, Result<(), GroupError>> {
        Box::pin(async move {
            if !self.voters().contains(&to) {
                return Err(GroupError::Refused(format!("node {to} is not a voter")));
            }
            if self.members().get(&to).is_some_and(|m| m.witness) {
                return Err(GroupError::Refused(format!(
                    "node {to} is a witness: it has no records to serve"
                )));
            }
            if self.lead().is_none() {
                return Err(GroupError::NotLeader {
                    leader: self.leader().map(|(id, _)| id),
                });
            }
            if to == self.node() {
                // Consensus would wait for the hand-over and refuse proposals meanwhile.
                return Ok(());
            }
            if !self.heard_recently(to) {
                // Nothing could be written until another election.
                return Err(GroupError::Refused(format!("node {to} does not answer")));
            }
            self.hand_over();
            let asked = self.raft().trigger().transfer_leader(to).await;
            asked.map_err(|e| GroupError::Stopped(e.to_string()))
        })
    }
}

fn refused(e: RaftError<Types, ClientWriteError<Types>>) -> GroupError {
    match e {
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
            GroupError::NotLeader { leader: to.leader_id }
        }
        RaftError::APIError(e) => GroupError::Refused(e.to_string()),
        RaftError::Fatal(e) => GroupError::Stopped(e.to_string()),
    }
}
