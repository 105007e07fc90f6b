//! Transfer of leadership.

use crate::core::Broker;
use futures_util::future::BoxFuture;
use std::time::Duration;
use weir_replica::{Group, MemberStatus, NodeId, Role};

/// Longest wait for the new leader: a few elections.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(10);

/// Polling interval of membership and leadership changes.
pub(crate) const HAND_OVER_POLL: Duration = Duration::from_millis(50);

/// A member that was heard within this time counts as reachable: several heartbeats.
const SUCCESSOR_HEARD_MS: u64 = 1_000;

impl Broker {
    /// Transfers leadership of the site to `to`. Returns once `to` leads.
    ///
    /// # Errors
    /// When this node does not lead, or `to` is not a voter or does not take over in time.
    ///
    /// # Cancel safety
    /// If the future is dropped, the transfer may still happen.
    pub fn hand_over(&self, to: NodeId) -> BoxFuture<'_, Result<(), weir_replica::GroupError>> {
        Box::pin(async move {
            if self.group().node() == to && self.is_serving() {
                return Ok(());
            }
            self.group().transfer(to).await?;
            let done = async {
                while self.leader().map(|(id, _)| id) != Some(to) {
                    tokio::time::sleep(HAND_OVER_POLL).await;
                }
            };
            tokio::time::timeout(HAND_OVER_WITHIN, done).await.map_err(|_| {
                weir_replica::GroupError::Refused(format!("node {to} did not take over within 10 s"))
            })
        })
    }

    /// Transfers all leadership while the disk of this node is full: another node may have space. A single
    /// node keeps its leadership. Returns true if this node led a group with a successor.
    ///
    /// # Cancel safety
    /// If the future is dropped, some groups may have been transferred.
    pub fn make_way_if_full(&self) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let Err(full) = self.log().room_for(0, false) else {
                return false;
            };
            let mut has_led = false;
            for group in self.groups().iter().filter(|group| group.is_serving()) {
                let Some(to) = successor_in(group) else { continue };
                has_led = true;
                tracing::warn!(group = group.id().0, to, reason = %full, "transferring leadership from a full disk");
                if let Err(error) = group.transfer(to).await {
                    tracing::warn!(group = group.id().0, to, %error, "cannot transfer leadership");
                }
            }
            has_led
        })
    }

    /// Returns the best successor of this node as leader of the site: a voter that was heard recently and
    /// lags least.
    pub fn successor(&self) -> Option<NodeId> {
        successor_in(self.group())
    }
}

/// Returns the voter of a group that was heard recently, lags least and can lead; never this node.
fn successor_in(group: &Group) -> Option<NodeId> {
    let (status, members) = (group.status(), group.members());
    let is_witness = |m: &MemberStatus| members.get(&m.id).is_some_and(|member| member.witness);
    let others = status
        .members
        .iter()
        .filter(|m| m.role == Role::Voter && !is_witness(m));
    let silent = |m: &MemberStatus| m.heard_ms_ago.is_none_or(|ms| ms > SUCCESSOR_HEARD_MS);
    let best = others.min_by_key(|m| (silent(m), m.lag.unwrap_or(u64::MAX)));
    best.map(|m| m.id)
}
