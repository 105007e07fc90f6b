//! Who belongs to a group: adding, promoting, removing, and how each is doing.

use crate::error::GroupError;
use crate::group::{Group, full_voters};
use crate::raft::{Member, NodeId, Types, entry_id};
use crate::starts::{Seen, Started, Starts, Verdict};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use weir_types::limits::MEMBERS_MAX;

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Orders the entries.
    Leader,
    /// Has a say in what is committed.
    Voter,
    /// Has a say, and no records.
    Witness,
    /// Is sent everything and asked nothing.
    Learner,
}

/// A member, as the node that was asked sees it.
#[derive(Clone, Debug, Serialize)]
pub struct MemberStatus {
    /// Its number.
    pub id: NodeId,
    /// How to reach it.
    #[serde(flatten)]
    pub member: Member,
    /// What it does.
    pub role: Role,
    /// Entries that it is known not to have; `None` when the node that was asked does not lead, or has not heard.
    pub lag: Option<u64>,
    /// Since when it was last heard of, in milliseconds; as `lag`.
    pub heard_ms_ago: Option<u64>,
    /// Why it takes none of the entries that it lacks, in its own words; as `lag`.
    pub refuses: Option<String>,
}

/// A group, as the node that was asked sees it.
#[derive(Clone, Debug, Serialize)]
pub struct GroupStatus {
    /// Which group.
    pub group: u16,
    /// The node that was asked.
    pub node: NodeId,
    /// Who leads, as far as is known.
    pub leader: Option<NodeId>,
    /// Its term.
    pub term: u64,
    /// Last entry in the log.
    pub last: u64,
    /// Last entry that is applied.
    pub applied: u64,
    /// Last entry whose header is gone.
    pub purged: u64,
    /// Whether it takes writes: it leads, and reaches most voters.
    pub serving: bool,
    /// Its members, by their numbers.
    pub members: Vec<MemberStatus>,
}

/// A voter that has not answered for so long is not counted on: several elections.
const SILENT: Duration = Duration::from_secs(3);
/// A new leader hears of those who are there within this: a few heartbeats.
const FIRST_ANSWERS: Duration = Duration::from_secs(1);

