//! The broker's calls for producing, and how it is put together.

use crate::access::auth::{Operation, Principal, Resource, authorize};
use crate::access::ledger::{Ledger, Means};
use crate::access::quota::{Direction, QuotaConfig, Quotas};
use crate::coordinator::registry::Coordinator;
use crate::error::ProduceError;
use crate::forward::ByBroker;
use crate::groups::keep;
use crate::hook::{Hook, HookJob, Stepped};
use crate::local::metrics::BrokerMetrics;
use crate::local::presence::Presence;
use crate::local::refused::Refused;
use crate::local::retention::Retention;
use crate::propose::replica::{Common, Lane};
use crate::propose::request::{Append, Framing, Made, Produced, Request, Room, row_op};
use crate::propose::step::Footing;
use crate::state::applied::Applied;
use crate::state::rows::channel::ChannelKey;
use crate::state::rows::producer::{CHANNELS, Window};
use crate::state::rows::topic::Topic;
use crate::topic::config::TimestampType;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::time::Instant;
use weir_log::{GroupState, Log, Recovered, StateKey, StateKind};
use weir_replica::{Group, GroupConfig, GroupError, Member, NodeId, ProposeError, Starts, Transport};
use weir_types::level::LEVEL_OF_AGES;
use weir_types::limits::{
    PRODUCE_INFLIGHT_BYTES_MAX, PROPOSER_QUEUE_MAX, STEPS_QUEUED_BYTES_MAX, STEPS_QUEUED_MAX,
};
use weir_types::{Batch, Clock, GroupId, PartitionId};

/// How long records wait for room on the node: as long as a Kafka client waits for an answer (`request.timeout.ms`).
pub(crate) const ROOM_WITHIN: Duration = Duration::from_secs(30);

/// Settings of a broker.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a request waits for others to share its entry: it decides latency and flash wear.
    pub linger: Duration,
    /// Bytes of records that the node keeps at most; `None`: as many as fit.
    pub disk_budget_bytes: Option<u64>,
    /// Rates per client.
    pub quotas: QuotaConfig,
    /// How long the first rebalance of an empty consumer group waits for more members.
    pub group_initial_delay: Duration,
    /// What there is to share out.
    pub means: Means,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(1),
            disk_budget_bytes: None,
            quotas: QuotaConfig::default(),
            // Kafka's three seconds are for hundreds of members that start together; these are for a few.
            group_initial_delay: Duration::from_millis(500),
            means: Means::default(),
        }
    }
}

/// How often a node that leads looks whether it has heard from enough others.
const SERVING_POLL: Duration = Duration::from_millis(20);

/// A node's broker. Clones are handles to the same one.
#[derive(Clone)]
pub struct Broker(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) common: Common,
    /// The group of all nodes.
    pub(crate) site: Arc<Lane>,
    /// All groups that this node has a part in, the site's among them.
    pub(crate) lanes: RwLock<BTreeMap<GroupId, Arc<Lane>>>,
    /// Where groups stand that are not open yet.
    pub(crate) recovered: Mutex<BTreeMap<GroupId, GroupState>>,
    pub(crate) transport: Arc<dyn Transport>,
    /// Partitions that this node copies.
    pub(crate) moving: Mutex<BTreeSet<PartitionId>>,
    /// Channels that this node empties.
    pub(crate) forwarding: Mutex<BTreeSet<PartitionId>>,
    /// Channels that the site's leader is being asked for.
    pub(crate) opening: Mutex<BTreeSet<ChannelKey>>,
    /// Held while a node is let in: one that asks twice must not get two numbers.
    pub(crate) joining: tokio::sync::Mutex<()>,
    /// Where the nodes of the site are reached.
    pub(crate) node_addresses: RwLock<BTreeSet<SocketAddr>>,
    /// Starts of other nodes.
    pub(crate) starts: Starts,
    /// It was decided anew who has which group.
    pub(crate) groups_changed: Arc<Notify>,
    pub(crate) log: Log,
    pub(crate) applied: Arc<Applied>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) quotas: Quotas,
    pub(crate) metrics: BrokerMetrics,
    pub(crate) retention: tokio::sync::Mutex<Retention>,
    pub(crate) presence: tokio::sync::Mutex<Presence>,
    /// One scrub at a time: each reads the whole disk.
    pub(crate) scrubbing: Arc<Semaphore>,
    pub(crate) coordinator: Coordinator,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) ledger: Ledger,
    pub(crate) hook: OnceLock<Arc<dyn Hook>>,
    /// Producer ids reserved by an entry and not yet given out.
    pub(crate) producer_ids: tokio::sync::Mutex<std::ops::Range<u64>>,
    pub(crate) refused: Refused,
}

