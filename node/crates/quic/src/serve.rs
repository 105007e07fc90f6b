//! Connections and streams.

use crate::handle::{Answer, Session, wire};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use weir_broker::Principal;
use weir_peer::protocol::{Hello, MAGIC, Reply, Request, VERSION, Welcome, WireError, WireKind};
use weir_peer::{Incoming, Listener, Peer, PeerError, PeerStream, read_frame, write_frame};
use weir_pipeline::Services;
use weir_types::limits::{
    CONNECTION_ANSWERS_MAX, CONNECTION_REQUESTS_MAX, CONNECTIONS_MAX, CONNECTIONS_OF_NODES_MAX,
    CONNECTIONS_OF_STRANGERS_MAX, CONNECTIONS_PER_ADDRESS_MAX, CONNECTIONS_UNKNOWN_MAX, FRAME_BYTES_MAX,
    HELLO_BYTES_MAX,
};

/// Another node's connection: what becomes of it.
pub struct OnNode {
    /// Whether the node with this key is one of the site's.
    pub is_member: Box<dyn Fn(&str) -> bool + Send + Sync>,
    /// Takes over the connection.
    pub serve: Box<dyn Fn(Peer) -> BoxFuture<'static, Result<(), PeerError>> + Send + Sync>,
}

/// From the first packet to the hello: a client that does not get there costs nothing longer (NATS allows 2 s).
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// The next part of a module comes within this time.
const UPLOAD_WITHIN: Duration = Duration::from_secs(60);
/// A client that has nothing open for so long goes: it connects again when it has something to ask.
const IDLE_WITHIN: Duration = Duration::from_secs(60);

/// Who may have how many connections. Those of nodes are theirs alone: whatever clients do, one that leads is heard, and another
/// elected when it falls silent.
struct Places {
    unknown: Arc<Semaphore>,
    nodes: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    clients: Arc<Semaphore>,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

impl Places {
    fn new() -> Self {
        let places = |n| Arc::new(Semaphore::new(n));
        Self {
            unknown: places(CONNECTIONS_UNKNOWN_MAX),
            nodes: places(CONNECTIONS_OF_NODES_MAX),
            strangers: places(CONNECTIONS_OF_STRANGERS_MAX),
            clients: places(CONNECTIONS_MAX),
            by_address: Mutex::default(),
        }
    }

    /// A place for a client at `address`, or what there is too much of.
    fn for_client(self: &Arc<Self>, address: IpAddr) -> Result<ClientPlace, &'static str> {
        let all = Arc::clone(&self.clients).try_acquire_owned();
        let all = all.map_err(|_| "too many clients are connected: try again later")?;
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.entry(address).or_default();
        if *count >= CONNECTIONS_PER_ADDRESS_MAX {
            return Err("too many clients are connected from this address");
        }
        *count += 1;
        Ok(ClientPlace {
            places: Arc::clone(self),
            address,
            _all: all,
        })
    }
}

