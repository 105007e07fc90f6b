//! The transport of real nodes: a QUIC connection to each member, from the socket that the node listens on.

use crate::group::Group;
use crate::starts::Seen;
use crate::starts::Started;
use crate::transport::Channel;
use crate::transport::Incoming;
use crate::transport::Outgoing;
use crate::transport::Transport;
use crate::types::Member;
use crate::types::NodeId;
use crate::wire::Claim;
use crate::wire::JoinReply;
use crate::wire::JoinRequest;
use crate::wire::Open;
use crate::wire::decode;
use crate::wire::encode;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;
use weir_peer::{Identity, Listener, Peer, PeerError, PeerStream, RecvStream, SendStream};
use weir_peer::{read_in_parts, read_message, write_in_parts, write_message};
use weir_types::GroupId;
use weir_types::limits::{HELLO_BYTES_MAX, REPLICA_MESSAGE_BYTES_MAX, REPLICA_PARTS_BYTES_MAX};
use weir_types::sync::Mutex;

/// Connections to the other nodes of a site. Clones are handles to the same connections.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    listener: Arc<Listener>,
    identity: Arc<Identity>,
    connections: Mutex<BTreeMap<NodeId, Arc<tokio::sync::Mutex<Option<Connection>>>>>,
    /// Trusted keys beside those of the known members: this node may be far behind.
    trusted: Mutex<BTreeSet<String>>,
    /// Serializes questions about members, since anybody can cause them.
    vouching: tokio::sync::Mutex<()>,
}

/// A connection to a member, with the time of the last received bytes.
struct Connection {
    peer: Peer,
    datagrams: u64,
    seen: Instant,
}

/// Silence of a connection, keep-alives included, after which the connection is given up while an answer is
/// awaited. Twice the interval of keep-alives.
const SILENCE: Duration = Duration::from_secs(1);

impl Peers {
    /// Makes connections from `listener`'s socket, as `identity`.
    pub fn new(listener: Arc<Listener>, identity: Arc<Identity>) -> Self {
        Self(Arc::new(Inner {
            listener,
            identity,
            connections: Mutex::default(),
            trusted: Mutex::default(),
            vouching: tokio::sync::Mutex::default(),
        }))
    }

    /// Accepts nodes with these keys, each until this node has seen the node among the members.
    pub fn trust(&self, keys: impl IntoIterator<Item = String>) {
        self.trusted().extend(keys);
    }

    fn trusted(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.trusted.lock()
    }

