//! A connection: frames in, answers out, in the order of the requests.
//!
//! Two halves run side by side. The first half reads frames and hands batches to the broker as they arrive.
//! The second half answers requests one after another, so a client's requests take effect in order, and a
//! long poll delays only its own client.

use crate::api::{self, Head, produce};
use crate::node::Session;
use crate::skim::Skim;
use crate::wire::{Frame, WireError};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;
use weir_broker::{Direction, Taken, UsedUp};
use weir_types::limits::{
    KAFKA_PIPELINE_MAX, KAFKA_REQUEST_BYTES_MAX, KAFKA_SKIPPED_BYTES_MAX, KAFKA_SMALL_BYTES,
};

/// Maximum idle time of a connection (Kafka's `connections.max.idle.ms`).
const IDLE_MAX: Duration = Duration::from_secs(600);
/// Time to receive a request: ten seconds, plus a second per this many bytes. Slower clients would hold
/// memory that others wait for.
const RECEIVE_WITHIN: Duration = Duration::from_secs(10);
const RECEIVE_BYTES_PER_S: usize = 1 << 20;
/// Maximum wait of a request for receive memory.
const ROOM_WITHIN: Duration = Duration::from_secs(5);
/// Time to finish answers for a client that has stopped sending.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Maximum wait for a client to read a part of an answer.
const SEND_WITHIN: Duration = Duration::from_secs(60);
/// Minimum rate at which a client must read its answer, the rate of a slow radio: an answer holds memory that
/// others wait for.
const SEND_BYTES_PER_S: usize = 16 << 10;

