//! The level of the site: what all of its nodes can read. See [`weir_types::level`].

use crate::core::Broker;
use crate::rpc::message::{PeerRequest, PeerResponse};
use crate::state::rows::Row;
use crate::state::rows::site::Level;
use weir_types::level::{FIRST_LEVEL, LEVEL, release_of};

impl Broker {
    /// Raises the level of the site to what all members can read, if this node leads and it is below its own. Call it every few
    /// seconds: a site whose last node has been replaced a moment ago is raised by the next call.
    pub async fn raise_level(&self) {
        let now = self.level();
        if now >= LEVEL || !self.is_serving() {
            return;
        }
        let mut all = LEVEL;
        for (node, member) in self.group().members() {
            if node == self.group().node() {
                continue;
            }
            match self.level_of(node, member).await {
                Some(level) => all = all.min(level),
                // Of one that is away nobody knows.
                None => return,
            }
        }
        if all <= now {
            return;
        }
        let raised = self.change(move |tables, _| {
            // Members may have come meanwhile: those are asked before they are let in.
            let is_news = tables.level() < all;
            let row = is_news.then(|| Level(all).put(&()));
            Ok(row.into_iter().collect())
        });
        match raised.await {
            Ok(()) => tracing::info!(
                level = all,
                "all nodes of the site are of {}: a node of an earlier release has no part in it any more",
                release_of(all)
            ),
            Err(error) => tracing::debug!(%error, "the level of the site is not raised yet"),
        }
    }

    /// Why nodes of `level` can have no part in the site, if they cannot.
    pub(crate) fn too_low(&self, level: u32) -> Option<String> {
        let site = self.level();
        (level < site).then(|| {
            format!(
                "the site is at level {site}, and this node is at {level}: it needs {}",
                release_of(site)
            )
        })
    }

    async fn level_of(&self, node: weir_replica::NodeId, member: weir_replica::Member) -> Option<u32> {
        let answer = self.ask_node(node, member, &PeerRequest::Level).await?;
        match answer {
            PeerResponse::Level(level) => Some(level),
            // The first release does not know the question.
            PeerResponse::Refused(..) => Some(FIRST_LEVEL),
            _ => None,
        }
    }
}
