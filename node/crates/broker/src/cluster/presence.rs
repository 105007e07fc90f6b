//! Presence of nodes. The leader commits a row with the nodes that are away or behind: clients are not sent
//! to absent nodes, and tools see which replicas follow.

use crate::core::Broker;
use crate::state::rows::Row;
use crate::state::rows::absent::Absent;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use weir_types::level::LEVEL_OF_AGES;

impl Broker {
    /// Returns the nodes that are away or behind, as applied here. Excludes this node and the leader.
    pub fn absent(&self) -> Absent {
        let mut absent = self.0.applied.tables().absent();
        let leader = self.leader().map(|(id, _)| id);
        for id in leader.into_iter().chain([self.group().node()]) {
            absent.away.remove(&id);
            absent.behind.remove(&id);
        }
        absent
    }

    /// Checks the presence of all nodes, if this node leads, and commits changes. Call about twice per
    /// second.
    ///
    /// # Cancel safety
    /// If the future is dropped, a change may or may not be committed; the next call corrects it.
    pub fn note_absent(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let (status, before) = (self.group().status(), self.0.applied.tables().absent());
            if !status.serving || self.level() < LEVEL_OF_AGES {
                return;
            }
            let mut members = status.members;
            members.retain(|member| member.id != status.node);
            let now = {
                let mut presence = self.0.presence.lock().await;
                presence.look(status.term, &members, &before, Instant::now())
            };
            if now == before {
                return;
            }
            tracing::info!(away = ?now.away, behind = ?now.behind, "presence of nodes has changed");
            let row = now.put(&());
            if let Err(error) = self.put(vec![row]).await {
                tracing::debug!(%error, "cannot commit the presence of nodes");
            }
        })
    }
}