/// Reason for the end of a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("the client disconnected: {0}")]
    Io(#[from] io::Error),
    #[error("a request of {0} bytes is over the limit of {KAFKA_REQUEST_BYTES_MAX}, or is not Kafka")]
    Length(i64),
    #[error("{what} took too long")]
    Slow { what: &'static str },
    #[error("request {key} version {version} cannot be read: {error}")]
    Malformed {
        key: i16,
        version: i16,
        error: WireError,
    },
    #[error("request {key} version {version} is not supported: use ApiVersions")]
    Unsupported { key: i16, version: i16 },
    #[error(transparent)]
    UsedUp(#[from] UsedUp),
    #[error("records of a request without acknowledgement (acks=0) were refused: {0}")]
    Unasked(String),
}

/// A queued request.
struct Queued {
    head: Head,
    work: Work,
    /// The client id.
    client: Option<String>,
    /// The request's share of the queued bytes.
    permit: Option<Taken>,
}

enum Work {
    Produce(produce::Pending),
    /// A produce request that was too large to receive.
    TooLarge(produce::Refused),
    Other(Bytes),
}

/// Serves a client until either side closes the connection.
pub(crate) async fn serve(stream: TcpStream, session: Session) -> Result<(), ConnectionError> {
    stream.set_nodelay(true)?;
    let (rx, tx) = stream.into_split();
    let (queue, waiting) = mpsc::channel(KAFKA_PIPELINE_MAX);
    let reading = read(rx, session.clone(), queue);
    let answering = answer(tx, session, waiting);
    // After an orderly end of reading, queued requests are still answered; after a failure of either half,
    // the other has nothing to do.
    tokio::pin!(reading, answering);
    tokio::select! {
        read = &mut reading => {
            read?;
            // No client is left to wait for a long poll.
            tokio::time::timeout(LAST_ANSWERS_WITHIN, answering).await.unwrap_or(Ok(()))
        }
        answered = &mut answering => answered,
    }
}

async fn read(
    mut rx: OwnedReadHalf,
    mut session: Session,
    queue: mpsc::Sender<Queued>,
) -> Result<(), ConnectionError> {
    let mut buffer = BytesMut::new();
    // A client with a connection slot must send a request soon.
    let mut idle = RECEIVE_WITHIN;
    loop {
        let next = next_frame(&mut rx, &session, &mut buffer, idle).await?;
        idle = IDLE_MAX;
        let (frame, mut permit) = match next {
            None => return Ok(()),
            Some(Next::Frame(frame, permit)) => (frame, permit),
            Some(Next::TooLarge(head, refused)) => {
                let waiting = &session.node.broker.ledger().waiting;
                let queued = Queued {
                    head,
                    client: None,
                    permit: Some(waiting.try_take(refused.bytes(), Some(session.peer.ip()))?),
                    work: Work::TooLarge(refused),
                };
                if queue.send(queued).await.is_err() {
                    return Ok(());
                }
                continue;
            }
        };
        let (head, client, body) = split(frame)?;
        if let Some(client) = &client
            && session.who.client != *client
        {
            session.who.client.clone_from(client);
        }
        let work = match head.key {
            produce::KEY if produce::ADVERTISED.contains(&head.version) => {
                let pending = produce::begin(&session, head, body).await;
                // The broker limits its accepted batches on its own.
                permit = None;
                Work::Produce(pending.map_err(|error| malformed(head, error))?)
            }
            _ => {
                // The request may wait long behind a poll: release its receive memory so that others can be
                // received.
                if permit.is_some() {
                    let waiting = &session.node.broker.ledger().waiting;
                    permit = Some(waiting.try_take(body.len(), Some(session.peer.ip()))?);
                }
                Work::Other(body)
            }
        };
        let queued = Queued {
            head,
            work,
            client,
            permit,
        };
        if queue.send(queued).await.is_err() {
            return Ok(());
        }
    }
}

fn malformed(head: Head, error: WireError) -> ConnectionError {
    ConnectionError::Malformed {
        key: head.key,
        version: head.version,
        error,
    }
}

/// A received frame, or the remains of a large request.
enum Next {
    /// A frame without its length, with its share of the receive memory.
    Frame(Bytes, Option<Taken>),
    /// A produce request above the receive limit; its records were skipped.
    TooLarge(Head, produce::Refused),
}

/// Bytes of a request's key, its first field.
const KEY_BYTES: usize = 2;

/// Reads the next frame, without its length; returns `None` when the client is done. Memory grows with the
/// bytes received, never with the announced length.
async fn next_frame(
    rx: &mut OwnedReadHalf,
    session: &Session,
    buffer: &mut BytesMut,
    idle: Duration,
) -> Result<Option<Next>, ConnectionError> {
    let slow = |what| move |_| ConnectionError::Slow { what };
    while buffer.len() < 4 {
        // An idle connection keeps no buffer.
        if buffer.is_empty() {
            *buffer = BytesMut::new();
            tokio::time::timeout(idle, rx.readable())
                .await
                .map_err(slow("the next request"))??;
        }
        buffer.reserve(KAFKA_SMALL_BYTES);
        let got = tokio::time::timeout(RECEIVE_WITHIN, rx.read_buf(buffer));
        if got.await.map_err(slow("a request"))?? == 0 {
            let rest = buffer.len();
            return if rest == 0 {
                Ok(None)
            } else {
                Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
            };
        }
    }
    let length = frame_length(buffer.get_i32())?;
    // The key decides the handling before the rest is received, which takes memory.
    let key = loop {
        if let Some(key) = buffer.first_chunk::<KEY_BYTES>() {
            break i16::from_be_bytes(*key);
        }
        let got = tokio::time::timeout(RECEIVE_WITHIN, rx.read_buf(buffer));
        if got.await.map_err(slow("a request"))?? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    };
    let direction = match key {
        produce::KEY => Some(Direction::Produce),
        api::FETCH => Some(Direction::Fetch),
        _ => None,
    };
    if let Some(direction) = direction {
        session.node.broker.hold_back(&session.who, direction).await;
    }
    let mut permit: Option<Taken> = None;
    let within = RECEIVE_WITHIN + Duration::from_secs((length / RECEIVE_BYTES_PER_S) as u64);
    if length > KAFKA_REQUEST_BYTES_MAX {
        if key != produce::KEY {
            return Err(ConnectionError::Length(length as i64));
        }
        let mut skim = Skim {
            rx,
            buffer,
            left: length,
        };
        let skimmed = tokio::time::timeout(within, skim.produce()).await;
        let (head, refused) = skimmed.map_err(slow("a request"))??;
        tracing::debug!(peer = %session.peer, bytes = length, "records refused: the request is too large");
        return Ok(Some(Next::TooLarge(head, refused)));
    }
    let body = async {
        while buffer.len() < length {
            // The buffer doubles as it fills, up to the missing bytes; beyond a small request, the node must
            // have memory for it. A client that announces much and sends little takes memory from nobody.
            let more = buffer
                .len()
                .clamp(KAFKA_SMALL_BYTES, (length - buffer.len()).max(KAFKA_SMALL_BYTES));
            if buffer.len() + more > 2 * KAFKA_SMALL_BYTES
                && buffer.capacity() - buffer.len() < more.min(length - buffer.len())
            {
                let requests = &session.node.broker.ledger().requests;
                let room = requests.take(more, Some(session.peer.ip()), ROOM_WITHIN).await?;
                match &mut permit {
                    Some(permit) => permit.merge(room),
                    None => permit = Some(room),
                }
            }
            buffer.reserve(more.min(length - buffer.len()).max(1));
            if rx.read_buf(buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok::<_, ConnectionError>(())
    };
    tokio::time::timeout(within, body)
        .await
        .map_err(slow("a request"))??;
    Ok(Some(Next::Frame(buffer.split_to(length).freeze(), permit)))
}

fn frame_length(announced: i32) -> Result<usize, ConnectionError> {
    let legal = usize::try_from(announced).ok();
    let legal = legal.filter(|n| (8..=KAFKA_SKIPPED_BYTES_MAX).contains(n));
    legal.ok_or(ConnectionError::Length(i64::from(announced)))
}

/// Splits a stream like a connection does: key, version and body of each request, up to the first invalid
/// request.
pub(crate) fn requests(mut stream: Bytes) -> Vec<(i16, i16, Bytes)> {
    let mut requests = Vec::new();
    while stream.len() >= 4 {
        let Ok(length) = frame_length(stream.get_i32()) else {
            break;
        };
        if stream.len() < length {
            break;
        }
        let Ok((head, _, body)) = split(stream.split_to(length)) else {
            break;
        };
        requests.push((head.key, head.version, body));
    }
    requests
}

/// Splits the header off a frame: the request head, the client id, and the rest.
fn split(mut frame: Bytes) -> Result<(Head, Option<String>, Bytes), ConnectionError> {
    // The check of the length ensures at least eight bytes.
    let head = Head {
        key: frame.get_i16(),
        version: frame.get_i16(),
        correlation: frame.get_i32(),
    };
    let Some(flexible) = api::flexible_from(head.key) else {
        return Ok((head, None, frame));
    };
    let (client, body) =
        api::client_id(frame, head.version >= flexible).map_err(|error| malformed(head, error))?;
    // The name goes into logs and to terminals.
    let shown = |client: String| client.replace(char::is_control, "?");
    Ok((head, client.map(shown), body))
}

async fn answer(
    mut tx: OwnedWriteHalf,
    mut session: Session,
    mut waiting: mpsc::Receiver<Queued>,
) -> Result<(), ConnectionError> {
    while let Some(queued) = waiting.recv().await {
        let head = queued.head;
        if let Some(client) = queued.client {
            session.who.client = client;
        }
        let frame = match queued.work {
            Work::Produce(pending) => {
                let finished = pending.finish(&session).await;
                // As in Kafka: closing the connection is the only signal to a client that wants no answer.
                finished.map_err(ConnectionError::Unasked)?
            }
            Work::TooLarge(refused) => match refused.answer(&session, head) {
                None => return Err(ConnectionError::Unasked("the request is too large".to_owned())),
                answer => answer,
            },
            Work::Other(body) => {
                // No memory is held while the request waits for other members of a group.
                let is_quick = !matches!(head.key, api::FETCH | api::JOIN_GROUP | api::SYNC_GROUP);
                if is_quick {
                    session.reserve_answer(head.key).await?;
                }
                let frame = respond(&session, head, body).await?;
                let bytes = frame.0.iter().map(Bytes::len).sum();
                if head.key != api::FETCH {
                    session.made_answer(head.key, bytes).await?;
                }
                Some(frame)
            }
        };
        let answer = session.take_answer();
        drop(queued.permit);
        if let Some(frame) = frame {
            send(&mut tx, frame).await?;
        }
        drop(answer.share);
        // The client was told its throttle time; enforce the delay for clients that ignore it (KIP-219).
        if let Some(until) = answer.until {
            tokio::time::sleep_until(until.into()).await;
        }
    }
    tx.shutdown().await?;
    Ok(())
}

async fn respond(session: &Session, head: Head, body: Bytes) -> Result<Frame, ConnectionError> {
    match api::answer(session, head, body).await {
        Some(answered) => answered.map_err(|error| malformed(head, error)),
        None if head.key == api::API_VERSIONS => Ok(api::unsupported_api_versions(head)),
        // The client could read no answer: its version decides the form.
        None => {
            session.note_unserved(api::name(head.key), head.version);
            Err(ConnectionError::Unsupported {
                key: head.key,
                version: head.version,
            })
        }
    }
}

/// Writes all parts of a frame, several per system call.
async fn send(tx: &mut OwnedWriteHalf, frame: Frame) -> Result<(), ConnectionError> {
    /// Maximum parts per system call.
    const PARTS: usize = 64;
    let bytes: usize = frame.0.iter().map(Bytes::len).sum();
    let mut parts: VecDeque<Bytes> = frame.0.into();
    let until = Instant::now() + SEND_WITHIN + Duration::from_secs((bytes / SEND_BYTES_PER_S) as u64);
    while !parts.is_empty() {
        let slices: Vec<IoSlice<'_>> = parts.iter().take(PARTS).map(|p| IoSlice::new(p)).collect();
        // A slow client stays connected; a client that reads nothing is cut off.
        let within = until.min(Instant::now() + SEND_WITHIN);
        let written = tokio::time::timeout_at(within, tx.write_vectored(&slices)).await;
        let mut written = written.map_err(|_| ConnectionError::Slow {
            what: "reading an answer",
        })??;
        if written == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        while let Some(first) = parts.front_mut() {
            if first.len() > written {
                first.advance(written);
                break;
            }
            written -= first.len();
            parts.pop_front();
        }
    }
    Ok(())
}
