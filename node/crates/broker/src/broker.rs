//! The broker's calls for producing, and how it is put together.

use crate::applied::Applied;
use crate::auth::{Operation, Principal, Resource, authorize};
use crate::coordinator::Coordinator;
use crate::error::ProduceError;
use crate::hook::{Hook, HookError, HookJob};
use crate::proposer::{Append, Core, Driver, Framing, Queue, Request};
use crate::quota::{Direction, QuotaConfig, Quotas};
use crate::topic::{TimestampType, Topic};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use weir_log::{Log, Recovered, Running, StateKind};
use weir_replica::{Group, GroupConfig, GroupError, Member, NodeId, ProposeError, Transport};
use weir_types::limits::{PRODUCE_INFLIGHT_BYTES_MAX, PROPOSER_CHANGES_MAX, PROPOSER_QUEUE_MAX};
use weir_types::{Batch, BatchError, Clock, Offset};

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
}

impl Default for Options {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(1),
            disk_budget_bytes: None,
            quotas: QuotaConfig::default(),
            // Kafka's default.
            group_initial_delay: Duration::from_secs(3),
        }
    }
}

/// Where records went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    /// Offset of the first.
    pub base: Offset,
    /// Offsets that they span.
    pub span: u32,
}

/// Counts since start.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "named for what they count")]
pub struct BrokerMetrics {
    pub produce_requests: AtomicU64,
    pub produce_errors: AtomicU64,
    pub records_in: AtomicU64,
    pub bytes_in: AtomicU64,
    pub records_out: AtomicU64,
    pub bytes_out: AtomicU64,
    pub fetch_requests: AtomicU64,
}

/// How often a node that leads looks whether it has heard from enough others.
const SERVING_POLL: Duration = Duration::from_millis(20);
/// How long closing waits for replication to stop.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// A node's broker. Clones are handles to the same one.
#[derive(Clone)]
pub struct Broker(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) log: Log,
    pub(crate) group: Group,
    pub(crate) applied: Arc<Applied>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) quotas: Quotas,
    pub(crate) metrics: BrokerMetrics,
    pub(crate) coordinator: Coordinator,
    requests: Queue,
    runtime: tokio::runtime::Handle,
    inflight: Arc<Semaphore>,
    /// Places in the queue for changes of rows: they must not take those of produce requests.
    pub(crate) changes: Semaphore,
    hook: OnceLock<Arc<dyn Hook>>,
    proposer: Mutex<Option<Running>>,
    /// Producer ids reserved by an entry and not yet given out.
    pub(crate) producer_ids: tokio::sync::Mutex<std::ops::Range<u64>>,
}

