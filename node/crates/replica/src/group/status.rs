//! The status of a group and of its members.

use crate::group::Group;
use crate::types::{Member, NodeId};
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;

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
pub(super) const SILENT: Duration = Duration::from_secs(3);

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

    /// Entries that `node` is known not to have, if this node leads and has heard of it.
    pub fn lag(&self, node: NodeId) -> Option<u64> {
        let metrics = self.raft().metrics().borrow_watched().clone();
        let matched = metrics.replication?.get(&node).copied()?;
        Some(self.last_index().saturating_sub(matched?.index()))
    }
}