    /// Serves a connected member of the site until the connection ends. Another node may only ask to join,
    /// which `host` decides.
    ///
    /// # Errors
    /// Fails when the peer is not a member, or the connection is lost.
    ///
    /// # Cancel safety
    /// Dropping the future closes no stream by force; messages under way are lost.
    pub fn accept(&self, peer: Peer, host: Arc<dyn Host>) -> BoxFuture<'_, Result<(), PeerError>> {
        Box::pin(async move {
            let Some(key) = peer.key() else {
                let addr = peer.remote_addr();
                peer.close("no key");
                return Err(PeerError::Stranger {
                    addr,
                    seen: String::new(),
                });
            };
            let site = host.site();
            if !self.is_known(&key, &site) && !self.let_in(&peer, &key, &site, &*host).await {
                let addr = peer.remote_addr();
                peer.close("not a member of this site");
                return Err(PeerError::Stranger { addr, seen: key });
            }
            peer.widen();
            loop {
                let stream = peer.accept().await?;
                // Check for each stream: the member may have been removed since.
                if !self.is_known(&key, &site) {
                    peer.close("not a member of this site any more");
                    let addr = peer.remote_addr();
                    return Err(PeerError::Stranger { addr, seen: key });
                }
                let asks = (key.clone(), peer.binding(), peer.remote_addr().ip());
                let host = Arc::clone(&host);
                tokio::spawn(async move {
                    if let Err(error) = serve_stream(&*host, stream, asks).await {
                        tracing::debug!(%error, "a stream of a replica ended");
                    }
                });
            }
        })
    }

    /// Returns true when the node with the key `key` is a member of `group`, or was vouched for.
    pub fn knows(&self, key: &str, group: &Group) -> bool {
        self.is_known(key, group)
    }

    /// Returns true when the node with the key `key` is a member as far as this node knows. A trusted or
    /// vouched node is accepted until it appears among the members: from then on the members decide.
    fn is_known(&self, key: &str, group: &Group) -> bool {
        let is_member = group.members().values().any(|m| m.key == key);
        let mut trusted = self.trusted();
        match is_member {
            true => {
                trusted.remove(key);
                true
            }
            false => trusted.contains(key),
        }
    }

    /// Handles a node that this node does not know. A join request is answered. A node that speaks as a
    /// member may be a member: this node learns of members from entries, which only a leader unknown to it
    /// may be able to send. So ask the known members.
    async fn let_in(&self, peer: &Peer, key: &str, group: &Group, host: &dyn Host) -> bool {
        let first = tokio::time::timeout(JOIN_WITHIN, first_word(peer)).await;
        match first {
            Ok(Ok((Open::Join(request), level, stream))) => {
                let reply = host.admit(request, key.to_owned(), peer.binding(), level);
                let _ = tokio::time::timeout(JOIN_WITHIN, answer_join(reply, stream)).await;
                false
            }
            // A removed member: tell it so.
            Ok(Ok((Open::Started(started), _, mut stream))) if !self.is_vouched_for(key, group).await => {
                let seen = host.started(&started, key, peer.remote_addr().ip());
                if let Ok(answer) = encode(&seen, Vec::new()) {
                    let told = async {
                        write_message(&mut stream.tx, answer).await?;
                        let _ = stream.tx.finish();
                        let _ = stream.tx.stopped().await;
                        Ok::<(), PeerError>(())
                    };
                    let _ = tokio::time::timeout(TELL_WITHIN, told).await;
                }
                false
            }
            // The other side opens its stream again.
            Ok(Ok((Open::Group { .. } | Open::Started(_), ..))) if self.is_vouched_for(key, group).await => {
                true
            }
            _ => {
                let addr = peer.remote_addr();
                tracing::warn!(%addr, key, "a node that is no member was turned away");
                false
            }
        }
    }

    async fn is_vouched_for(&self, key: &str, group: &Group) -> bool {
        let Ok(_alone) = self.0.vouching.try_lock() else {
            return false;
        };
        let members = group.members().into_iter();
        for (id, member) in members.filter(|(id, _)| *id != group.node()) {
            let keys = crate::group::client::member_keys(group, id, member).await;
            if keys.is_ok_and(|keys| keys.iter().any(|k| k == key)) {
                tracing::info!(key, by = id, "a member that this node did not know of");
                self.trusted().insert(key.to_owned());
                return true;
            }
        }
        false
    }

    /// Asks the node at `addr` to join the site. `key` is the expected key, or `None` for any. `make` gets
    /// the binding of the connection. Returns the answer with the binding and the proven key.
    ///
    /// # Errors
    /// Fails when nobody answers, or the key differs.
    ///
    /// # Cancel safety
    /// A dropped request may have been accepted.
    pub async fn join(
        &self,
        addr: &str,
        key: Option<&str>,
        make: impl FnOnce(&[u8; 32]) -> JoinRequest,
    ) -> Result<(JoinReply, [u8; 32], String), PeerError> {
        let lost = |e: io::Error| PeerError::Lost(e.to_string());
        let to = resolve(addr)
            .await
            .map_err(|e| PeerError::Lost(format!("{addr}: {e}")))?;
        let peer = self.0.listener.connect(to, &self.0.identity, key).await?;
        let (binding, key) = (peer.binding(), peer.key().unwrap_or_default());
        let mut stream = peer.open().await?;
        let open = Open::Join(make(&binding)).encode().map_err(lost)?;
        write_message(&mut stream.tx, open).await?;
        let answer = tokio::time::timeout(
            JOIN_WITHIN,
            read_message(&mut stream.rx, REPLICA_MESSAGE_BYTES_MAX),
        );
        let answer = answer.await.map_err(|_| PeerError::Timeout)??;
        let answer = answer.ok_or_else(|| PeerError::Lost("no answer".to_owned()))?;
        let (reply, _) = decode::<JoinReply>(answer).map_err(lost)?;
        peer.close("done");
        Ok((reply, binding, key))
    }

    /// Tells `node`, which is reached at `member`, of this node's start.
    ///
    /// # Errors
    /// Fails when the node does not answer in time, or its release knows nothing of starts.
    ///
    /// # Cancel safety
    /// Safe: the notice can be repeated.
    pub async fn tell_started(
        &self,
        node: NodeId,
        member: &Member,
        started: &Started,
    ) -> Result<Seen, PeerError> {
        let lost = |e: io::Error| PeerError::Lost(e.to_string());
        let told = async {
            let mut stream = self.stream(node, member).await?;
            let open = Open::Started(started.clone()).encode().map_err(lost)?;
            write_message(&mut stream.tx, open).await?;
            let answer = read_message(&mut stream.rx, HELLO_BYTES_MAX).await?;
            let answer = answer.ok_or_else(|| PeerError::Lost("no answer".to_owned()))?;
            decode::<Seen>(answer).map(|(seen, _)| seen).map_err(lost)
        };
        let told = tokio::time::timeout(TELL_WITHIN, told).await;
        told.unwrap_or(Err(PeerError::Timeout))
    }

    /// Asks each of `members` to let this node, a member that lost its data, join under a new id. Only the
    /// leader can.
    ///
    /// # Errors
    /// Returns the leader's refusal, or fails when there is no leader or no answer.
    ///
    /// # Cancel safety
    /// A dropped request may have been accepted.
    pub async fn rejoin(
        &self,
        members: &BTreeMap<NodeId, Member>,
        own: &Member,
    ) -> Result<(NodeId, BTreeMap<NodeId, Member>), Turned> {
        let mut last = "none of the others answers".to_owned();
        let others = members.values().filter(|m| m.key != own.key);
        let mut at: VecDeque<(String, String)> = others.map(|m| (m.quic.clone(), m.key.clone())).collect();
        let mut asked = BTreeSet::new();
        while let Some((addr, key)) = at.pop_front() {
            if !asked.insert(key.clone()) {
                continue;
            }
            let request = |_: &[u8; 32]| JoinRequest {
                claim: Claim::Again,
                member: own.clone(),
            };
            match self.join(&addr, Some(&key), request).await {
                Ok((JoinReply::Welcome { node, members, .. }, ..)) => return Ok((node, members)),
                Ok((JoinReply::Refused(why), ..)) => return Err(Turned::Away(why)),
                Ok((JoinReply::NotNow(why), ..)) => last = format!("the node at {addr} says: {why}"),
                // The member may be newer than this node's list; a known node vouches for the key.
                Ok((JoinReply::Elsewhere { addr, key }, ..)) => at.push_front((addr, key)),
                Err(e) => tracing::debug!(addr, error = %e, "not reached"),
            }
        }
        Err(Turned::Back(last))
    }

    fn slot(&self, node: NodeId) -> Arc<tokio::sync::Mutex<Option<Connection>>> {
        let mut all = self.0.connections.lock();
        Arc::clone(all.entry(node).or_default())
    }

    async fn stream(&self, node: NodeId, member: &Member) -> Result<PeerStream, PeerError> {
        let slot = self.slot(node);
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|c| !c.peer.is_closed())
            && let Ok(stream) = connection.peer.open().await
        {
            return Ok(stream);
        }
        *slot = None;
        let addr = resolve(&member.quic).await;
        let addr = addr.map_err(|e| PeerError::Lost(format!("{}: {e}", member.quic)))?;
        let peer = self
            .0
            .listener
            .connect(addr, &self.0.identity, Some(&member.key))
            .await?;
        let stream = peer.open().await?;
        *slot = Some(Connection {
            datagrams: peer.datagrams_received(),
            seen: Instant::now(),
            peer,
        });
        Ok(stream)
    }
}

