//! A network within the process, for tests. Groups reach each other until a test cuts the line.

use crate::group::Group;
use crate::transport::{Channel, Incoming, Outgoing, Transport};
use crate::types::{Member, NodeId};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard, Weak};
use tokio::sync::{mpsc, watch};
use weir_types::GroupId;
use weir_types::limits::REPLICA_PARTS_BYTES_MAX;
use weir_types::sync::Mutex;

/// Messages under way on a stream.
const UNDER_WAY: usize = 64;

/// The groups of a node.
type Find = Arc<dyn Fn(GroupId) -> Option<Group> + Send + Sync>;

/// The network. Clones are handles to the same network.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    nodes: Mutex<BTreeMap<NodeId, Find>>,
    /// Pairs of nodes that cannot reach each other.
    cut: watch::Sender<BTreeSet<(NodeId, NodeId)>>,
    message_bytes_max: AtomicUsize,
}

impl Default for Hub {
    fn default() -> Self {
        Self(Arc::new(Inner {
            nodes: Mutex::default(),
            cut: watch::Sender::default(),
            message_bytes_max: AtomicUsize::new(REPLICA_PARTS_BYTES_MAX),
        }))
    }
}

impl Hub {
    /// Returns the transport of `node`.
    pub fn transport(&self, node: NodeId) -> Arc<dyn Transport> {
        Arc::new(From {
            node,
            hub: Arc::downgrade(&self.0),
        })
    }

    /// Makes the groups from `find` reachable as `node`, replacing earlier ones.
    pub fn add(&self, node: NodeId, find: impl Fn(GroupId) -> Option<Group> + Send + Sync + 'static) {
        self.nodes().insert(node, Arc::new(find));
    }

    /// Removes a node.
    pub fn remove(&self, node: NodeId) {
        self.nodes().remove(&node);
    }

    /// Cuts the line from `from` to `to`: messages under way are lost.
    pub fn cut_one_way(&self, from: NodeId, to: NodeId) {
        self.0.cut.send_modify(|cut| {
            cut.insert((from, to));
        });
    }

    /// Cuts the line between two nodes: what is under way is lost.
    pub fn cut(&self, a: NodeId, b: NodeId) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Refuses messages of more than `bytes` from now on.
    pub fn limit_messages(&self, bytes: usize) {
        self.0.message_bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// Joins two nodes again.
    pub fn join(&self, a: NodeId, b: NodeId) {
        self.0
            .cut
            .send_modify(|cut| cut.retain(|pair| *pair != (a, b) && *pair != (b, a)));
    }

    /// Restores all lines.
    pub fn heal(&self) {
        self.0.cut.send_modify(BTreeSet::clear);
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeId, Find>> {
        self.0.nodes.lock()
    }
}

/// The groups hold their transport, and the network holds the groups.
struct From {
    node: NodeId,
    hub: Weak<Inner>,
}

impl Transport for From {
    fn open(&self, node: NodeId, _: Member) -> BoxFuture<'static, io::Result<Channel>> {
        let found = self.hub.upgrade().map(Hub).map(|hub| {
            let line = Line {
                us: self.node,
                them: node,
                cut: hub.0.cut.subscribe(),
            };
            (line, hub.nodes().get(&node).cloned())
        });
        Box::pin(async move {
            let (line, find) = found.ok_or_else(|| io::Error::from(io::ErrorKind::NetworkDown))?;
            line.check(line.us, line.them)?;
            let find = find.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            let (to_them, from_us) = mpsc::channel(UNDER_WAY);
            let (to_us, from_them) = mpsc::channel(UNDER_WAY);
            let theirs = channel(&line.other_end(), to_us, from_us);
            tokio::spawn(async move {
                if let Err(error) = crate::group::serve::serve(&*find, theirs).await {
                    tracing::debug!(%error, "a stream of a replica ended");
                }
            });
            Ok(channel(&line, to_them, from_them))
        })
    }

    fn suspect(&self, _: NodeId) {}

    fn message_bytes_max(&self) -> usize {
        let hub = self.hub.upgrade();
        hub.map_or(REPLICA_PARTS_BYTES_MAX, |hub| {
            hub.message_bytes_max.load(Ordering::Relaxed)
        })
    }
}

fn channel(line: &Line, tx: mpsc::Sender<Bytes>, rx: mpsc::Receiver<Bytes>) -> Channel {
    Channel {
        tx: Box::new(Out(line.clone(), tx)),
        rx: Box::new(In(line.clone(), rx)),
    }
}

/// One end of a stream.
#[derive(Clone)]
struct Line {
    us: NodeId,
    them: NodeId,
    cut: watch::Receiver<BTreeSet<(NodeId, NodeId)>>,
}

impl Line {
    fn other_end(&self) -> Self {
        Self {
            us: self.them,
            them: self.us,
            cut: self.cut.clone(),
        }
    }

    fn check(&self, from: NodeId, to: NodeId) -> io::Result<()> {
        if self.cut.borrow().contains(&(from, to)) {
            Err(io::Error::from(io::ErrorKind::ConnectionReset))
        } else {
            Ok(())
        }
    }

    /// Resolves when the other side can send nothing more.
    async fn broken(&mut self) -> io::Error {
        loop {
            if let Err(e) = self.check(self.them, self.us) {
                return e;
            }
            if self.cut.changed().await.is_err() {
                return io::Error::from(io::ErrorKind::ConnectionAborted);
            }
        }
    }
}

struct Out(Line, mpsc::Sender<Bytes>);

struct In(Line, mpsc::Receiver<Bytes>);

impl Outgoing for Out {
    fn send(&mut self, parts: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.0.check(self.0.us, self.0.them)?;
            let message = Bytes::from(parts.concat());
            let sent = self.1.send(message).await;
            sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
        })
    }
}

impl Incoming for In {
    fn recv(&mut self) -> BoxFuture<'_, io::Result<Option<Bytes>>> {
        Box::pin(async move {
            tokio::select! {
                biased;
                broken = self.0.broken() => Err(broken),
                message = self.1.recv() => Ok(message),
            }
        })
    }
}