/// A client's place, given back when it is dropped.
struct ClientPlace {
    places: Arc<Places>,
    address: IpAddr,
    _all: OwnedSemaphorePermit,
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        let mut by_address = self
            .places
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// Takes connections until the listener is closed.
pub async fn serve(listener: Arc<Listener>, node: Arc<Services>, on_node: OnNode) {
    let (places, on_node) = (Arc::new(Places::new()), Arc::new(on_node));
    while let Some(incoming) = listener.accept().await {
        match Arc::clone(&places.unknown).try_acquire_owned() {
            Ok(unknown) => {
                let (node, on_node, places) = (Arc::clone(&node), Arc::clone(&on_node), Arc::clone(&places));
                tokio::spawn(async move {
                    if let Err(e) = connection(incoming, unknown, &places, node, &on_node).await {
                        tracing::debug!(error = %e, "connection ended");
                    }
                });
            }
            Err(_) => {
                tracing::debug!(
                    limit = CONNECTIONS_UNKNOWN_MAX,
                    "connection refused: too many are being made"
                );
                incoming.refuse();
            }
        }
    }
}

async fn connection(
    incoming: Incoming,
    unknown: OwnedSemaphorePermit,
    places: &Arc<Places>,
    node: Arc<Services>,
    on_node: &OnNode,
) -> Result<(), PeerError> {
    let peer = tokio::time::timeout(HELLO_WITHIN, incoming.handshake()).await;
    let peer = peer.map_err(|_| PeerError::Timeout)??;
    let refused = |peer: &Peer, why: &str| {
        peer.close(why);
        Err(PeerError::Malformed(why.to_owned()))
    };
    if peer.is_node() {
        let is_member = peer.key().is_some_and(|key| (on_node.is_member)(&key));
        let of = if is_member {
            &places.nodes
        } else {
            &places.strangers
        };
        let Ok(_place) = Arc::clone(of).try_acquire_owned() else {
            return refused(&peer, "too many nodes are connected");
        };
        drop(unknown);
        return (on_node.serve)(peer).await;
    }
    let _place = match places.for_client(peer.remote_addr().ip()) {
        Ok(place) => place,
        Err(why) => return refused(&peer, why),
    };
    let greeted = tokio::time::timeout(HELLO_WITHIN, greet(&peer)).await;
    let who = greeted.map_err(|_| PeerError::Timeout)??;
    drop(unknown);
    let open = Arc::new(());
    let turns = Arc::new(Semaphore::new(CONNECTION_ANSWERS_MAX));
    loop {
        let stream = match tokio::time::timeout(IDLE_WITHIN, peer.accept()).await {
            Ok(stream) => stream?,
            Err(_) if Arc::strong_count(&open) == 1 => return refused(&peer, "idle for a minute"),
            Err(_) => continue,
        };
        let session = Session::new(Arc::clone(&node), who.clone());
        let (remote, open, turns) = (peer.remote_addr(), Arc::clone(&open), Arc::clone(&turns));
        tokio::spawn(async move {
            if let Err(e) = requests(stream, session, turns).await {
                tracing::debug!(%remote, error = %e, "stream ended");
            }
            drop(open);
        });
    }
}

/// Shakes hands and answers the hello, or says why not.
async fn greet(peer: &Peer) -> Result<Principal, PeerError> {
    let mut stream = peer.accept().await?;
    let refused = |message: String| {
        Some(WireError {
            kind: WireKind::Invalid,
            message,
        })
    };
    let (client, error) = match read_frame::<Hello>(&mut stream.rx, HELLO_BYTES_MAX).await {
        Ok(Some(frame)) if frame.head.magic != MAGIC => {
            (String::new(), refused("not a Weir client".to_owned()))
        }
        Ok(Some(frame)) if frame.head.version != VERSION => {
            let theirs = frame.head.version;
            (
                String::new(),
                refused(format!(
                    "this node speaks version {VERSION}, not {theirs}: use a fitting client"
                )),
            )
        }
        Ok(Some(frame)) => (frame.head.client, None),
        Ok(None) => return Err(PeerError::Malformed("no hello".to_owned())),
        Err(e) => (String::new(), refused(e.to_string())),
    };
    let node_version = env!("CARGO_PKG_VERSION").to_owned();
    let refusal = error.clone();
    write_frame(
        &mut stream.tx,
        &Welcome {
            version: VERSION,
            node_version,
            error,
        },
        &[],
    )
    .await?;
    let _ = stream.tx.finish();
    if let Some(error) = refusal {
        // The answer must get there before the connection goes.
        let _ = tokio::time::timeout(HELLO_WITHIN, stream.tx.stopped()).await;
        peer.close(&error.message);
        return Err(PeerError::Malformed(error.message));
    }
    let client: String = client.chars().filter(|c| !c.is_control()).take(100).collect();
    Ok(Principal::at("quic", peer.remote_addr().ip(), client))
}

/// An answer, and the place that it takes until it is written.
type InTurn = (Answer, Option<OwnedSemaphorePermit>);

/// Answers the requests of one stream in their order. A malformed one is answered and ends the stream. Answers that may be large are
/// made when one of the connection's `turns` is free: a client that reads nothing has a few made, and no more.
async fn requests(stream: PeerStream, mut session: Session, turns: Arc<Semaphore>) -> Result<(), PeerError> {
    let PeerStream { mut tx, mut rx } = stream;
    let (answers, mut waiting) = mpsc::channel::<InTurn>(CONNECTION_REQUESTS_MAX);
    let writer = tokio::spawn(async move {
        while let Some((answer, _turn)) = waiting.recv().await {
            answer.write(&mut tx).await?;
        }
        let _ = tx.finish();
        let _ = tx.stopped().await;
        Ok::<(), PeerError>(())
    });
    let result = loop {
        let read = read_frame::<Request>(&mut rx, FRAME_BYTES_MAX);
        let read = match session.is_uploading() {
            // What has come of a module takes the place of another's.
            true => tokio::time::timeout(UPLOAD_WITHIN, read)
                .await
                .unwrap_or(Err(PeerError::Timeout)),
            false => read.await,
        };
        match read {
            Ok(Some(frame)) => {
                let turn = match &frame.head {
                    // Made or read when it is their turn to be written.
                    Request::Produce { .. } | Request::Fetch { .. } => None,
                    _ => Arc::clone(&turns).acquire_owned().await.ok(),
                };
                let answer = session.handle(frame.head, frame.payload).await;
                if answers.send((answer, turn)).await.is_err() {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(e) => {
                if !matches!(e, PeerError::Lost(_)) {
                    let error = Answer::Now(Reply::Error(wire(e.kind(), &e)), Bytes::new());
                    let _ = answers.send((error, None)).await;
                }
                break Err(e);
            }
        }
    };
    drop(answers);
    let _ = writer.await;
    result
}
