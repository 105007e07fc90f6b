//! Connections to the leader of a group, which any node names.

use crate::error::ClientError;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use weir_peer::protocol::{Hello, MAGIC, Request, VERSION, Welcome};
use weir_peer::{KnownNodes, Peer, PeerError, PeerStream, read_frame, write_frame};
use weir_types::limits::HELLO_BYTES_MAX;
use weir_types::sync::Mutex;

/// Longest search for a leader: an election or two take less, and a longer outage is worth an error.
const PATIENCE: Duration = Duration::from_secs(30);
/// Delay after which the next seed is tried beside a silent one.
const NEXT_SEED: Duration = Duration::from_millis(250);
/// First and longest pause between questions for the leader while an answer is due: an election takes about a
/// second.
const PROBE: Duration = Duration::from_millis(250);
const PROBE_MAX: Duration = Duration::from_secs(3);
/// Pause before a request is repeated.
const AGAIN: Duration = Duration::from_millis(100);

/// A connection to a node.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) peer: Peer,
    addr: SocketAddr,
    pub(crate) node_version: String,
}

/// The connection to the leader of a group, found when needed and kept.
pub(crate) struct Sessions {
    seeds: Vec<SocketAddr>,
    known: KnownNodes,
    name: String,
    /// Replica group of the leader.
    group: u16,
    current: tokio::sync::Mutex<Option<Session>>,
    /// Whether the client was disconnected.
    closed: AtomicBool,
    /// Last known address of the leader.
    leader: Mutex<Option<String>>,
}

/// The time that a call may search for the leader.
pub(crate) struct Search {
    until: Instant,
    /// Time of the last attempt.
    looked: Instant,
}

impl Search {
    pub(crate) fn begin() -> Self {
        let looked = Instant::now();
        Self {
            until: looked + PATIENCE,
            looked,
        }
    }

    /// Notes an attempt.
    pub(crate) fn look(&mut self) {
        self.looked = Instant::now();
    }

    /// Tells whether the last attempt is recent: after a long time without trouble, a search begins anew.
    pub(crate) fn is_fresh(&self) -> bool {
        self.looked.elapsed() < PATIENCE
    }

    /// Waits a moment, or fails once the time is up.
    pub(crate) async fn again(&self) -> Result<(), ClientError> {
        if Instant::now() >= self.until {
            return Err(ClientError::NoLeader);
        }
        tokio::time::sleep(AGAIN).await;
        Ok(())
    }
}

impl Sessions {
    pub(crate) fn new(seeds: Vec<SocketAddr>, known: &KnownNodes, name: &str, group: u16) -> Self {
        Self {
            seeds,
            known: known.clone(),
            name: name.to_owned(),
            group,
            current: tokio::sync::Mutex::default(),
            closed: AtomicBool::new(false),
            leader: Mutex::default(),
        }
    }

    /// Tells whether another node may answer for a silent node.
    pub(crate) fn has_others(&self) -> bool {
        self.seeds.len() > 1 && !self.is_closed()
    }

    /// Tells whether the client was disconnected.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Returns the current connection, if there is one.
    pub(crate) async fn current(&self) -> Option<Session> {
        self.current.lock().await.clone().filter(|s| !s.peer.is_closed())
    }

    /// Returns the current connection, or a new connection: to the known leader, or to the first node that
    /// answers.
    pub(crate) async fn get(&self) -> Result<Session, ClientError> {
        let mut current = self.current.lock().await;
        if self.is_closed() {
            return Err(PeerError::Lost("the client was disconnected".to_owned()).into());
        }
        if let Some(session) = current.as_ref().filter(|s| !s.peer.is_closed()) {
            return Ok(session.clone());
        }
        let was = current.take().map(|s| s.addr);
        let leader = self.leader.lock().take();
        let mut addrs = Vec::new();
        if let Some(leader) = leader
            && let Ok(found) = tokio::net::lookup_host(&leader).await
        {
            addrs.extend(found);
        }
        // The node of the lost connection comes last.
        let (lost, others): (Vec<_>, Vec<_>) = self.seeds.iter().copied().partition(|a| Some(*a) == was);
        addrs.extend(others.into_iter().chain(lost));
        let session = first_of(addrs, &self.known, &self.name).await?;
        Ok(current.insert(session).clone())
    }

