//! What every request is handled with.

use crate::error::Code;
use crate::wire::Uuid;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use weir_broker::{Broker, Principal, SHARE_WITHIN, Taken, Topic, Unserved, UsedUp};
use weir_types::limits::{ANSWERS_BYTES_MAX, FETCH_BYTES_MAX, KAFKA_SMALL_BYTES};
use weir_types::{GroupId, PartitionId};

/// How long an answer other than one with records waits for its share: a client waits as long (`request.timeout.ms`).
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How much later than asked for a long poll may end, in microseconds.
const GRAIN_MAX_US: u128 = 250_000;
/// Of what a client calls its software, so many characters are kept.
const SOFTWARE_CHARS_MAX: usize = 64;
/// More kinds of requests than there are (Kafka 4 has 92).
const KEYS: usize = 128;

/// Why a partition cannot be where a client wants it.
pub(crate) const NOT_PLACEABLE: &str = "no such node";

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
    /// The largest answer so far to each kind of request.
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

    /// When a long poll of `wait` that begins now is answered if nothing comes: up to an eighth later, so that polls
    /// end together. A hundred idle consumers then wake the node a dozen times a second and not two hundred times. Never earlier: clients
    /// take the wait for the time in which nothing came.
    pub(crate) fn end_of_wait(&self, now: Instant, wait: Duration) -> Instant {
        let grain = (wait / 8).as_micros().clamp(1, GRAIN_MAX_US);
        let end = now.saturating_duration_since(self.begun) + wait;
        let ends = (end.as_micros() + 1).div_ceil(grain) * grain;
        self.begun + Duration::from_micros(u64::try_from(ends).unwrap_or(u64::MAX))
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
    /// Name and version of the client's software, once it has said so.
    software: Arc<OnceLock<String>>,
    /// What the answer that is being made will need until it is sent.
    answer: Arc<Mutex<Answer>>,
}

/// What goes with an answer.
#[derive(Default)]
pub(crate) struct Answer {
    /// Its share of the bytes that are being sent.
    pub(crate) share: Option<Taken>,
    /// Until when the client is held back after it.
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

    /// Host and port for a client to connect to.
    pub(crate) fn advertised(&self) -> (String, i32) {
        match &self.node.settings.advertise {
            Some((host, port)) => (host.clone(), i32::from(*port)),
            None => (self.local.ip().to_string(), i32::from(self.local.port())),
        }
    }

    /// This node's number. Numbers begin with 1, since a client in a dynamic language may take 0 for none.
    pub(crate) fn node_id(&self) -> i32 {
        kafka_id(self.node.broker.group().node())
    }

    /// Who decides about topics and coordinates all groups; -1 when that is not known.
    pub(crate) fn controller_id(&self) -> i32 {
        self.node.broker.leader().map_or(-1, |(id, _)| kafka_id(id))
    }

    /// The replica group of a partition; the site's for one that is not known.
    pub(crate) fn group_of(&self, topic: &str, partition: i32) -> GroupId {
        let topic = self.node.broker.topic(topic);
        let partition = topic
            .zip(u32::try_from(partition).ok())
            .and_then(|(t, p)| t.partition(p));
        partition.map_or(GroupId::SITE, |id| id.group())
    }

    /// What is added to the terms of a partition's group: see [`Broker::epoch_base`].
    fn epoch_base(&self, topic: &str, partition: i32) -> i32 {
        let topic = self.node.broker.topic(topic);
        let partition = topic
            .zip(u32::try_from(partition).ok())
            .and_then(|(t, p)| t.partition(p));
        partition.map_or(0, |id| self.node.broker.epoch_base(id))
    }

    /// Who leads `group`, -1 when that is not known, and the epoch: its term. It is at most what this node has heard of.
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

    /// As [`Session::leader`], of a partition, with its epoch as clients know it.
    pub(crate) fn leader_of(&self, topic: &str, partition: i32) -> (i32, i32) {
        let (leader, term) = self.leader(self.group_of(topic, partition));
        (leader, term.saturating_add(self.epoch_base(topic, partition)))
    }

    /// By what clients know a topic, whatever its name is used for later: the number with which its first partition was made, which is
    /// given once, behind what tells this cluster's topics from others'.
    pub(crate) fn topic_id(&self, topic: &Topic) -> Uuid {
        let Some(first) = topic.partition(0) else {
            return Uuid::default();
        };
        Uuid(self.node.id_of(self.node.broker.identity(first)))
    }