/// A refused join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Turned {
    /// Final: asking again is useless.
    #[error("{0}")]
    Away(String),
    /// Temporary: ask again later.
    #[error("{0}")]
    Back(String),
}

/// The node whose groups are served.
pub trait Host: Send + Sync + 'static {
    /// Returns the group of all nodes, whose members may connect.
    fn site(&self) -> Group;
    /// Returns the group `id`, if this node has a replica.
    fn group(&self, id: GroupId) -> Option<Group>;
    /// Returns the reason why a node of `level` cannot take part in the site, if there is a reason.
    fn too_low(&self, level: u32) -> Option<String>;
    /// Answers the join request of a node of `level` with the key `key`, on a connection with `binding`.
    fn admit(
        &self,
        request: JoinRequest,
        key: String,
        binding: [u8; 32],
        level: u32,
    ) -> BoxFuture<'static, JoinReply>;
    /// Judges a process that speaks from the address `from` for the member with the key `key`.
    fn started(&self, started: &Started, key: &str, from: IpAddr) -> Seen;
}

/// Longest time of a join: an entry and a change of members, each a few round trips and a write on the
/// slowest disk.
const JOIN_WITHIN: Duration = Duration::from_secs(15);

/// Longest time of an answer to a start, which needs no disk.
const TELL_WITHIN: Duration = Duration::from_secs(1);