    /// Resolves with the leader's address once a node other than the connected node leads. Runs while an
    /// answer is due: a dead node is silent, and its connection takes long to time out.
    pub(crate) async fn moved(&self) -> Option<String> {
        if !self.has_others() {
            return std::future::pending().await;
        }
        let begun = Instant::now();
        loop {
            // Often during a possible election, then less and less: a fetch may wait for a minute.
            let pause = (begun.elapsed() / 4).clamp(PROBE, PROBE_MAX);
            tokio::time::sleep(pause).await;
            let current = self.current.lock().await.as_ref().map(|s| s.addr);
            for addr in self.seeds.iter().filter(|a| Some(**a) != current) {
                let asked =
                    tokio::time::timeout(PROBE, leads(*addr, &self.known, &self.name, self.group)).await;
                match asked.ok().flatten() {
                    Some(leader) if current.is_none_or(|c| c.to_string() != leader) => return Some(leader),
                    // No other leader is known: the node is busy, or the election goes on.
                    Some(_) => break,
                    None => {}
                }
            }
        }
    }

    /// Opens a stream on the current connection. A connection that opens no stream is dropped.
    pub(crate) async fn stream(&self) -> Result<PeerStream, ClientError> {
        let session = self.get().await?;
        match session.peer.open().await {
            Ok(stream) => Ok(stream),
            Err(e) => {
                self.lost(&session).await;
                Err(e.into())
            }
        }
    }

    /// Drops the connection to a node that does not lead, in favour of `leader`.
    pub(crate) async fn elsewhere(&self, leader: Option<String>) {
        *self.leader.lock() = leader;
        if let Some(session) = self.current.lock().await.as_ref() {
            session.peer.close("another node leads");
        }
    }

    /// Closes the connection at once.
    pub(crate) fn disconnect(&self) {
        self.closed.store(true, Ordering::Relaxed);
        if let Ok(mut current) = self.current.try_lock()
            && let Some(session) = current.take()
        {
            session.peer.close("disconnected");
        }
    }

    async fn lost(&self, session: &Session) {
        let current = self.current.lock().await;
        if current.as_ref().is_some_and(|c| c.addr == session.addr) {
            session.peer.close("lost");
        }
    }
}

/// Asks the node at `addr` for the address of the leader of `group`.
async fn leads(addr: SocketAddr, known: &KnownNodes, name: &str, group: u16) -> Option<String> {
    let session = connect(addr, known, name).await.ok()?;
    let mut stream = session.peer.open().await.ok()?;
    let answer = crate::exchange(&mut stream, &Request::Leader { group }, &[]).await;
    session.peer.close("done");
    match answer {
        Ok(_) => Some(addr.to_string()),
        Err(ClientError::Elsewhere(leader)) => leader,
        Err(_) => None,
    }
}

/// Connects to the first of `addrs` that answers. A silent node delays the next only briefly, as in RFC 8305.
async fn first_of(addrs: Vec<SocketAddr>, known: &KnownNodes, name: &str) -> Result<Session, ClientError> {
    let mut tries = FuturesUnordered::new();
    let mut addrs = addrs.into_iter();
    let mut last = ClientError::NoLeader;
    loop {
        if let Some(addr) = addrs.next() {
            tries.push(connect(addr, known, name));
        } else if tries.is_empty() {
            return Err(last);
        }
        let more = addrs.len() > 0;
        tokio::select! {
            tried = tries.next(), if !tries.is_empty() => match tried {
                Some(Ok(session)) => return Ok(session),
                Some(Err(e)) => last = e,
                None => {}
            },
            () = tokio::time::sleep(NEXT_SEED), if more => {}
        }
    }
}

async fn connect(addr: SocketAddr, known: &KnownNodes, name: &str) -> Result<Session, ClientError> {
    let peer = weir_peer::connect(addr, known).await?;
    let mut hello = peer.open().await?;
    let message = Hello {
        magic: MAGIC,
        version: VERSION,
        client: name.to_owned(),
    };
    write_frame(&mut hello.tx, &message, &[]).await?;
    let _ = hello.tx.finish();
    let welcome = read_frame::<Welcome>(&mut hello.rx, HELLO_BYTES_MAX).await?;
    let welcome = welcome
        .ok_or(PeerError::Lost("node closed without a word".to_owned()))?
        .head;
    if let Some(error) = welcome.error {
        return Err(ClientError::Node(error));
    }
    Ok(Session {
        peer,
        addr,
        node_version: welcome.node_version,
    })
}

pub(crate) type Shared = Arc<Sessions>;