    /// The topic that has this id.
    pub(crate) fn topic_by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        let (_, number) = id.0.split_last_chunk()?;
        let identity = PartitionId(u32::from_be_bytes(*number));
        if self.node.id_of(identity) != id.0 {
            return None;
        }
        self.node.broker.topic_of_first(identity)
    }

    /// The name of the topic that has this id; empty when there is none, as no topic's name is.
    pub(crate) fn name_of(&self, id: Uuid) -> String {
        self.topic_by_id(id)
            .map_or_else(String::new, |topic| topic.name.to_string())
    }

    /// The epoch of a partition's leader, on a node that has it; -1 elsewhere.
    pub(crate) fn leader_epoch(&self, topic: &str, partition: i32) -> i32 {
        let group = self.node.broker.group_of(self.group_of(topic, partition));
        let base = self.epoch_base(topic, partition);
        group.map_or(-1, |group| {
            i32::try_from(group.term())
                .unwrap_or(i32::MAX)
                .saturating_add(base)
        })
    }

    /// The nodes that Kafka clients can connect to: those that keep records and are there.
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

    /// The nodes that have the records of `group`, its leader first.
    pub(crate) fn replicas(&self, group: GroupId) -> Replicas {
        let broker = &self.node.broker;
        let (mut all, voters) = broker.replicas_of(group);
        let absent = broker.absent();
        if let Some((leader, ..)) = broker.leader_of(group) {
            // Stable: the others keep their order.
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

    /// Whether there are these nodes. Which of them get a partition is the site's to choose.
    pub(crate) fn can_place(&self, nodes: &[i32]) -> bool {
        let all = self.replicas(GroupId::SITE).all;
        !nodes.is_empty() && nodes.iter().all(|n| all.contains(n))
    }

    /// Where a partition begins, as far as this node knows; -1 for one that is not there.
    pub(crate) fn log_start(&self, topic: &str, partition: i32) -> i64 {
        let Ok(partition) = u32::try_from(partition) else {
            return -1;
        };
        let broker = &self.node.broker;
        let exists = broker.topic(topic).and_then(|t| t.partition(partition)).is_some();
        match broker.marks(topic, partition) {
            Some(marks) => marks.log_start().get() as i64,
            // Nothing was ever written to it.
            None if exists => 0,
            None => -1,
        }
    }

    /// What a client's idea of the leader's epoch is to ours.
    pub(crate) fn check_epoch(&self, topic: &str, partition: i32, theirs: i32) -> Code {
        let ours = self.leader_epoch(topic, partition);
        match theirs {
            // A partition that is not there has no epoch; its absence is told later.
            _ if self.log_start(topic, partition) < 0 => Code::None,
            // Nothing of it is here.
            _ if ours < 0 => Code::NotLeaderOrFollower,
            -1 => Code::None,
            epoch if epoch < ours => Code::FencedLeaderEpoch,
            epoch if epoch > ours => Code::UnknownLeaderEpoch,
            _ => Code::None,
        }
    }

    /// Takes what the answer to a fetch may need, and waits for it a while. Whether it was there.
    pub(crate) async fn reserve_records(&self) -> bool {
        let answers = &self.node.broker.ledger().answers;
        let share = answers
            .take(FETCH_BYTES_MAX, Some(self.peer.ip()), SHARE_WITHIN)
            .await;
        let is_there = share.is_ok();
        self.answer_slot().share = share.ok();
        is_there
    }

    /// The answer has these many bytes of records.
    pub(crate) fn keep_records(&self, bytes: usize) {
        if let Some(share) = &mut self.answer_slot().share {
            share.keep(bytes);
        }
    }

    /// Takes what the answer to a request of the kind `key` has needed of late, before it is made.
    pub(crate) async fn reserve_answer(&self, key: i16) -> Result<(), UsedUp> {
        let of_late = self
            .node
            .largest(key)
            .map_or(0, |largest| largest.load(Ordering::Relaxed));
        self.share_of_answers(of_late).await
    }

    /// Takes what an answer of about so many `bytes` may need, before it is made, instead of what was taken for it. Whether that was there.
    pub(crate) async fn reserve_large(&self, bytes: usize) -> bool {
        self.answer_slot().share = None;
        self.share_of_answers(bytes).await.is_ok()
    }

    /// The answer to a request of the kind `key` was made, and has these many bytes.
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
            // The share that one address may have at once.
            let bytes = bytes.min(ANSWERS_BYTES_MAX / 2);
            let share = answers.take(bytes, Some(self.peer.ip()), ANSWER_WITHIN).await?;
            self.answer_slot().share = Some(share);
        }
        Ok(())
    }

    /// Holds the client back after the answer that is being made. A time, not a span: the debts of requests that were
    /// charged one after another are paid side by side.
    pub(crate) fn hold_back(&self, until: Option<Instant>) {
        self.answer_slot().until = until;
    }

    /// What goes with the answer that was made.
    pub(crate) fn take_answer(&self) -> Answer {
        std::mem::take(&mut self.answer_slot())
    }

    fn answer_slot(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client has said what software it is. What it calls itself is cut, and shown as one word.
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

    /// Counts up, for taking turns.
    pub(crate) fn turn(&self) -> usize {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }
}

/// The nodes that have a partition's records.
pub(crate) struct Replicas {
    /// All of them, the leader first.
    pub(crate) all: Vec<i32>,
    /// Those that have a say in what is acknowledged.
    pub(crate) voters: Vec<i32>,
    /// Those of them that are there and follow.
    pub(crate) in_sync: Vec<i32>,
    /// Those that are away.
    pub(crate) offline: Vec<i32>,
}

/// Where Kafka clients find a node.
pub(crate) struct Address {
    pub(crate) id: i32,
    pub(crate) host: String,
    pub(crate) port: i32,
    pub(crate) rack: Option<String>,
}

/// Numbers of nodes are given out one by one: they fit.
fn kafka_id(node: u64) -> i32 {
    i32::try_from(node).unwrap_or(i32::MAX)
}
