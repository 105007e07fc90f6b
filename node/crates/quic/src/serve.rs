//! Connections and streams.

use crate::handle::{Answer, Session, wire};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use weir_broker::Principal;
use weir_peer::protocol::{Hello, MAGIC, Reply, Request, VERSION, Welcome, WireError, WireKind};
use weir_peer::{Incoming, Listener, Peer, PeerError, PeerStream, read_frame, write_frame};
use weir_pipeline::Services;
use weir_types::limits::{CONNECTION_REQUESTS_MAX, CONNECTIONS_MAX, FRAME_BYTES_MAX, HELLO_BYTES_MAX};

/// Takes over the connection of another node.
pub type OnNode = Arc<dyn Fn(Peer) -> BoxFuture<'static, Result<(), PeerError>> + Send + Sync>;

/// From the first packet to the hello: a client that does not get there costs nothing longer (NATS allows 2 s).
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// Takes connections until the listener is closed.
pub async fn serve(listener: Arc<Listener>, node: Arc<Services>, on_node: OnNode) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Some(incoming) = listener.accept().await {
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                let (node, on_node) = (Arc::clone(&node), Arc::clone(&on_node));
                tokio::spawn(async move {
                    if let Err(e) = connection(incoming, node, on_node).await {
                        tracing::debug!(error = %e, "connection ended");
                    }
                    drop(place);
                });
            }
            Err(_) => {
                tracing::warn!(limit = CONNECTIONS_MAX, "connection refused: too many");
                incoming.refuse();
            }
        }
    }
}

async fn connection(incoming: Incoming, node: Arc<Services>, on_node: OnNode) -> Result<(), PeerError> {
    let peer = tokio::time::timeout(HELLO_WITHIN, incoming.handshake()).await;
    let peer = peer.map_err(|_| PeerError::Timeout)??;
    if peer.is_node() {
        return on_node(peer).await;
    }
    let greeted = tokio::time::timeout(HELLO_WITHIN, greet(&peer)).await;
    let who = greeted.map_err(|_| PeerError::Timeout)??;
    loop {
        let stream = peer.accept().await?;
        let session = Session::new(Arc::clone(&node), who.clone());
        let remote = peer.remote_addr();
        tokio::spawn(async move {
            if let Err(e) = requests(stream, session).await {
                tracing::debug!(%remote, error = %e, "stream ended");
            }
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
    Ok(Principal::anonymous(client))
}

/// Answers the requests of one stream in their order. A malformed one is answered and ends the stream.
async fn requests(stream: PeerStream, mut session: Session) -> Result<(), PeerError> {
    let PeerStream { mut tx, mut rx } = stream;
    let (answers, mut waiting) = mpsc::channel::<Answer>(CONNECTION_REQUESTS_MAX);
    let writer = tokio::spawn(async move {
        while let Some(answer) = waiting.recv().await {
            answer.write(&mut tx).await?;
        }
        let _ = tx.finish();
        let _ = tx.stopped().await;
        Ok::<(), PeerError>(())
    });
    let result = loop {
        match read_frame::<Request>(&mut rx, FRAME_BYTES_MAX).await {
            Ok(Some(frame)) => {
                let answer = session.handle(frame.head, frame.payload).await;
                if answers.send(answer).await.is_err() {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(e) => {
                if !matches!(e, PeerError::Lost(_)) {
                    let _ = answers
                        .send(Answer::Now(Reply::Error(wire(e.kind(), &e)), Bytes::new()))
                        .await;
                }
                break Err(e);
            }
        }
    };
    drop(answers);
    let _ = writer.await;
    result
}