impl Inner {
    pub(crate) fn lane(&self, group: GroupId) -> Option<Arc<Lane>> {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        lanes.get(&group).cloned()
    }

    pub(crate) fn recovered(&self) -> MutexGuard<'_, BTreeMap<GroupId, GroupState>> {
        self.recovered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker {
    /// Opens a broker over `log`, whose recovery found `recovered`, as a member of the site's group, which `config` says,
    /// and of the others in which it has a part. Must be called within a runtime, whose tasks replication uses.
    ///
    /// # Errors
    /// When stored state cannot be read, or the log stopped.
    pub async fn open(
        log: Log,
        recovered: &Recovered,
        config: GroupConfig,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Result<Self, GroupError> {
        let stopped = |e: &dyn std::fmt::Display| GroupError::Stopped(e.to_string());
        let applied = Arc::new(Applied::default());
        applied.load(&log).map_err(|e| stopped(&e))?;
        let common = Common {
            log: log.clone(),
            applied: Arc::clone(&applied),
            clock: Arc::clone(&clock),
            linger: options.linger,
        };
        let groups_changed = Arc::new(Notify::new());
        let changed = Arc::clone(&groups_changed);
        applied.watch(
            StateKind::ReplicaGroup,
            Box::new(move |_, _| changed.notify_one()),
        );
        let mut states = recovered.groups.clone();
        let state = states.remove(&config.id).unwrap_or_default();
        let site = Lane::open(&common, config, state, Arc::clone(&transport)).await?;
        let site = Arc::new(site);
        let coordinator = Coordinator::restore(&applied.tables().groups, options.group_initial_delay);
        let broker = Self(Arc::new(Inner {
            common,
            lanes: RwLock::new(BTreeMap::from([(site.group.id(), Arc::clone(&site))])),
            site,
            recovered: Mutex::new(states),
            transport,
            moving: Mutex::default(),
            forwarding: Mutex::default(),
            opening: Mutex::default(),
            joining: tokio::sync::Mutex::default(),
            node_addresses: RwLock::default(),
            starts: Starts::default(),
            groups_changed,
            log,
            applied,
            clock,
            options,
            quotas: Quotas::new(options.quotas),
            metrics: BrokerMetrics::default(),
            retention: tokio::sync::Mutex::default(),
            presence: tokio::sync::Mutex::default(),
            scrubbing: Arc::new(Semaphore::new(1)),
            coordinator,
            runtime: tokio::runtime::Handle::current(),
            ledger: Ledger::new(options.means),
            hook: OnceLock::new(),
            producer_ids: tokio::sync::Mutex::new(0..0),
            refused: Refused::default(),
        }));
        let forwarded = ByBroker(Arc::downgrade(&broker.0));
        broker.group().set_forwarded(Arc::new(forwarded));
        let turns = broker.0.applied.turns();
        tokio::spawn(follow_turns(Arc::downgrade(&broker.0), turns));
        broker.open_and_close().await;
        tokio::spawn(keep(Arc::downgrade(&broker.0)));
        Ok(broker)
    }

    /// The group of all nodes of the site: who they are, and how they are doing.
    pub fn group(&self) -> &Group {
        &self.0.site.group
    }

    /// Whether this node leads the site: decides about topics, consumer groups and members, and takes writes for the
    /// partitions that all nodes have.
    pub fn is_serving(&self) -> bool {
        self.group().is_serving()
    }

    /// Who leads the site, as far as is known, and how to reach it.
    pub fn leader(&self) -> Option<(NodeId, Member)> {
        self.group().leader()
    }

    /// Changes whenever leadership of the site by this node begins or ends.
    pub fn turns(&self) -> watch::Receiver<u64> {
        self.0.applied.turns()
    }

    /// Returns once this node serves, or after `wait`; whether it does.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn serving_within(&self, wait: Duration) -> bool {
        let mut turns = self.turns();
        let served = async {
            while !self.is_serving() {
                // Leadership turns, or a follower is heard of.
                let _ = tokio::time::timeout(SERVING_POLL, turns.changed()).await;
            }
        };
        tokio::time::timeout(wait, served).await.is_ok()
    }

    /// Rows of another layer's `kind`, as applied; of pipelines and modules.
    pub fn rows(&self, kind: StateKind) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.rows_under(kind, &[])
    }

