//! The node and its site.

use crate::error::ClientError;
use crate::{Client, parsed, read_reply};
use std::time::Duration;
use weir_api::{Cluster, Rebalance, ScrubReport, Status};
use weir_peer::protocol::{Reply, Request};
use weir_peer::write_frame;

impl Client {
    /// Returns the status of the node.
    ///
    /// # Errors
    /// When the connection is lost.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.answer(Request::Status).await
    }

    /// Has the node read and check all its stored records. `progress` is called with bytes done and bytes in
    /// all.
    ///
    /// # Errors
    /// When the connection is lost, or another scrub is under way.
    ///
    /// # Cancel safety
    /// Safe: the scrub goes on, and its report is lost.
    pub async fn scrub(&self, mut progress: impl FnMut(u64, u64)) -> Result<ScrubReport, ClientError> {
        let mut stream = self.sessions().stream().await?;
        write_frame(&mut stream.tx, &Request::Scrub, &[]).await?;
        loop {
            let frame = read_reply(&mut stream).await?;
            match frame.head {
                Reply::Progress(done, total) => progress(done, total),
                _ => return parsed(&frame.payload),
            }
        }
    }

    /// Returns the nodes and replica groups of the site, as the node sees them.
    ///
    /// # Errors
    /// When the connection is lost.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn cluster(&self) -> Result<Cluster, ClientError> {
        self.answer(Request::Cluster).await
    }

    /// Lets a single node join with `token`, 16 random bytes, within `valid`.
    ///
    /// # Errors
    /// The node's own; an unknown outcome when the connection is lost.
    ///
    /// # Cancel safety
    /// Not safe: the token may work or not. The same token can be sent again.
    pub async fn invite(&self, token: [u8; 16], valid: Duration) -> Result<(), ClientError> {
        let valid_s = valid.as_secs();
        self.done(Request::Invite { token, valid_s }).await
    }

    /// Removes `node` from the site. A node that leads hands over first.
    ///
    /// # Errors
    /// As [`Client::invite`]; of the kind retry while replicas are copied away from the node: ask again.
    ///
    /// # Cancel safety
    /// Safe: a caller that asks again finds the rest done.
    pub async fn remove_node(&self, node: u64) -> Result<(), ClientError> {
        self.done(Request::RemoveNode { node }).await
    }

    /// Hands leadership over to node `to`. Returns once that node leads.
    ///
    /// # Errors
    /// As [`Client::invite`].
    ///
    /// # Cancel safety
    /// Not safe: the other node may lead or not.
    pub async fn transfer(&self, to: u64) -> Result<(), ClientError> {
        self.done(Request::Transfer { to }).await
    }

    /// Starts the moves that balance replicas and leaders over the nodes. Returns them in words.
    ///
    /// # Errors
    /// As [`Client::invite`].
    ///
    /// # Cancel safety
    /// Not safe: the moves may begin or not.
    pub async fn rebalance(&self) -> Result<Rebalance, ClientError> {
        self.answer(Request::Rebalance).await
    }
}
