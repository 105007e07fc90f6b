//! The level of the site: the newest formats that all nodes can read. See [`weir_types::level`].

use crate::core::Broker;
use crate::rpc::message::{PeerRequest, PeerResponse};
use crate::state::rows::Row;
use crate::state::rows::site::Level;
use futures_util::future::BoxFuture;
use weir_types::level::{FIRST_LEVEL, LEVEL, release_of};

impl Broker {
    /// Raises the level of the site to the lowest level of all members, if this node leads. Call every few
    /// seconds: after the last old node was replaced, the next call raises the level.
    ///
    /// # Cancel safety
    /// If the future is dropped, the level may or may not be raised.
    pub fn raise_level(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
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
                    // The level of an unreachable node is unknown.
                    None => return,
                }
            }
            if all <= now {
                return;
            }
            let raised = self.change(move |tables, _| {
                // Nodes that joined meanwhile were checked before they were admitted.
                let is_news = tables.level() < all;
                let row = is_news.then(|| Level(all).put(&()));
                Ok(row.into_iter().collect())
            });
            match raised.await {
                Ok(()) => tracing::info!(
                    level = all,
                    "all nodes of the site are of {}: nodes of earlier releases are no longer admitted",
                    release_of(all)
                ),
                Err(error) => tracing::debug!(%error, "cannot raise the level of the site yet"),
            }
        })
    }

    /// Returns the reason why nodes of `level` cannot join, if any.
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
