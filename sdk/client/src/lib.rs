//! Async Rust client for Weir over QUIC; the `weir` command line uses it.
//!
//! A [`Client`] sends a request at a time. A [`Producer`] and a [`Fetcher`] have streams of their own: many
//! batches can be in flight, and a fetch that waits delays no other request. Answers of the admin API have
//! the types of `weir-api`.

mod cluster;
mod error;
mod fetch;
mod groups;
mod modules;
mod pipelines;
mod produce;
mod route;
mod session;
mod topics;

pub use error::ClientError;
pub use fetch::{Fetched, Fetcher, Piece};
pub use produce::{Produced, Producer, Sent};
pub use weir_peer::KnownNodes;
pub use weir_peer::protocol::{PartitionInfo, Place, TopicInfo};
pub use weir_types::{Batch, BatchBuilder, Codec, ErrorKind, Gap, Offset, Record};

use bytes::Bytes;
use route::Routes;
use serde::de::DeserializeOwned;
use session::Shared;
use std::net::SocketAddr;
use std::sync::Arc;
use weir_peer::protocol::{Reply, Request};
use weir_peer::{Frame, PeerError, PeerStream, read_frame, write_frame};
use weir_types::limits::FRAME_BYTES_MAX;

/// A client of a site. Requests go to the node that leads; records go to the leaders of their replica groups.
/// Clones share the connections.
#[derive(Clone)]
pub struct Client {
    routes: Arc<Routes>,
}

impl Client {
    /// Connects to the node at `addr` as the client `name`. Uses another node only when this node names it as
    /// the leader. A call whose connection is lost has an unknown outcome.
    ///
    /// # Errors
    /// When no node answers, its key differs from the known key, or it refuses the client.
    ///
    /// # Cancel safety
    /// Safe: the connection is closed.
    pub async fn connect(addr: SocketAddr, known: &KnownNodes, name: &str) -> Result<Self, ClientError> {
        Self::connect_any(&[addr], known, name).await
    }

    /// Connects to the site of these nodes: to the first that answers, and then to the leader. When a
    /// connection is lost, reads and batches with a producer id are repeated at another node, for half a
    /// minute. Other calls fail with an unknown outcome.
    ///
    /// # Errors
    /// When no node answers.
    ///
    /// # Cancel safety
    /// Safe: the connection is closed.
    pub async fn connect_any(
        seeds: &[SocketAddr],
        known: &KnownNodes,
        name: &str,
    ) -> Result<Self, ClientError> {
        let routes = Arc::new(Routes::new(seeds.to_vec(), known, name));
        routes.site().sessions.get().await?;
        Ok(Self { routes })
    }

    fn sessions(&self) -> &Shared {
        &self.routes.site().sessions
    }

    /// Returns the version of the connected node.
    ///
    /// # Errors
    /// When the connection is lost.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn node_version(&self) -> Result<String, ClientError> {
        Ok(self.sessions().get().await?.node_version)
    }

    /// Opens a stream for producing.
    ///
    /// # Errors
    /// When the connection is lost.
    ///
    /// # Cancel safety
    /// Safe: no stream is opened.
    pub async fn producer(&self) -> Result<Producer, ClientError> {
        Producer::open(&self.routes).await
    }

    /// Opens a stream for reading.
    ///
    /// # Errors
    /// When the connection is lost.
    ///
    /// # Cancel safety
    /// Safe: no stream is opened.
    pub async fn fetcher(&self) -> Result<Fetcher, ClientError> {
        // A connection that fails is told here, not with the first fetch.
        let stream = self.sessions().stream().await?;
        Ok(Fetcher::new(Arc::clone(&self.routes), stream))
    }

    /// Closes the connections at once, and opens no others. Calls in flight have an unknown outcome.
    pub fn disconnect(&self) {
        self.routes
            .all()
            .iter()
            .for_each(|route| route.sessions.disconnect());
    }

    /// Closes the connections once their streams are finished.
    ///
    /// # Cancel safety
    /// Not safe: some connections may stay open until they idle out.
    pub async fn close(self) {
        for route in self.routes.all() {
            if let Some(session) = route.sessions.current().await {
                session.peer.finish().await;
            }
        }
    }

    async fn done(&self, request: Request) -> Result<(), ClientError> {
        match self.ask(request).await?.head {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks, and reads an answer of the admin API.
    async fn answer<T: DeserializeOwned>(&self, request: Request) -> Result<T, ClientError> {
        parsed(&self.ask(request).await?.payload)
    }

    async fn ask(&self, request: Request) -> Result<Frame<Reply>, ClientError> {
        self.routes.site().ask(request).await
    }
}

async fn exchange(
    stream: &mut PeerStream,
    request: &Request,
    payload: &[Bytes],
) -> Result<Frame<Reply>, ClientError> {
    write_frame(&mut stream.tx, request, payload).await?;
    read_reply(stream).await
}

async fn read_reply(stream: &mut PeerStream) -> Result<Frame<Reply>, ClientError> {
    let frame = read_frame::<Reply>(&mut stream.rx, FRAME_BYTES_MAX).await?;
    let frame = frame.ok_or_else(|| PeerError::Lost("node closed the stream".to_owned()))?;
    match frame.head {
        Reply::Error(error) => Err(ClientError::Node(error)),
        Reply::Elsewhere(leader) => Err(ClientError::Elsewhere(leader)),
        _ => Ok(frame),
    }
}

/// Reads an answer of the admin API.
fn parsed<T: DeserializeOwned>(answer: &[u8]) -> Result<T, ClientError> {
    let answer = serde_json::from_slice(answer);
    answer.map_err(|e| PeerError::Malformed(format!("the answer is not as expected: {e}")).into())
}

fn unexpected(reply: &Reply) -> ClientError {
    let text = format!("{reply:?}");
    PeerError::Malformed(format!(
        "unexpected answer {}",
        text.chars().take(80).collect::<String>()
    ))
    .into()
}