    /// Those of [`Broker::rows`] whose keys begin with `prefix`.
    pub fn rows_under(&self, kind: StateKind, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let tables = self.0.applied.tables();
        let rows = tables.others.range((kind as u8, prefix.to_vec())..);
        rows.take_while(|((k, key), _)| *k == kind as u8 && key.starts_with(prefix))
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Sets the in-line pipelines, once, before anything is produced.
    pub fn set_hook(&self, hook: Arc<dyn Hook>) {
        let _ = self.0.hook.set(hook);
    }

    /// Takes a batch for a partition: waits for its share of the bytes in flight, and returns what resolves when the
    /// records are committed. Batches of one caller for one partition are stored in the order of these calls.
    ///
    /// # Errors
    /// When the batch is refused: nothing was taken.
    ///
    /// # Cancel safety
    /// Dropping this before it resolves takes nothing. Dropping what it returns leaves the outcome to chance.
    pub async fn produce(
        &self,
        who: &Principal,
        topic: &str,
        partition: u32,
        batch: Batch,
        framing: Framing,
    ) -> Result<Producing, ProduceError> {
        let metrics = &self.0.metrics;
        metrics.produce_requests.fetch_add(1, Ordering::Relaxed);
        let (count, bytes) = (batch.count(), batch.bytes().len());
        let result = self.submit(who, topic, partition, batch, framing).await;
        match &result {
            Ok(_) => {
                metrics.records_in.fetch_add(u64::from(count), Ordering::Relaxed);
                metrics.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Err(_) => {
                metrics.produce_errors.fetch_add(1, Ordering::Relaxed);
            }
        }
        result
    }

    pub(crate) async fn submit(
        &self,
        who: &Principal,
        topic: &str,
        partition: u32,
        mut batch: Batch,
        framing: Framing,
    ) -> Result<Producing, ProduceError> {
        let inner = &self.0;
        if !authorize(who, Operation::Write, Resource::Topic(topic)) {
            return Err(ProduceError::Denied(topic.to_owned()));
        }
        let Some(topic) = inner.applied.topic(topic) else {
            // Another may know of it.
            return Err(match self.is_serving() {
                true => ProduceError::NoTopic(topic.to_owned()),
                false => self.not_leader().into(),
            });
        };
        let Some(id) = topic.partition(partition) else {
            let partitions = topic.partitions.len() as u32;
            return Err(ProduceError::NoPartition {
                topic: topic.name.to_string(),
                partition,
                partitions,
            });
        };
        let lane = self.proposing_lane(id)?;
        let (bytes, limit) = (batch.bytes().len(), topic.config.max_message_bytes as usize);
        if bytes > limit {
            return Err(ProduceError::TooLarge { bytes, limit });
        }
        self.has_enough_copies(&topic, id)?;
        if let Some(producer) = batch.producer().filter(|p| p.id >= CHANNELS) {
            // Not given out: it would be taken for an outbox of the site.
            return Err(ProduceError::UnknownProducer(producer.id));
        }
        if let Some(producer) = batch.producer().filter(|_| who.address.is_some())
            && !self.has_given_out(producer.id).await
        {
            return Err(ProduceError::UnknownProducer(producer.id));
        }
        let mut append_time = None;
        if topic.config.timestamp_type == TimestampType::LogAppendTime {
            let now = inner.clock.now_ms();
            append_time = Some(now);
            batch = batch.stamped(now);
        }
        let seen = self.look_at(who, &batch).await?;
        if self.level() < LEVEL_OF_AGES && seen.is_beyond_first_release() {
            return Err(ProduceError::BeyondFirstRelease);
        }
        if let Some(record) = seen.keyless.filter(|_| topic.config.cleanup.is_by_key()) {
            let topic = topic.name.to_string();
            return Err(ProduceError::Keyless { topic, record });
        }
        if append_time.is_none() {
            self.check_times(&topic, seen)?;
        }
        if let Some((latest, _)) = seen.latest.filter(|(at, _)| *at != batch.max_timestamp()) {
            // Looking up by time goes by the header: it has to be right, whoever wrote it.
            batch = batch.dated(latest);
        }
        let throttle = inner
            .quotas
            .charge(Direction::Produce, &who.account, bytes, Instant::now());
        // A small request costs more than its bytes: the floor also keeps requests under the queue's length.
        let share = bytes.max(PRODUCE_INFLIGHT_BYTES_MAX / PROPOSER_QUEUE_MAX);
        let permit = inner.ledger.records.take(share, who.address, ROOM_WITHIN).await?;
        let permit = Room::Records(permit);
        let (reply, answer) = oneshot::channel();
        let account: Option<Arc<str>> = who.address.map(|_| who.account.as_str().into());
        let requests = lane.requests.clone();
        let send = move |append: Append| {
            if let Err(e) = requests.try_send(Request::Append(append))
                && let std::sync::mpsc::TrySendError::Full(Request::Append(append))
                | std::sync::mpsc::TrySendError::Disconnected(Request::Append(append)) = e
            {
                let _ = append.reply.send(Err(ProduceError::Closed));
            }
        };
        match inner.hook.get().filter(|h| h.intercepts(&topic.name)) {
            None => send(Append {
                topic,
                partition: id,
                kept: Some(batch),
                framing,
                made: None,
                reply,
                account,
                permit,
            }),
            Some(hook) => {
                let job = HookJob {
                    topic,
                    partition,
                    batch,
                };
                hook.submit(
                    job,
                    Box::new(move |job, result| match result {
                        Ok(p) => {
                            send(Append {
                                topic: job.topic,
                                partition: id,
                                kept: Some(p.kept),
                                framing,
                                made: Some(Box::new(Made {
                                    outputs: p.outputs,
                                    rows: p.rows.into_iter().map(row_op).collect(),
                                    footing: p.footing,
                                })),
                                reply,
                                account,
                                permit,
                            });
                        }
                        Err(e) => {
                            let _ = reply.send(Err(e.into()));
                        }
                    }),
                );
            }
        }
        Ok(Producing {
            answer,
            throttle,
            append_time,
        })
    }

    /// Takes what a pipeline made of the time alone: a step that stands on a batch of nobody's. What becomes of it is the
    /// step's to tell. Blocks while the proposer is behind: for a thread of the caller's own.
    pub fn take_step(&self, topic: Arc<Topic>, partition: PartitionId, made: Stepped) {
        let Ok(lane) = self.proposing_lane(partition) else {
            return;
        };
        let outputs: usize = made.outputs.iter().map(|o| o.batch.bytes().len()).sum();
        let rows: usize = made.rows.iter().map(row_bytes).sum();
        // Its bytes; a floor also keeps steps under the queue's length. One that is larger than all may be goes alone.
        let share = (outputs + rows).clamp(STEPS_QUEUED_BYTES_MAX / STEPS_QUEUED_MAX, STEPS_QUEUED_BYTES_MAX);
        let place = Arc::clone(&lane.steps).acquire_many_owned(share as u32);
        let Ok(permit) = self.0.runtime.block_on(place).map(Room::Step) else {
            return;
        };
        // Nobody waits for the answer: dropped on the way, the step breaks its chain.
        let (reply, _) = oneshot::channel();
        let append = Append {
            topic,
            partition,
            kept: None,
            framing: Framing::Merge,
            made: Some(Box::new(Made {
                outputs: made.outputs,
                rows: made.rows.into_iter().map(row_op).collect(),
                footing: Footing::Step(made.step),
            })),
            reply,
            account: None,
            permit,
        };
        let _ = lane.requests.send(Request::Append(append));
    }

    pub(crate) fn hook(&self) -> Option<&Arc<dyn Hook>> {
        self.0.hook.get()
    }

    /// Why this node does not lead the site.
    pub(crate) fn not_leader(&self) -> ProposeError {
        self.0.site.not_leader()
    }

    /// The lane of `partition`, which this node leads, and may answer reads of.
    pub(crate) fn serving_lane(&self, partition: PartitionId) -> Result<Arc<Lane>, ProposeError> {
        self.lane_if(partition, Group::is_serving)
    }

    /// The lane of `partition`, which this node leads, to propose to.
    pub(crate) fn proposing_lane(&self, partition: PartitionId) -> Result<Arc<Lane>, ProposeError> {
        self.lane_if(partition, Group::may_propose)
    }

    fn lane_if(
        &self,
        partition: PartitionId,
        may: impl Fn(&Group) -> bool,
    ) -> Result<Arc<Lane>, ProposeError> {
        let group = partition.group();
        let Some(lane) = self.0.lane(group) else {
            let leader = self.leader_of(group).map(|(id, ..)| id);
            return Err(ProposeError::NotLeader { leader });
        };
        match may(&lane.group) {
            true => Ok(lane),
            false => Err(lane.not_leader()),
        }
    }

    /// What is known of producer `id` on `partition`, as applied.
    pub(crate) fn window(&self, partition: PartitionId, id: i64) -> Option<Window> {
        self.0.applied.tables().producers.get(&(partition, id)).cloned()
    }

    /// Records, bytes and requests so far.
    pub fn metrics(&self) -> &BrokerMetrics {
        &self.0.metrics
    }

    /// The log underneath, for status and scrubs.
    pub fn log(&self) -> &Log {
        &self.0.log
    }

    /// All topics, by name.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.0.applied.tables().topics.values().cloned().collect()
    }

    /// The topic `name`.
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.0.applied.topic(name)
    }

