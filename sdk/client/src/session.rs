//! Connections: to the node that leads a group, found by asking any.

use crate::error::ClientError;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use weir_peer::protocol::{Hello, MAGIC, Request, VERSION, Welcome};
use weir_peer::{KnownNodes, Peer, PeerError, PeerStream, read_frame, write_frame};
use weir_types::limits::HELLO_BYTES_MAX;

/// A site without a leader has one again after an election or two; beyond that somebody should hear of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// A seed that has not answered after this time is no longer waited for alone.
const NEXT_SEED: Duration = Duration::from_millis(250);
/// An answer that takes longer has one ask around who leads, less and less often: an election takes about a second.
const PROBE: Duration = Duration::from_millis(250);
const PROBE_MAX: Duration = Duration::from_secs(3);
/// How long to wait before asking again who leads.
const AGAIN: Duration = Duration::from_millis(100);

/// A connection to one node.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) peer: Peer,
    addr: SocketAddr,
    pub(crate) node_version: String,
}

/// Finds and keeps the connection to the node that leads.
pub(crate) struct Sessions {
    seeds: Vec<SocketAddr>,
    known: KnownNodes,
    name: String,
    /// The replica group whose leader is looked for.
    group: u16,
    current: tokio::sync::Mutex<Option<Session>>,
    /// Nobody is to be asked any more.
    closed: AtomicBool,
    /// Where the leader was last said to be.
    leader: Mutex<Option<String>>,
}

/// How long one call looks for the leader.
pub(crate) struct Search {
    until: Instant,
    /// When it was last gone on with.
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

    /// It goes on.
    pub(crate) fn look(&mut self) {
        self.looked = Instant::now();
    }

    /// Whether it was gone on with lately: what is looked for after a long time in which nothing was wrong is another thing.
    pub(crate) fn is_fresh(&self) -> bool {
        self.looked.elapsed() < PATIENCE
    }

    /// Waits a moment, or says that it was long enough.
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

    /// Whether another node may answer when one does not.
    pub(crate) fn has_others(&self) -> bool {
        self.seeds.len() > 1 && !self.is_closed()
    }

    /// Whether it was disconnected.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// The current connection, if there is one.
    pub(crate) async fn current(&self) -> Option<Session> {
        self.current.lock().await.clone().filter(|s| !s.peer.is_closed())
    }

    /// The current connection, or a new one: to the leader if it is known, else to the first that answers.
    pub(crate) async fn get(&self) -> Result<Session, ClientError> {
        let mut current = self.current.lock().await;
        if self.is_closed() {
            return Err(PeerError::Lost("the client was disconnected".to_owned()).into());
        }
        if let Some(session) = current.as_ref().filter(|s| !s.peer.is_closed()) {
            return Ok(session.clone());
        }
        let was = current.take().map(|s| s.addr);
        let leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut addrs = Vec::new();
        if let Some(leader) = leader
            && let Ok(found) = tokio::net::lookup_host(&leader).await
        {
            addrs.extend(found);
        }
        // The one that was lost comes last.
        let (lost, others): (Vec<_>, Vec<_>) = self.seeds.iter().copied().partition(|a| Some(*a) == was);
        addrs.extend(others.into_iter().chain(lost));
        let session = first_of(addrs, &self.known, &self.name).await?;
        Ok(current.insert(session).clone())
    }

    /// Resolves when another node than that of the current connection leads; says where. For while an answer is waited
    /// for: a node that is gone says nothing, and its connection takes long to be given up.
    pub(crate) async fn moved(&self) -> Option<String> {
        if !self.has_others() {
            return std::future::pending().await;
        }
        let begun = Instant::now();
        loop {
            // Often while an election may be under way, then less and less: a poll may wait for a minute.
            let pause = (begun.elapsed() / 4).clamp(PROBE, PROBE_MAX);
            tokio::time::sleep(pause).await;
            let current = self.current.lock().await.as_ref().map(|s| s.addr);
            for addr in self.seeds.iter().filter(|a| Some(**a) != current) {
                let asked =
                    tokio::time::timeout(PROBE, leads(*addr, &self.known, &self.name, self.group)).await;
                match asked.ok().flatten() {
                    Some(leader) if current.is_none_or(|c| c.to_string() != leader) => return Some(leader),
                    // It does not know of another either: the node is busy, or the election is not over.
                    Some(_) => break,
                    None => {}
                }
            }
        }
    }

    /// A new stream on the current connection. One that does not open is of no more use.
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

    /// The node of the current connection does not lead; `leader` is said to.
    pub(crate) async fn elsewhere(&self, leader: Option<String>) {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = leader;
        if let Some(session) = self.current.lock().await.as_ref() {
            session.peer.close("another node leads");
        }
    }

    /// Ends the connection at once.
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

/// Where the node at `addr` says that the leader of `group` is.
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

/// The first of `addrs` that answers. One that is silent does not hold up the next for long, as in RFC 8305.
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