impl Group {
    /// How the group is doing, as this node sees it.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.raft().metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        let last = self.last_index();
        let mut members = Vec::new();
        for (id, member) in membership.nodes() {
            let role = match voters.contains(id) {
                _ if metrics.current_leader == Some(*id) => Role::Leader,
                true if member.witness => Role::Witness,
                true => Role::Voter,
                false => Role::Learner,
            };
            let matched = metrics.replication.as_ref().and_then(|r| r.get(id).copied());
            let lag = matched.map(|m| last.saturating_sub(m.map_or(0, |id| id.index())));
            let heard = metrics
                .heartbeat
                .as_ref()
                .and_then(|h| h.get(id).copied().flatten());
            members.push(MemberStatus {
                id: *id,
                member: member.clone(),
                role,
                lag,
                heard_ms_ago: heard.map(|at| at.elapsed().as_millis() as u64),
                refuses: lag
                    .filter(|lag| *lag > 0)
                    .and_then(|_| self.shared().refuses(*id)),
            });
        }
        GroupStatus {
            group: self.id().0,
            node: self.node(),
            leader: self.leader().map(|(id, _)| id),
            term: metrics.current_term,
            last,
            applied: metrics.last_applied.map_or(0, |id| id.index()),
            purged: metrics.purged.map_or(0, |id| id.index()),
            serving: self.is_serving(),
            members,
        }
    }

    /// The members, by their numbers, as of what is applied here.
    pub fn members(&self) -> BTreeMap<NodeId, Member> {
        let membership = self.shared().members();
        let nodes = membership
            .iter()
            .flat_map(|m| m.nodes().map(|(id, n)| (*id, n.clone())));
        nodes.collect()
    }

    /// The voters, as of what is applied here.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.shared()
            .members()
            .iter()
            .flat_map(|m| m.voter_ids())
            .collect()
    }

    /// Whether the voters change at the moment, as far as this node has heard: most of the old and most of the new must
    /// agree until that is over.
    pub fn is_changing(&self) -> bool {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().get_joint_config().len() > 1
    }

    /// Adds `node` as a learner; returns when that is committed. A member that is there already keeps its role and gets
    /// the new address.
    ///
    /// # Errors
    /// When this node does not lead, or the members are changing already.
    pub async fn add_learner(&self, node: NodeId, member: Member) -> Result<(), GroupError> {
        let members = self.members();
        // One that begins again under another number takes its own place.
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
    }

    /// Whether `node` should vote once it has caught up: a witness only where there are two others to judge between.
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
    /// As [`Group::add_learner`]; also when it is no member.
    pub async fn promote(&self, node: NodeId) -> Result<(), GroupError> {
        self.change(ChangeMembers::AddVoterIds([node].into())).await
    }

    /// Removes `node`, voter or learner. A witness that is left with a single full voter votes no more: it could only
    /// keep that one from going on.
    ///
    /// # Errors
    /// As [`Group::add_learner`]; also when nobody who keeps records would be left to vote, or `node` is this one, which
    /// leads: those who are left could elect another while it still answers.
    pub async fn remove(&self, node: NodeId) -> Result<(), GroupError> {
        if node == self.node() && self.lead().is_some() {
            return Err(GroupError::Refused(format!(
                "node {node} leads: it hands over first"
            )));
        }
        let full: BTreeSet<NodeId> = self.shared().members().iter().flat_map(full_voters).collect();
        if full == BTreeSet::from([node]) {
            let why =
                format!("node {node} is the only one that votes and keeps records: it cannot be removed");
            return Err(GroupError::Refused(why));
        }
        // One that leads since a moment ago has not heard of anybody yet.
        let begun = tokio::time::Instant::now();
        while let Some(why) = self.would_lose_majority(node) {
            if begun.elapsed() > FIRST_ANSWERS {
                return Err(GroupError::Refused(why));
            }
            tokio::time::sleep(self.timing().heartbeat).await;
        }
        if self.voters().contains(&node) {
            let leave = self.leave_with(node);
            // The witness goes on as a learner, and so, for a moment, does the node.
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
    }

    /// The voters that vote no more when `node` goes.
    fn leave_with(&self, node: NodeId) -> BTreeSet<NodeId> {
        let full: BTreeSet<NodeId> = self.shared().members().iter().flat_map(full_voters).collect();
        let alone = full.iter().filter(|id| **id != node).count() == 1;
        let witnesses = self.voters().into_iter().filter(|id| alone && !full.contains(id));
        witnesses.chain([node]).collect()
    }

    /// Whether `node` is this one, or has answered lately, if this one leads.
    fn hears(&self, node: NodeId) -> bool {
        let metrics = self.raft().metrics().borrow_watched().clone();
        let heard = metrics
            .heartbeat
            .and_then(|heard| heard.get(&node).copied().flatten());
        node == self.node() || heard.is_some_and(|at| at.elapsed() < SILENT)
    }

    /// Why the voters without `node` could not go on: too few of them answer. The change could not be committed, nor
    /// taken back.
    fn would_lose_majority(&self, node: NodeId) -> Option<String> {
        let voters = self.voters();
        if !voters.contains(&node) || self.lead().is_none() {
            return None;
        }
        let leave = self.leave_with(node);
        let (left, silent): (Vec<NodeId>, Vec<NodeId>) = voters
            .into_iter()
            .filter(|id| !leave.contains(id))
            .partition(|id| self.hears(*id));
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

    /// Lets the leader know how this node is reached from now on.
    ///
    /// # Errors
    /// When there is no leader, or it does not answer.
    pub async fn announce(&self, member: Member) -> Result<(), GroupError> {
        if self.lead().is_some() {
            return self.add_learner(self.node(), member).await;
        }
        // A node that has just started elsewhere has not heard of the leader, and cannot be reached by it.
        let leader = self.leader().filter(|(id, _)| *id != self.node());
        let others = self.members().into_iter().filter(|(id, _)| *id != self.node());
        for (id, at) in leader.into_iter().chain(others) {
            if let Ok(true) = crate::network::announce(self, id, at, member.clone()).await {
                return Ok(());
            }
        }
        Err(GroupError::NotLeader { leader: None })
    }

    /// Asks `to` to lead. Returns at once; it leads when it has all entries. Nothing to do when it leads already.
    ///
    /// # Errors
    /// When this node does not lead, or `to` is no voter or is silent.
    pub async fn transfer(&self, to: NodeId) -> Result<(), GroupError> {
        if !self.voters().contains(&to) {
            return Err(GroupError::Refused(format!("node {to} is no voter")));
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
            // Consensus would wait for it to take over, and take nothing meanwhile.
            return Ok(());
        }
        if !self.hears(to) {
            // Nothing could be written until somebody else is elected.
            return Err(GroupError::Refused(format!("node {to} does not answer")));
        }
        self.hand_over();
        let asked = self.raft().trigger().transfer_leader(to).await;
        asked.map_err(|e| GroupError::Stopped(e.to_string()))
    }

    /// Answers a process that speaks `from` somewhere for another member, whose key is `key`, as far as `groups` and `starts` tell;
    /// this is the site's group.
    pub fn judge(
        &self,
        started: &Started,
        key: &str,
        from: IpAddr,
        starts: &Starts,
        groups: &[Group],
    ) -> Seen {
        let members = self.members();
        starts.retain(|node| members.contains_key(&node));
        let leads = self.is_serving();
        // Without the other it cannot lead.
        let is_pair = self.voters() == BTreeSet::from([self.node(), started.node]);
        if members.get(&started.node).is_none_or(|m| m.key != key) {
            // It has been let in as another since, or this node has not heard of it yet.
            let verdict = match members.values().any(|m| m.key == key) {
                true => Verdict::Older,
                false if leads => Verdict::Removed,
                false => Verdict::Sound,
            };
            let count = None;
            return Seen {
                leads,
                is_pair,
                count,
                verdict,
            };
        }
        let (count, verdict) = starts.judge(started, from, tokio::time::Instant::now());
        let behind = || groups.iter().find_map(|group| group.is_lacked_by(started));
        let verdict = match verdict {
            Verdict::Sound => behind().unwrap_or(Verdict::Sound),
            other => other,
        };
        let count = Some(count);
        Seen {
            leads,
            is_pair,
            count,
            verdict,
        }
    }

    /// What a process that has started lacks of what its node acknowledged of this group, if this node leads it for certain.
    fn is_lacked_by(&self, started: &Started) -> Option<Verdict> {
        if started.last.is_empty() || !self.is_serving() {
            return None;
        }
        let metrics = self.raft().metrics().borrow_watched().clone();
        let matched = metrics.replication?.get(&started.node).copied()??;
        let acknowledged = entry_id(&matched);
        let mut last = started.last.iter().filter(|(id, _)| *id == self.id());
        let last = last.next().map(|(_, last)| *last).unwrap_or_default();
        (last < acknowledged).then_some(Verdict::Behind(self.id(), acknowledged))
    }

    /// Entries that `node` is known not to have, if this node leads and has heard of it.
    pub fn lag(&self, node: NodeId) -> Option<u64> {
        let metrics = self.raft().metrics().borrow_watched().clone();
        let matched = metrics.replication?.get(&node).copied()?;
        Some(self.last_index().saturating_sub(matched?.index()))
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
