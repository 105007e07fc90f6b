//! Connections and streams: admission, the hello, requests in their order.

use crate::answer::Answer;
use crate::error::wire;
use crate::session::Session;
use bytes::BytesMut;
use futures_util::future::BoxFuture;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use weir_admin::Services;
use weir_broker::{Principal, SHARE_WITHIN, Taken};
use weir_peer::protocol::{Hello, MAGIC, Reply, Request, VERSION, Welcome, WireError, WireKind};
use weir_peer::{
    Frame, Incoming, Listener, Peer, PeerError, PeerStream, RecvStream, read_frame, read_into, read_length,
    write_frame,
};
use weir_types::limits::{
    CONNECTION_ANSWERS_MAX, CONNECTION_REQUESTS_MAX, FRAME_BYTES_MAX, HELLO_BYTES_MAX, QUIC_SMALL_BYTES,
    REQUEST_HEAD_BYTES_MAX,
};

/// Handling of connections from nodes.
pub struct OnNode {
    /// Tells whether the node with this key is a member of the site.
    pub is_member: Box<dyn Fn(&str) -> bool + Send + Sync>,
    /// Tells whether a member of the site listens at this address.
    pub is_at: Box<dyn Fn(SocketAddr) -> bool + Send + Sync>,
    /// Takes over the connection.
    pub serve: Box<dyn Fn(Peer) -> BoxFuture<'static, Result<(), PeerError>> + Send + Sync>,
}

/// Time from the first packet to the hello; a slower client is dropped (NATS allows 2 s).
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// Share of memory for an answer without records, in bytes: a list of ten thousand partitions.
const ANSWER_BYTES: usize = 512 << 10;
/// Time from the first byte of a request to its last: ten seconds, and a second more for each such number of
/// bytes, as for Kafka clients.
const RECEIVE_WITHIN: Duration = Duration::from_secs(10);
const RECEIVE_BYTES_PER_S: usize = 64 << 10;
/// Time after which a connection without open streams is closed: its client connects again when needed.
const IDLE_WITHIN: Duration = Duration::from_secs(60);

/// Accepts connections until the listener is closed.
///
/// # Cancel safety
/// Safe: accepted connections go on.
pub fn serve(listener: Arc<Listener>, node: Arc<Services>, on_node: OnNode) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let on_node = Arc::new(on_node);
        while let Some(incoming) = listener.accept().await {
            let ledger = node.broker.ledger();
            // Nodes get in beside any crowd of clients: each dials from the address it listens on.
            let is_of_node = (on_node.is_at)(incoming.remote_addr());
            let from = incoming.remote_addr().ip();
            if (is_of_node || ledger.newcomers.is_scarce()) && incoming.may_retry() {
                // A real client retries at once; a forged address does not.
                incoming.retry();
                continue;
            }
            let newcomer = || ledger.newcomers.try_take(1, Some(from));
            let place = match is_of_node {
                true => ledger.arrivals.try_take(1, Some(from)).or_else(|_| newcomer()),
                false => newcomer(),
            };
            match place {
                Ok(newcomer) => {
                    let (node, on_node) = (Arc::clone(&node), Arc::clone(&on_node));
                    tokio::spawn(async move {
                        if let Err(e) = connection(incoming, newcomer, node, &on_node).await {
                            tracing::debug!(error = %e, "connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::debug!(%from, %error, "connection refused");
                    incoming.refuse();
                }
            }
        }
    })
}

async fn connection(
    incoming: Incoming,
    newcomer: Taken,
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
        let ledger = node.broker.ledger();
        let of = if is_member {
            &ledger.nodes
        } else {
            &ledger.strangers
        };
        let _place = match of.try_take(1, None) {
            Ok(place) => place,
            Err(error) => return refused(&peer, &error.to_string()),
        };
        drop(newcomer);
        return (on_node.serve)(peer).await;
    }
    let place = node
        .broker
        .ledger()
        .quic
        .try_take(1, Some(peer.remote_addr().ip()));
    let _place = match place {
        Ok(place) => place,
        Err(error) => return refused(&peer, &error.to_string()),
    };
    let greeted = tokio::time::timeout(HELLO_WITHIN, greet(&peer)).await;
    let who = greeted.map_err(|_| PeerError::Timeout)??;
    drop(newcomer);
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
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            if let Err(e) = requests(stream, session, turns, node, Some(remote.ip())).await {
                tracing::debug!(%remote, error = %e, "stream ended");
            }
            drop(open);
        });
    }
}

