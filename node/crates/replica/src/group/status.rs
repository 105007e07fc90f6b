//! The status of a group and of its members.

use crate::group::Group;
use crate::types::{Member, NodeId};
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;

/// Role of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Orders the entries.
    Leader,
    /// Votes on entries.
    Voter,
    /// Votes, but keeps no records.
    Witness,
    /// Receives everything without a vote.
    Learner,
}

/// Status of a member, as the asked node sees it.
#[derive(Clone, Debug, Serialize)]
pub struct MemberStatus {
    /// Number of the member.
    pub id: NodeId,
    /// Addresses and key.
    #[serde(flatten)]
    pub member: Member,
    /// Role.
    pub role: Role,
    /// Entries that the member is known to lack; `None` when the asked node does not lead or has not heard.
    pub lag: Option<u64>,
    /// Milliseconds since the last answer; `None` when the asked node does not lead or has not heard.
    pub heard_ms_ago: Option<u64>,
    /// The member's own reason for refusing entries; `None` when there is none, or the asked node does not
    /// lead.
    pub refuses: Option<String>,
}

/// Status of a group, as the asked node sees it.
#[derive(Clone, Debug, Serialize)]
pub struct GroupStatus {
    /// Number of the group.
    pub group: u16,
    /// The asked node.
    pub node: NodeId,
    /// The leader, as far as known.
    pub leader: Option<NodeId>,
    /// The current term.
    pub term: u64,
    /// Last entry in the log.
    pub last: u64,
    /// Last entry that is applied.
    pub applied: u64,
    /// Last purged entry.
    pub purged: u64,
    /// The group accepts writes here: this node leads and reaches most voters.
    pub serving: bool,
    /// The members, by number.
    pub members: Vec<MemberStatus>,
}

/// Silence after which a voter does not count: several elections.
pub(super) const SILENT: Duration = Duration::from_secs(3);

impl Group {
    /// Returns the status of the group, as this node sees it.
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

    /// Returns the entries that `node` is known to lack, if this node leads and has heard.
    pub fn lag(&self, node: NodeId) -> Option<u64> {
        let metrics = self.raft().metrics().borrow_watched().clone();
        let matched = metrics.replication?.get(&node).copied()?;
        Some(self.last_index().saturating_sub(matched?.index()))
    }
}