/// Serves a stream of a member: of its replica, or of a former member that asks to rejoin.
async fn serve_stream(
    host: &dyn Host,
    mut stream: PeerStream,
    (key, binding, from): (String, [u8; 32], IpAddr),
) -> Result<(), PeerError> {
    let lost = |e: io::Error| PeerError::Lost(e.to_string());
    let first = read_message(&mut stream.rx, REPLICA_MESSAGE_BYTES_MAX).await?;
    let Some(first) = first else { return Ok(()) };
    match Open::decode(first) {
        Ok((Open::Join(request), level)) => {
            let reply = host.admit(request, key, binding, level);
            let answered = tokio::time::timeout(JOIN_WITHIN, answer_join(reply, stream)).await;
            answered.unwrap_or(Err(PeerError::Timeout))
        }
        Ok((Open::Started(started), _)) => {
            let seen = host.started(&started, &key, from);
            let answer = encode(&seen, Vec::new()).map_err(lost)?;
            write_message(&mut stream.tx, answer).await
        }
        Ok((
            Open::Group {
                group: id,
                to,
                purpose,
            },
            level,
        )) => {
            if let Some(why) = host.too_low(level) {
                tracing::warn!(key, why, "a member of an earlier release is turned away");
                return Err(PeerError::Malformed(why));
            }
            let group = host.group(id);
            let group = group
                .ok_or_else(|| PeerError::Malformed(format!("this node has no replica of group {id}")))?;
            let served = group.serve_opened(id, to, purpose, channel(stream)).await;
            served.map_err(lost)
        }
        Err(e) => Err(PeerError::Malformed(e.to_string())),
    }
}

async fn first_word(peer: &Peer) -> Result<(Open, u32, PeerStream), PeerError> {
    let mut stream = peer.accept().await?;
    let first = read_message(&mut stream.rx, HELLO_BYTES_MAX).await?;
    let first = first.ok_or_else(|| PeerError::Malformed("no word".to_owned()))?;
    let (open, level) = Open::decode(first).map_err(|e| PeerError::Malformed(e.to_string()))?;
    Ok((open, level, stream))
}

async fn answer_join(reply: BoxFuture<'static, JoinReply>, mut stream: PeerStream) -> Result<(), PeerError> {
    let lost = |e: io::Error| PeerError::Lost(e.to_string());
    write_message(&mut stream.tx, encode(&reply.await, Vec::new()).map_err(lost)?).await?;
    let _ = stream.tx.finish();
    // The answer must arrive before the connection closes.
    let _ = stream.tx.stopped().await;
    Ok(())
}

async fn resolve(addr: &str) -> io::Result<SocketAddr> {
    let mut found = tokio::net::lookup_host(addr).await?;
    found
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("`{addr}` has no address")))
}

impl Transport for Peers {
    fn open(&self, node: NodeId, member: Member) -> BoxFuture<'static, io::Result<Channel>> {
        let this = self.clone();
        Box::pin(async move {
            let stream = this.stream(node, &member).await;
            stream.map(channel).map_err(io::Error::other)
        })
    }

    fn suspect(&self, node: NodeId) {
        let slot = self.slot(node);
        let Ok(mut slot) = slot.try_lock() else { return };
        let Some(connection) = slot.as_mut() else { return };
        let datagrams = connection.peer.datagrams_received();
        if datagrams != connection.datagrams {
            (connection.datagrams, connection.seen) = (datagrams, Instant::now());
        } else if connection.seen.elapsed() > SILENCE {
            connection.peer.close("no answer");
            *slot = None;
        }
    }
}

/// Makes a channel of replicas from a stream.
fn channel(stream: PeerStream) -> Channel {
    Channel {
        tx: Box::new(Out(stream.tx)),
        rx: Box::new(In(stream.rx)),
    }
}

struct Out(SendStream);

struct In(RecvStream);

impl Outgoing for Out {
    fn send(&mut self, parts: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let written = write_in_parts(&mut self.0, parts, REPLICA_MESSAGE_BYTES_MAX);
            written.await.map_err(io::Error::other)
        })
    }
}

impl Incoming for In {
    fn recv(&mut self) -> BoxFuture<'_, io::Result<Option<Bytes>>> {
        Box::pin(async move {
            // Only an entry from before the limit on entries is larger than a part.
            let read = read_in_parts(&mut self.0, REPLICA_MESSAGE_BYTES_MAX, REPLICA_PARTS_BYTES_MAX);
            read.await.map_err(io::Error::other)
        })
    }
}