/// Answers the hello of a client: welcomes or refuses it.
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
        // The answer must arrive before the connection is closed.
        let _ = tokio::time::timeout(HELLO_WITHIN, stream.tx.stopped()).await;
        peer.close(&error.message);
        return Err(PeerError::Malformed(error.message));
    }
    let client: String = client.chars().filter(|c| !c.is_control()).take(100).collect();
    Ok(Principal::at("quic", peer.remote_addr().ip(), client))
}

/// Receives the next request, and its share of memory. The share grows with received bytes, not with
/// announced bytes.
async fn receive(
    rx: &mut RecvStream,
    node: &Services,
    from: Option<IpAddr>,
) -> Result<Option<(Frame<Request>, Option<Taken>)>, PeerError> {
    let Some(total) = read_length(rx, FRAME_BYTES_MAX).await? else {
        return Ok(None);
    };
    let within = RECEIVE_WITHIN + Duration::from_secs((total / RECEIVE_BYTES_PER_S) as u64);
    let mut share: Option<Taken> = None;
    let mut bytes = BytesMut::new();
    let reading = async {
        read_into(rx, &mut bytes, total.min(QUIC_SMALL_BYTES)).await?;
        while bytes.len() < total {
            let more = bytes.len().min(total - bytes.len());
            let room = node.broker.ledger().requests.take(more, from, SHARE_WITHIN).await;
            let room = room.map_err(|e| PeerError::Busy(e.to_string()))?;
            match &mut share {
                Some(share) => share.merge(room),
                None => share = Some(room),
            }
            let upto = bytes.len() + more;
            read_into(rx, &mut bytes, upto).await?;
        }
        Ok(())
    };
    let read = tokio::time::timeout(within, reading).await;
    read.unwrap_or(Err(PeerError::Timeout))?;
    let frame = Frame::parse_within(bytes.freeze(), REQUEST_HEAD_BYTES_MAX)?;
    Ok(Some((frame, share)))
}

/// An answer, and its share of memory until the answer is written.
type InTurn = (Answer, Option<(OwnedSemaphorePermit, Taken)>);

/// Answers the requests of a stream in their order. A malformed request is answered and ends the stream.
/// Answers that may be large wait for one of the connection's `turns`: a client that reads nothing gets only
/// a few made.
async fn requests(
    stream: PeerStream,
    mut session: Session,
    turns: Arc<Semaphore>,
    node: Arc<Services>,
    from: Option<IpAddr>,
) -> Result<(), PeerError> {
    let PeerStream { mut tx, mut rx } = stream;
    let (answers_out, mut waiting) = mpsc::channel::<InTurn>(CONNECTION_REQUESTS_MAX);
    let writer = tokio::spawn(async move {
        while let Some((answer, _turn)) = waiting.recv().await {
            answer.write(&mut tx).await?;
        }
        let _ = tx.finish();
        let _ = tx.stopped().await;
        Ok::<(), PeerError>(())
    });
    let result = loop {
        let read = receive(&mut rx, &node, from);
        let read = match session.uploads_until() {
            // A started upload blocks the share of another.
            Some(until) => tokio::time::timeout_at(until, read)
                .await
                .unwrap_or(Err(PeerError::Timeout)),
            None => read.await,
        };
        match read {
            Ok(Some((frame, received))) => {
                let turn = match &frame.head {
                    // These answers are made when their turn to be written comes.
                    Request::Produce { .. } | Request::Fetch { .. } => None,
                    // The status must answer even when shares are used up: it shows which.
                    Request::Status => None,
                    _ => {
                        let turn = Arc::clone(&turns).acquire_owned().await.ok();
                        let answers = &node.broker.ledger().answers;
                        match answers.take(ANSWER_BYTES, from, SHARE_WITHIN).await {
                            Ok(share) => turn.map(|turn| (turn, share)),
                            Err(error) => {
                                let error = Answer::from(Reply::Error(wire(error.kind(), &error)));
                                if answers_out.send((error, None)).await.is_err() {
                                    break Ok(());
                                }
                                continue;
                            }
                        }
                    }
                };
                let answer = session.handle(frame.head, frame.payload).await;
                drop(received);
                if answers_out.send((answer, turn)).await.is_err() {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(e) => {
                if !matches!(e, PeerError::Lost(_)) {
                    let error = Answer::from(Reply::Error(wire(e.kind(), &e)));
                    let _ = answers_out.send((error, None)).await;
                }
                break Err(e);
            }
        }
    };
    drop(answers_out);
    let _ = writer.await;
    result
}