impl Broker {
    /// Opens a broker over `log`, whose recovery found `recovered`, as a member of the group that `config` says. Must be
    /// called within a runtime, whose tasks replication uses.
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
        // Room for every request that has a permit, and for a few wakes.
        let (requests, queue) = Queue::new(PROPOSER_QUEUE_MAX + PROPOSER_CHANGES_MAX + 64);
        let waker = requests.clone();
        // One that does not fit is not missed: the queue is full of others that wake as well.
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || drop(waker.try_send(Request::Wake)));
        let on_turn = Arc::clone(&wake);
        applied.on_turn(Box::new(move || on_turn()));
        let state = recovered.groups.get(&config.id).copied().unwrap_or_default();
        let group = Group::open(config, log.clone(), state, transport, Arc::clone(&applied) as _).await?;
        let core = Core::new(
            log.clone(),
            group.clone(),
            Arc::clone(&applied),
            Arc::clone(&clock),
            wake,
        );
        let coordinator =
            Coordinator::restore(&applied.tables().groups, options.group_initial_delay, log.epoch());
        let driver = Driver {
            core,
            requests: queue,
            linger: options.linger,
        };
        let proposer = log.workers().start("weir-propose", Box::new(driver));
        let proposer = proposer.map_err(|e| stopped(&e))?;
        requests.wake_by(&proposer);
        let broker = Self(Arc::new(Inner {
            log,
            group,
            applied,
            clock,
            options,
            quotas: Quotas::new(options.quotas),
            metrics: BrokerMetrics::default(),
            coordinator,
            requests,
            runtime: tokio::runtime::Handle::current(),
            inflight: Arc::new(Semaphore::new(PRODUCE_INFLIGHT_BYTES_MAX)),
            changes: Semaphore::new(PROPOSER_CHANGES_MAX),
            hook: OnceLock::new(),
            proposer: Mutex::new(Some(proposer)),
            producer_ids: tokio::sync::Mutex::new(0..0),
        }));
        let forwarded = crate::forward::ByBroker(Arc::downgrade(&broker.0));
        broker.group().set_forwarded(Arc::new(forwarded));
        let turns = broker.0.applied.turns();
        tokio::spawn(follow_turns(Arc::downgrade(&broker.0), turns));
        Ok(broker)
    }

    /// The replica group: who its members are, and how they are doing.
    pub fn group(&self) -> &Group {
        &self.0.group
    }

    /// Whether this node takes writes and answers reads.
    pub fn is_serving(&self) -> bool {
        self.0.group.is_serving()
    }

    /// Who leads, as far as is known, and how to reach it.
    pub fn leader(&self) -> Option<(NodeId, Member)> {
        self.0.group.leader()
    }

    /// Changes whenever leadership of this node begins or ends.
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
        let tables = self.0.applied.tables();
        let of_kind = tables.others.iter().filter(|((k, _), _)| *k == kind as u8);
        of_kind
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

    async fn submit(
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
        if !self.is_serving() {
            return Err(self.not_leader().into());
        }
        let topic = inner
            .applied
            .topic(topic)
            .ok_or_else(|| ProduceError::NoTopic(topic.to_owned()))?;
        let Some(id) = topic.partition(partition) else {
            let partitions = topic.partitions.len() as u32;
            return Err(ProduceError::NoPartition {
                topic: topic.name.to_string(),
                partition,
                partitions,
            });
        };
        let (bytes, limit) = (batch.bytes().len(), topic.config.max_message_bytes as usize);
        if bytes > limit {
            return Err(ProduceError::TooLarge { bytes, limit });
        }
        let mut append_time = None;
        if topic.config.timestamp_type == TimestampType::LogAppendTime {
            let now = inner.clock.now_ms();
            append_time = Some(now);
            batch = batch.stamped(now);
        }
        let latest = validate(&batch)?;
        if latest.is_some_and(|t| t != batch.max_timestamp()) {
            // Looking up by time goes by the header: it has to be right, whoever wrote it.
            batch = batch.dated(latest.unwrap_or_default());
        }
        let throttle = inner
            .quotas
            .charge(Direction::Produce, &who.client, bytes, Instant::now());
        // A small request costs more than its bytes: the floor also keeps requests under the queue's length.
        let share = bytes.max(PRODUCE_INFLIGHT_BYTES_MAX / PROPOSER_QUEUE_MAX) as u32;
        let permit = Arc::clone(&inner.inflight).acquire_many_owned(share).await;
        let permit = permit.map_err(|_| ProduceError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let requests = inner.requests.clone();
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
                kept: batch,
                framing,
                outputs: Vec::new(),
                reply,
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
                            let (topic, kept, outputs) = (job.topic, p.kept, p.outputs);
                            send(Append {
                                topic,
                                partition: id,
                                kept,
                                framing,
                                outputs,
                                reply,
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

    pub(crate) fn hook(&self) -> Option<&Arc<dyn Hook>> {
        self.0.hook.get()
    }

    /// Why this node does not serve.
    pub(crate) fn not_leader(&self) -> ProposeError {
        let node = self.0.group.node();
        let leader = self.leader().map(|(id, _)| id);
        ProposeError::NotLeader {
            // One that leads and reaches nobody is no leader to be sent to.
            leader: leader.filter(|id| *id != node),
        }
    }

    pub(crate) fn send(&self, request: Request) -> bool {
        self.0.requests.try_send(request).is_ok()
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

    /// Milliseconds since 1970, by the node's clock.
    pub fn now_ms(&self) -> i64 {
        self.0.clock.now_ms()
    }

    /// Takes no more requests, finishes those it has, and closes the log. Blocks.
    pub fn close(&self) {
        self.0.inflight.close();
        if self.0.requests.send(Request::Stop).is_ok() {
            let proposer = self
                .0
                .proposer
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .take();
            if let Some(proposer) = proposer {
                (proposer.join)();
            }
        }
        let (group, runtime) = (self.0.group.clone(), self.0.runtime.clone());
        let (done, closed) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            group.close().await;
            let _ = done.send(());
        });
        // Bounded: the log must be closed in any case.
        let _ = closed.recv_timeout(CLOSE_WITHIN);
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
    answer: oneshot::Receiver<Result<Produced, ProduceError>>,
    throttle: Duration,
    append_time: Option<i64>,
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

impl From<HookError> for ProduceError {
    fn from(e: HookError) -> Self {
        match e {
            HookError::Halted { pipeline, why } => Self::Halted { pipeline, why },
            HookError::Busy { pipeline } => Self::PipelineBusy { pipeline },
        }
    }
}

/// Walks the records once, at the door: nothing malformed is stored, and nobody after this has to think of it. Returns the
/// largest timestamp.
fn validate(batch: &Batch) -> Result<Option<i64>, BatchError> {
    let mut latest = None;
    for record in batch.body()?.records() {
        latest = latest.max(Some(record?.timestamp));
    }
    Ok(latest)
}
