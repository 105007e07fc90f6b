//! What every request is handled with.

use crate::error::Code;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use weir_broker::{Broker, Principal};
use weir_types::limits::KAFKA_RECEIVE_BYTES_MAX;

/// The number of a node that stands alone. Not 0, which a client in a dynamic language may take for none.
pub(crate) const NODE_ID: i32 = 1;
/// The one epoch of a partition whose leader never changes.
pub(crate) const LEADER_EPOCH: i32 = 0;

/// Settings of the listener.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Host and port that clients are told to connect to; `None`: the address that they came to.
    pub advertise: Option<(String, u16)>,
    /// A name for the cluster that stays the same over restarts.
    pub cluster_id: String,
    /// Where the data lies, for DescribeLogDirs.
    pub data_dir: String,
    /// Whether topics are made when they are first asked for.
    pub auto_create: bool,
    /// Partitions of a topic that is made without a number of them.
    pub default_partitions: u32,
    /// How long the first rebalance of an empty group waits, for DescribeConfigs.
    pub group_initial_delay: Duration,
    /// How long offsets of a group without members are kept, for DescribeConfigs.
    pub offsets_retention_ms: i64,
}

/// The listener's part of the node, shared by all connections.
pub(crate) struct Node {
    pub(crate) broker: Broker,
    pub(crate) settings: Settings,
    /// Bytes of large requests that are being received.
    pub(crate) receiving: Arc<Semaphore>,
    begun: Instant,
}

impl Node {
    pub(crate) fn new(broker: Broker, settings: Settings) -> Self {
        Self {
            broker,
            settings,
            receiving: Arc::new(Semaphore::new(KAFKA_RECEIVE_BYTES_MAX)),
            begun: Instant::now(),
        }
    }

    /// When a long poll of `wait` that begins now is answered if nothing comes: up to an eighth earlier, so that polls
    /// end together. A hundred idle consumers then wake the node a dozen times a second and not two hundred times.
    pub(crate) fn end_of_wait(&self, now: Instant, wait: Duration) -> Instant {
        let grain = (wait / 8).as_millis().max(1);
        let end = now.saturating_duration_since(self.begun) + wait;
        let rest = Duration::from_millis((end.as_millis() % grain) as u64);
        now + wait.saturating_sub(rest)
    }
}

/// One connection, as its requests see it.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) node: Arc<Node>,
    pub(crate) who: Principal,
    pub(crate) peer: SocketAddr,
    /// The address that the client came to.
    pub(crate) local: SocketAddr,
    turns: Arc<AtomicUsize>,
}

impl Session {
    pub(crate) fn new(node: Arc<Node>, peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            node,
            who: Principal::anonymous(String::new()),
            peer,
            local,
            turns: Arc::default(),
        }
    }

    /// Host and port for a client to connect to.
    pub(crate) fn advertised(&self) -> (String, i32) {
        match &self.node.settings.advertise {
            Some((host, port)) => (host.clone(), i32::from(*port)),
            None => (self.local.ip().to_string(), i32::from(self.local.port())),
        }
    }

    /// What a client's idea of the leader's epoch is to ours.
    pub(crate) fn check_epoch(&self, theirs: i32) -> Code {
        match theirs {
            -1 => Code::None,
            epoch if epoch < LEADER_EPOCH => Code::FencedLeaderEpoch,
            epoch if epoch > LEADER_EPOCH => Code::UnknownLeaderEpoch,
            _ => Code::None,
        }
    }

    /// Counts up, for taking turns.
    pub(crate) fn turn(&self) -> usize {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }
}
