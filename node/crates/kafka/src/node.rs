//! The node and the session, as requests see them.

use crate::error::Code;
use crate::wire::Uuid;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard, OnceLock};
use std::time::{Duration, Instant};
use weir_broker::{Broker, Principal, SHARE_WITHIN, Taken, Topic, Unserved, UsedUp};
use weir_types::limits::{ANSWERS_BYTES_MAX, FETCH_BYTES_MAX, KAFKA_SMALL_BYTES};
use weir_types::sync::Mutex;
use weir_types::{GroupId, PartitionId};

/// Maximum wait of an answer without records for its memory: the client's own timeout (`request.timeout.ms`).
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Maximum extension of a long poll, in microseconds.
const GRAIN_MAX_US: u128 = 250_000;
/// Characters kept of a client's software name.
const SOFTWARE_CHARS_MAX: usize = 64;
/// Size of the table by request key, larger than any key (Kafka 4 has 92).
const KEYS: usize = 128;

/// Error message for a partition that cannot be placed on the requested nodes.
pub(crate) const NOT_PLACEABLE: &str = "no such node";

/// Settings of the listener.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Host and port that clients are told to connect to; `None`: the address they connected to.
    pub advertise: Option<(String, u16)>,
    /// Name of the cluster, stable over restarts.
    pub cluster_id: String,
    /// Data directory, for DescribeLogDirs.
    pub data_dir: String,
    /// True to create topics on first use.
    pub auto_create: bool,
    /// Partitions of a topic created without a number of partitions.
    pub default_partitions: u32,
    /// Delay of the first rebalance of an empty group, for DescribeConfigs.
    pub group_initial_delay: Duration,
    /// Retention of offsets of a group without members, for DescribeConfigs. In milliseconds.
    pub offsets_retention_ms: i64,
}

/// The listener's part of the node, shared by all connections.
pub(crate) struct Node {
    pub(crate) broker: Broker,
    pub(crate) settings: Settings,
    /// The largest answer so far, by request key.
    largest: [AtomicUsize; KEYS],
    begun: Instant,
}

impl Node {
    pub(crate) fn new(broker: Broker, settings: Settings) -> Self {
        Self {
            broker,
            settings,
            largest: std::array::from_fn(|_| AtomicUsize::new(0)),
            begun: Instant::now(),
        }
    }

    fn id_of(&self, identity: PartitionId) -> [u8; 16] {
        let named = Sha256::new()
            .chain_update(b"topic ")
            .chain_update(self.settings.cluster_id.as_bytes())
            .chain_update(identity.0.to_be_bytes())
            .finalize();
        let mut id = [0; 16];
        let (head, number) = id.split_at_mut(12);
        head.copy_from_slice(named.get(..12).unwrap_or(&[0; 12]));
        number.copy_from_slice(&identity.0.to_be_bytes());
        id
    }

    fn largest(&self, key: i16) -> Option<&AtomicUsize> {
        self.largest.get(usize::try_from(key).ok()?)
    }

    /// Returns the end of a long poll of `wait` that starts now: up to an eighth later, so that polls end
    /// together. A hundred idle consumers then wake the node a dozen times per second instead of two hundred
    /// times. Never earlier: clients take the wait for time without records.
    pub(crate) fn end_of_wait(&self, now: Instant, wait: Duration) -> Instant {
        let grain = (wait / 8).as_micros().clamp(1, GRAIN_MAX_US);
        let end = now.saturating_duration_since(self.begun) + wait;
        let ends = (end.as_micros() + 1).div_ceil(grain) * grain;
        self.begun + Duration::from_micros(u64::try_from(ends).unwrap_or(u64::MAX))
    }
}

/// A connection, as its requests see it.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) node: Arc<Node>,
    pub(crate) who: Principal,
    pub(crate) peer: SocketAddr,
    /// The address that the client connected to.
    pub(crate) local: SocketAddr,
    turns: Arc<AtomicUsize>,
    /// Name and version of the client's software, once the client has sent them.
    software: Arc<OnceLock<String>>,
    /// Resources of the answer being built, held until the answer is sent.
    answer: Arc<Mutex<Answer>>,
}

