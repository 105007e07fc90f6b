//! The leader tells by a row who is away or does not follow: clients are told of no node that is away, and tools see which replicas follow.

use crate::core::Broker;
use crate::state::rows::Row;
use crate::state::rows::absent::Absent;
use tokio::time::Instant;
use weir_types::level::LEVEL_OF_AGES;

impl Broker {
    /// Nodes of the site that are away or do not follow, as far as this node knows. Never itself, and never the one who leads.
    pub fn absent(&self) -> Absent {
        let mut absent = self.0.applied.tables().absent();
        let leader = self.leader().map(|(id, _)| id);
        for id in leader.into_iter().chain([self.group().node()]) {
            absent.away.remove(&id);
            absent.behind.remove(&id);
        }
        absent
    }

    /// Looks who is there, if this node leads, and tells the others what has changed. Call it about twice a second.
    pub async fn note_absent(&self) {
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
        tracing::info!(away = ?now.away, behind = ?now.behind, "nodes of the site that are away, or do not follow");
        let row = now.put(&());
        if let Err(error) = self.put(vec![row]).await {
            tracing::debug!(%error, "who is away is not noted");
        }
    }
}
