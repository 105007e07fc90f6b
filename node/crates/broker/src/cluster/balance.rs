//! Moving replicas between nodes: rebalancing and draining.

use crate::core::Broker;
use crate::error::AdminError;
use crate::placement::layout::{changes, decided, describe_move, layout, leaving};
use crate::state::rows::Row;
use crate::state::rows::leader::LeaderReport;
use crate::state::rows::replica_group::ReplicaGroup;
use crate::state::rows::site::Leaving;
use futures_util::future::BoxFuture;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_log::Op;
use weir_replica::NodeId;
use weir_types::GroupId;

/// Interval of the reconciler while there are replica groups.
pub(crate) const KEEP_EVERY: Duration = Duration::from_millis(100);

/// Longest wait of [`Broker::vacate`]; copying may take longer, and callers ask again.
const MOVED_WITHIN: Duration = Duration::from_secs(20);

impl Broker {
    /// Moves replicas from nodes with many to nodes with few, and spreads leadership. Returns the planned
    /// changes, for display. The reconciler carries them out.
    ///
    /// # Errors
    /// When the plan is not committed.
    ///
    /// # Cancel safety
    /// If the future is dropped, the plan may or may not be committed.
    pub fn rebalance(&self) -> BoxFuture<'_, Result<Vec<String>, AdminError>> {
        Box::pin(async move {
            let members = self.group().members();
            let (sent, moves) = oneshot::channel();
            self.change(move |tables, _| {
                let mut layout = layout(tables, &members);
                // A node that is asked to carry replicas is no longer being drained.
                let stay = leaving(tables).map(|node| Leaving::remove(&node));
                let mut ops: Vec<Op> = stay.collect();
                let full = members.iter().filter(|(_, m)| !m.witness);
                layout.nodes = full.map(|(id, m)| (*id, m.rack.clone())).collect();
                let before = layout.groups.clone();
                let told = layout.balance();
                let leaders = layout.groups.iter().filter_map(|(id, group)| {
                    let now = group.replicas.first()?;
                    let moved = before.get(id).and_then(|b| b.replicas.first()) != Some(now);
                    moved.then(|| format!("group {id}: node {now} is to lead"))
                });
                let _ = sent.send(told.iter().map(describe_move).chain(leaders).collect());
                ops.extend(changes(&before, layout, &members));
                Ok(ops)
            })
            .await?;
            moves.await.map_err(|_| AdminError::Closed)
        })
    }

    /// Moves all replicas away from `node`. Returns once no group has the node.
    ///
    /// # Errors
    /// When a group would lose its last replica. [`AdminError::Moving`] when copying takes longer: ask again.
    ///
    /// # Cancel safety
    /// If the future is dropped, the plan may or may not be committed; moves that were planned go on.
    pub fn vacate(&self, node: NodeId) -> BoxFuture<'_, Result<(), AdminError>> {
        Box::pin(async move {
            let members = self.group().members();
            self.change(move |tables, _| {
            let mut layout = layout(tables, &members);
            let before = layout.groups.clone();
            layout.vacate(node).map_err(|group| {
                AdminError::Refused(format!(
                    "node {node} has the only replica of group {group}: add a node, or delete the topics of the group"
                ))
            })?;
            let mut ops = changes(&before, layout, &members);
            // Prevents new replicas on the node.
            if leaving(tables).all(|known| known != node) {
                ops.push(Leaving.put(&node));
            }
            Ok(ops)
        })
        .await?;
            let begun = Instant::now();
            while let Some(group) = self.still_on(node) {
                if begun.elapsed() > MOVED_WITHIN {
                    return Err(AdminError::Moving { group: group.0, node });
                }
                tokio::time::sleep(KEEP_EVERY).await;
            }
            Ok(())
        })
    }

    /// Has every group that was to have `old` have `new` instead.
    pub(crate) async fn renumber_replicas(&self, old: NodeId, new: NodeId) -> Result<(), AdminError> {
        let members = self.group().members();
        self.change(move |tables, _| {
            let mut layout = layout(tables, &members);
            let before = layout.groups.clone();
            layout.renumber(old, new);
            Ok(changes(&before, layout, &members))
        })
        .await
    }

    /// Returns a group that has or may have a replica on `node`.
    fn still_on(&self, node: NodeId) -> Option<GroupId> {
        let tables = self.0.applied.tables();
        let may_have = |(id, wanted): &(GroupId, ReplicaGroup)| {
            let led = tables.other::<LeaderReport>(id);
            !led.is_some_and(|led| led.is_without(node, wanted))
        };
        decided(&tables).into_iter().find(may_have).map(|(id, _)| id)
    }
}