/// Resources of an answer.
#[derive(Default)]
pub(crate) struct Answer {
    /// The answer's share of the send memory.
    pub(crate) share: Option<Taken>,
    /// Time until which the client is throttled after the answer.
    pub(crate) until: Option<Instant>,
}

impl Session {
    pub(crate) fn new(node: Arc<Node>, peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            node,
            who: Principal::at("kafka", peer.ip(), String::new()),
            peer,
            local,
            turns: Arc::default(),
            software: Arc::default(),
            answer: Arc::default(),
        }
    }

    /// Returns host and port for clients to connect to.
    pub(crate) fn advertised(&self) -> (String, i32) {
        match &self.node.settings.advertise {
            Some((host, port)) => (host.clone(), i32::from(*port)),
            None => (self.local.ip().to_string(), i32::from(self.local.port())),
        }
    }

    /// Returns this node's id. Ids start with 1: clients in dynamic languages may take 0 for no id.
    pub(crate) fn node_id(&self) -> i32 {
        kafka_id(self.node.broker.group().node())
    }

    /// Returns the id of the node that changes topics and coordinates all groups; -1 if unknown.
    pub(crate) fn controller_id(&self) -> i32 {
        self.node.broker.leader().map_or(-1, |(id, _)| kafka_id(id))
    }

    /// Returns the replica group of a partition; the site's group for an unknown partition.
    pub(crate) fn group_of(&self, topic: &str, partition: i32) -> GroupId {
        let topic = self.node.broker.topic(topic);
        let partition = topic
            .zip(u32::try_from(partition).ok())
            .and_then(|(t, p)| t.partition(p));
        partition.map_or(GroupId::SITE, |id| id.group())
    }

    /// Returns the number added to the terms of a partition's group: see [`Broker::epoch_base`].
    fn epoch_base(&self, topic: &str, partition: i32) -> i32 {
        let topic = self.node.broker.topic(topic);
        let partition = topic
            .zip(u32::try_from(partition).ok())
            .and_then(|(t, p)| t.partition(p));
        partition.map_or(0, |id| self.node.broker.epoch_base(id))
    }

    /// Returns the leader of `group` (-1 if unknown) and its epoch, the term. The term is at most the latest
    /// known to this node.
    pub(crate) fn leader(&self, group: GroupId) -> (i32, i32) {
        let epoch = |term: u64| i32::try_from(term).unwrap_or(i32::MAX);
        match (
            self.node.broker.leader_of(group),
            self.node.broker.group_of(group),
        ) {
            (Some((id, term, _)), _) => (kafka_id(id), epoch(term)),
            (None, here) => (-1, here.map_or(-1, |group| epoch(group.term()))),
        }
    }

    /// Returns the leader of a partition and its epoch as clients know it.
    pub(crate) fn leader_of(&self, topic: &str, partition: i32) -> (i32, i32) {
        let (leader, term) = self.leader(self.group_of(topic, partition));
        (leader, term.saturating_add(self.epoch_base(topic, partition)))
    }

    /// Returns the id of a topic, which stays with the topic when its name is reused. The id combines the
    /// cluster's part with the number allocated to the topic's first partition, which is never allocated
    /// again.
    pub(crate) fn topic_id(&self, topic: &Topic) -> Uuid {
        let Some(first) = topic.partition(0) else {
            return Uuid::default();
        };
        Uuid(self.node.id_of(self.node.broker.identity(first)))
    }

    /// Returns the topic with this id.
    pub(crate) fn topic_by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        let (_, number) = id.0.split_last_chunk()?;
        let identity = PartitionId(u32::from_be_bytes(*number));
        if self.node.id_of(identity) != id.0 {
            return None;
        }
        self.node.broker.topic_of_first(identity)
    }

    /// Returns the name of the topic with this id; an empty string if there is none, since no topic has an
    /// empty name.
    pub(crate) fn name_of(&self, id: Uuid) -> String {
        self.topic_by_id(id)
            .map_or_else(String::new, |topic| topic.name.to_string())
    }

    /// Returns the epoch of a partition's leader if this node holds the partition; else -1.
    pub(crate) fn leader_epoch(&self, topic: &str, partition: i32) -> i32 {
        let group = self.node.broker.group_of(self.group_of(topic, partition));
        let base = self.epoch_base(topic, partition);
        group.map_or(-1, |group| {
            i32::try_from(group.term())
                .unwrap_or(i32::MAX)
                .saturating_add(base)
        })
    }

    /// Returns the nodes that Kafka clients can connect to: live nodes that store records.
    pub(crate) fn brokers(&self) -> Vec<Address> {
        let me = self.node_id();
        let mut brokers = Vec::new();
        let away = self.node.broker.absent().away;
        let members = self.node.broker.group().members().into_iter();
        for (id, member) in members.filter(|(id, m)| !m.witness && !away.contains(id)) {
            let (id, rack) = (kafka_id(id), Some(member.rack).filter(|r| !r.is_empty()));
            let address = match id == me {
                true => Some(self.advertised()),
                false => member.kafka.rsplit_once(':').and_then(|(host, port)| {
                    let port = port.parse::<u16>().ok()?;
                    Some((host.to_owned(), i32::from(port)))
                }),
            };
            if let Some((host, port)) = address {
                brokers.push(Address { id, host, port, rack });
            }
        }
        brokers
    }

    /// Returns the nodes that hold the records of `group`, the leader first.
    pub(crate) fn replicas(&self, group: GroupId) -> Replicas {
        let broker = &self.node.broker;
        let (mut all, voters) = broker.replicas_of(group);
        let absent = broker.absent();
        if let Some((leader, ..)) = broker.leader_of(group) {
            // A stable sort keeps the order of the others.
            all.sort_by_key(|id| *id != leader);
        }
        let ids = |wanted: &dyn Fn(&u64) -> bool| -> Vec<i32> {
            let wanted = all.iter().copied().filter(|id| wanted(id));
            wanted.map(kafka_id).collect()
        };
        let follows =
            |id: &u64| voters.contains(id) && !absent.away.contains(id) && !absent.behind.contains(id);
        Replicas {
            in_sync: ids(&follows),
            offline: ids(&|id| absent.away.contains(id)),
            voters: ids(&|id| voters.contains(id)),
            all: ids(&|_| true),
        }
    }

    /// Returns true if all `nodes` exist. The site chooses which of them get a partition.
    pub(crate) fn can_place(&self, nodes: &[i32]) -> bool {
        let all = self.replicas(GroupId::SITE).all;
        !nodes.is_empty() && nodes.iter().all(|n| all.contains(n))
    }

    /// Returns the start offset of a partition as far as this node knows; -1 for a missing partition.
    pub(crate) fn log_start(&self, topic: &str, partition: i32) -> i64 {
        let Ok(partition) = u32::try_from(partition) else {
            return -1;
        };
        let broker = &self.node.broker;
        let exists = broker.topic(topic).and_then(|t| t.partition(partition)).is_some();
        match broker.marks(topic, partition) {
            Some(marks) => marks.log_start().get() as i64,
            // The partition was never written to.
            None if exists => 0,
            None => -1,
        }
    }

    /// Compares a client's leader epoch with the current epoch.
    pub(crate) fn check_epoch(&self, topic: &str, partition: i32, theirs: i32) -> Code {
        let ours = self.leader_epoch(topic, partition);
        match theirs {
            // A missing partition has no epoch; its absence is reported later.
            _ if self.log_start(topic, partition) < 0 => Code::None,
            // This node does not hold the partition.
            _ if ours < 0 => Code::NotLeaderOrFollower,
            -1 => Code::None,
            epoch if epoch < ours => Code::FencedLeaderEpoch,
            epoch if epoch > ours => Code::UnknownLeaderEpoch,
            _ => Code::None,
        }
    }

    /// Reserves memory for the answer to a fetch, with a limited wait. Returns false if there is none.
    pub(crate) async fn reserve_records(&self) -> bool {
        let answers = &self.node.broker.ledger().answers;
        let share = answers
            .take(FETCH_BYTES_MAX, Some(self.peer.ip()), SHARE_WITHIN)
            .await;
        let is_there = share.is_ok();
        self.answer_slot().share = share.ok();
        is_there
    }

    /// Reduces the reservation to the bytes of records in the answer.
    pub(crate) fn keep_records(&self, bytes: usize) {
        if let Some(share) = &mut self.answer_slot().share {
            share.keep(bytes);
        }
    }

    /// Reserves memory for the answer to a request of the kind `key`, as much as recent answers took.
    pub(crate) async fn reserve_answer(&self, key: i16) -> Result<(), UsedUp> {
        let of_late = self
            .node
            .largest(key)
            .map_or(0, |largest| largest.load(Ordering::Relaxed));
        self.share_of_answers(of_late).await
    }

    /// Replaces the reservation for the answer by about `bytes`, before the answer is built. Returns false if
    /// there is no memory.
    pub(crate) async fn reserve_large(&self, bytes: usize) -> bool {
        self.answer_slot().share = None;
        self.share_of_answers(bytes).await.is_ok()
    }

    /// Adjusts the reservation to the actual bytes of the answer to a request of the kind `key`.
    pub(crate) async fn made_answer(&self, key: i16, bytes: usize) -> Result<(), UsedUp> {
        if let Some(largest) = self.node.largest(key) {
            let of_late = largest.load(Ordering::Relaxed);
            largest.store(bytes.max(of_late - of_late / 8), Ordering::Relaxed);
        }
        let has = self.answer_slot().share.as_mut().map(|share| share.keep(bytes));
        match has {
            Some(()) => Ok(()),
            None => self.share_of_answers(bytes).await,
        }
    }

    async fn share_of_answers(&self, bytes: usize) -> Result<(), UsedUp> {
        if bytes > KAFKA_SMALL_BYTES {
            let answers = &self.node.broker.ledger().answers;
            // The share that a single address may hold.
            let bytes = bytes.min(ANSWERS_BYTES_MAX / 2);
            let share = answers.take(bytes, Some(self.peer.ip()), ANSWER_WITHIN).await?;
            self.answer_slot().share = Some(share);
        }
        Ok(())
    }

    /// Throttles the client after the answer being built. Takes a time, not a span: debts of requests charged
    /// one after another are paid side by side.
    pub(crate) fn hold_back(&self, until: Option<Instant>) {
        self.answer_slot().until = until;
    }

    /// Takes the resources of the finished answer.
    pub(crate) fn take_answer(&self) -> Answer {
        std::mem::take(&mut self.answer_slot())
    }

    fn answer_slot(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock()
    }

    /// Records the client's software, truncated and shown as a single word.
    pub(crate) fn note_software(&self, name: &str, version: &str) {
        let said = format!("{name} {version}");
        let said = said.chars().filter(|c| !c.is_control()).take(SOFTWARE_CHARS_MAX);
        let _ = self.software.set(said.collect());
    }

    /// Counts a request that is not served.
    pub(crate) fn note_unserved(&self, request: String, version: i16) {
        self.node.broker.metrics().unserved.count(Unserved {
            request,
            version,
            client: self.software.get().cloned().unwrap_or_default(),
        });
    }

    /// Returns the next number of a counter, for round robin.
    pub(crate) fn turn(&self) -> usize {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }
}

/// The nodes that hold a partition's records.
pub(crate) struct Replicas {
    /// All replicas, the leader first.
    pub(crate) all: Vec<i32>,
    /// Replicas whose vote counts for an acknowledgement.
    pub(crate) voters: Vec<i32>,
    /// Voters that are alive and follow.
    pub(crate) in_sync: Vec<i32>,
    /// Replicas that are unreachable.
    pub(crate) offline: Vec<i32>,
}

/// Address of a node for Kafka clients.
pub(crate) struct Address {
    pub(crate) id: i32,
    pub(crate) host: String,
    pub(crate) port: i32,
    pub(crate) rack: Option<String>,
}

/// Converts a node id to Kafka's type. Ids are allocated consecutively, so they fit.
fn kafka_id(node: u64) -> i32 {
    i32::try_from(node).unwrap_or(i32::MAX)
}