    /// Waits on a thread of the caller's own for what is asked of this broker.
    pub fn block_on<T>(&self, asked: impl Future<Output = T>) -> T {
        self.0.runtime.block_on(asked)
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.0.runtime
    }

    /// What the node shares out, and how it stands.
    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// Milliseconds since 1970, by the node's clock.
    pub fn now_ms(&self) -> i64 {
        self.0.clock.now_ms()
    }

    /// Takes no more requests, finishes those it has, and closes the log. Blocks.
    pub fn close(&self) {
        self.0.ledger.records.close();
        let lanes = std::mem::take(&mut *self.0.lanes.write().unwrap_or_else(PoisonError::into_inner));
        lanes.values().for_each(|lane| lane.close(&self.0.runtime));
        self.0.log.close();
    }
}

/// What consumer groups did in memory is another node's by now, or this node's again.
async fn follow_turns(inner: std::sync::Weak<Inner>, mut turns: watch::Receiver<u64>) {
    while turns.changed().await.is_ok() {
        let Some(inner) = inner.upgrade() else { return };
        let groups = inner.applied.tables().groups.clone();
        inner.coordinator.reload(&groups);
    }
}

/// A batch that was taken in; resolves when it is committed, or will never be.
pub struct Producing {
    pub(crate) answer: oneshot::Receiver<Result<Produced, ProduceError>>,
    pub(crate) throttle: Duration,
    pub(crate) append_time: Option<i64>,
}

impl Producing {
    /// The time, in milliseconds, that the records got from the node instead of their own.
    pub fn append_time(&self) -> Option<i64> {
        self.append_time
    }

    /// How long the client's next request should be held back, by its quota.
    pub fn throttle(&self) -> Duration {
        self.throttle
    }
}

impl Future for Producing {
    type Output = Result<Produced, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer)
            .poll(cx)
            .map(|r| r.unwrap_or(Err(ProduceError::Closed)))
    }
}

fn row_bytes((key, value): &(StateKey, Option<Bytes>)) -> usize {
    key.as_bytes().len() + value.as_ref().map_or(0, Bytes::len)
}
