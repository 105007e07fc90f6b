//! The broker handle, and the look-ups and proposals that every room above may use.

use crate::access::auth::{Operation, Principal, Resource, authorize};
use crate::access::ledger::{Ledger, Means};
use crate::access::quota::{QuotaConfig, Quotas};
use crate::coordinator::registry::Coordinator;
use crate::error::AdminError;
use crate::hook::Hook;
use crate::local::metrics::BrokerMetrics;
use crate::local::presence::Presence;
use crate::local::refused::Refused;
use crate::local::retention::Retention;
use crate::propose::replica::{LocalReplica, ReplicaContext};
use crate::propose::request::Request;
use crate::state::applied::AppliedState;
use crate::state::rows::channel::ChannelKey;
use crate::state::rows::leader::LeaderReport;
use crate::state::rows::replica_group::ReplicaGroup;
use crate::state::rows::topic::Topic;
use crate::state::tables::Tables;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use weir_log::{GroupState, Log, Op};
use weir_replica::{Forwarded, Group, Member, NodeId, ProposeError, Starts, Transport};
use weir_types::level::release_of;
use weir_types::sync::{Mutex, RwLock};
use weir_types::{Clock, GroupId, PartitionId, Term};

/// Settings of a broker.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Time that a small request waits for others to share its entry: a trade of latency for flash wear.
    pub linger: Duration,
    /// Bytes of records that the node keeps at most; `None`: as many as fit.
    pub disk_budget_bytes: Option<u64>,
    /// Rates per client.
    pub quotas: QuotaConfig,
    /// Delay of the first rebalance of an empty consumer group, during which more members can join.
    pub group_initial_delay: Duration,
    /// Resources that the node can share out.
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

/// Polling interval of [`Broker::serving_within`].
const SERVING_POLL: Duration = Duration::from_millis(20);

/// A handle to a node's broker. Clones share the broker.
#[derive(Clone)]
pub struct Broker(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) common: ReplicaContext,
    /// The group of all nodes.
    pub(crate) site: Arc<LocalReplica>,
    /// All groups that this node has a part in, the site's among them.
    pub(crate) replicas: RwLock<BTreeMap<GroupId, Arc<LocalReplica>>>,
    /// Recovered positions of the groups that are not open yet.
    pub(crate) recovered: Mutex<BTreeMap<GroupId, GroupState>>,
    pub(crate) transport: Arc<dyn Transport>,
    /// Partitions that this node copies.
    pub(crate) moving: Mutex<BTreeSet<PartitionId>>,
    /// Channels that this node empties.
    pub(crate) forwarding: Mutex<BTreeSet<PartitionId>>,
    /// Channels that the site's leader is being asked for.
    pub(crate) opening: Mutex<BTreeSet<ChannelKey>>,
    /// Held while a node joins: a node that asks twice must not get two ids.
    pub(crate) joining: tokio::sync::Mutex<()>,
    /// Addresses of the nodes of the site.
    pub(crate) node_addresses: RwLock<BTreeSet<SocketAddr>>,
    /// Starts of other nodes.
    pub(crate) starts: Starts,
    /// Signals that the configuration of a replica group has changed.
    pub(crate) groups_changed: Arc<Notify>,
    pub(crate) log: Log,
    pub(crate) applied: Arc<AppliedState>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) quotas: Quotas,
    pub(crate) metrics: BrokerMetrics,
    pub(crate) retention: tokio::sync::Mutex<Retention>,
    pub(crate) presence: tokio::sync::Mutex<Presence>,
    /// Limits scrubs to a single run: each reads the whole disk.
    pub(crate) scrubbing: Arc<Semaphore>,
    pub(crate) coordinator: Coordinator,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) ledger: Ledger,
    pub(crate) hook: OnceLock<Arc<dyn Hook>>,
    /// Producer ids reserved by an entry and not yet given out.
    pub(crate) producer_ids: tokio::sync::Mutex<std::ops::Range<u64>>,
    pub(crate) refused: Refused,
    /// Answers requests of other nodes, and of this node to itself as a leader.
    pub(crate) peer_requests: OnceLock<Arc<dyn Forwarded>>,
}

impl Inner {
    pub(crate) fn replica(&self, group: GroupId) -> Option<Arc<LocalReplica>> {
        let replicas = self.replicas.read();
        replicas.get(&group).cloned()
    }

    pub(crate) fn recovered(&self) -> MutexGuard<'_, BTreeMap<GroupId, GroupState>> {
        self.recovered.lock()
    }
}

impl Broker {
    /// Returns the replica group of all nodes of the site.
    pub fn group(&self) -> &Group {
        &self.0.site.group
    }

    /// Returns true if this node leads the site: it decides about topics, consumer groups and members, and
    /// accepts writes for partitions that all nodes have.
    pub fn is_serving(&self) -> bool {
        self.group().is_serving()
    }

    /// Returns the leader of the site and its address, if known.
    pub fn leader(&self) -> Option<(NodeId, Member)> {
        self.group().leader()
    }

    /// Changes whenever leadership of the site by this node begins or ends.
    pub fn turns(&self) -> watch::Receiver<u64> {
        self.0.applied.turns()
    }

    /// Waits until this node serves, up to `wait`. Returns true if it does.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub fn serving_within(&self, wait: Duration) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let mut turns = self.turns();
            let served = async {
                while !self.is_serving() {
                    // Leadership turns, or a follower is heard of.
                    let _ = tokio::time::timeout(SERVING_POLL, turns.changed()).await;
                }
            };
            tokio::time::timeout(wait, served).await.is_ok()
        })
    }

    /// Sets the in-line pipelines, once, before anything is produced.
    pub fn set_hook(&self, hook: Arc<dyn Hook>) {
        let _ = self.0.hook.set(hook);
    }

    pub(crate) fn hook(&self) -> Option<&Arc<dyn Hook>> {
        self.0.hook.get()
    }

    /// Returns the error for requests that need the site's leader.
    pub(crate) fn not_leader(&self) -> ProposeError {
        self.0.site.not_leader()
    }

    /// Returns the replica of `partition` for reads, if this node leads and serves.
    pub(crate) fn serving_replica(&self, partition: PartitionId) -> Result<Arc<LocalReplica>, ProposeError> {
        self.replica_if(partition, Group::is_serving)
    }

    /// Returns the replica of `partition` for proposals, if this node leads.
    pub(crate) fn proposing_replica(
        &self,
        partition: PartitionId,
    ) -> Result<Arc<LocalReplica>, ProposeError> {
        self.replica_if(partition, Group::may_propose)
    }

    fn replica_if(
        &self,
        partition: PartitionId,
        may: impl Fn(&Group) -> bool,
    ) -> Result<Arc<LocalReplica>, ProposeError> {
        let group = partition.group();
        let Some(replica) = self.0.replica(group) else {
            let leader = self.leader_of(group).map(|(id, ..)| id);
            return Err(ProposeError::NotLeader { leader });
        };
        if may(&replica.group) {
            Ok(replica)
        } else {
            Err(replica.not_leader())
        }
    }

    /// Records, bytes and requests so far.
    pub fn metrics(&self) -> &BrokerMetrics {
        &self.0.metrics
    }

    /// Returns the log, for status and scrubs.
    pub fn log(&self) -> &Log {
        &self.0.log
    }

    /// Returns all topics in order of their names.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.0.applied.tables().topics.values().cloned().collect()
    }

    /// Returns the topic `name`.
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.0.applied.topic(name)
    }

    /// Runs a future of this broker to completion, on a thread of the caller.
    pub fn block_on<T>(&self, asked: impl Future<Output = T>) -> T {
        self.0.runtime.block_on(asked)
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.0.runtime
    }

    /// Returns the shares of the node's resources.
    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// Milliseconds since 1970, by the node's clock.
    pub fn now_ms(&self) -> i64 {
        self.0.clock.now_ms()
    }
}

impl Broker {
    pub(crate) fn allow(&self, who: &Principal, op: Operation, on: Resource<'_>) -> Result<(), AdminError> {
        if authorize(who, op, on) {
            Ok(())
        } else {
            Err(AdminError::Denied)
        }
    }

    pub(crate) async fn put(&self, ops: Vec<Op>) -> Result<(), AdminError> {
        self.put_in(GroupId::SITE, ops).await
    }

    /// Proposes `ops`, which depend on no state, in an entry of `group`.
    pub(crate) async fn put_in(&self, group: GroupId, ops: Vec<Op>) -> Result<(), AdminError> {
        let replica = self.0.replica(group).ok_or(AdminError::Closed)?;
        let _place = replica.changes.acquire().await.map_err(|_| AdminError::Closed)?;
        let (reply, answer) = oneshot::channel();
        if replica.requests.try_send(Request::Put { ops, reply }).is_err() {
            return Err(AdminError::Closed);
        }
        answer.await.unwrap_or(Err(AdminError::Closed))
    }

    /// Proposes a change of the site's state, computed by `make` after all earlier entries are applied.
    pub(crate) async fn change(
        &self,
        make: impl FnOnce(&Tables, &weir_log::Log) -> Result<Vec<Op>, AdminError> + Send + 'static,
    ) -> Result<(), AdminError> {
        self.change_in(GroupId::SITE, make).await
    }

    /// Proposes a change of the state of `group`, computed by `make` after all earlier entries are applied.
    pub(crate) async fn change_in(
        &self,
        group: GroupId,
        make: impl FnOnce(&Tables, &weir_log::Log) -> Result<Vec<Op>, AdminError> + Send + 'static,
    ) -> Result<(), AdminError> {
        let replica = self.0.replica(group).ok_or(AdminError::Closed)?;
        let _place = replica.changes.acquire().await.map_err(|_| AdminError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let make = Box::new(make);
        if replica
            .requests
            .try_send(Request::Change { make, reply })
            .is_err()
        {
            return Err(AdminError::Closed);
        }
        answer.await.unwrap_or(Err(AdminError::Closed))
    }
}

pub(crate) fn partition_of(tables: &Tables, topic: &str, partition: u32) -> Result<PartitionId, AdminError> {
    let found = tables
        .topics
        .get(topic)
        .ok_or_else(|| AdminError::NoTopic(topic.to_owned()))?;
    let partitions = found.partitions.len() as u32;
    let missing = AdminError::NoPartition {
        topic: topic.to_owned(),
        partition,
        partitions,
    };
    found.partition(partition).ok_or(missing)
}

impl Broker {
    /// Returns the term in which this node leads `partition`.
    pub fn led_term(&self, partition: PartitionId) -> Option<Term> {
        let leader = self.proposing_replica(partition).ok()?.group.lead()?;
        Some(leader.term())
    }
}

impl Broker {
    /// Returns the number of nodes that are certain to have an acknowledged record of `group`: a majority of
    /// the voters, minus the witnesses.
    pub(crate) fn copies_of(&self, group: GroupId) -> u32 {
        let Some(group) = self.group_of(group) else {
            let (replicas, _) = self.replicas_of(group);
            return replicas.len() as u32 / 2 + 1;
        };
        let (voters, members) = (group.voters(), group.members());
        let witnesses = voters
            .iter()
            .filter(|id| members.get(id).is_some_and(|m| m.witness))
            .count();
        let copies = (voters.len() / 2 + 1).saturating_sub(witnesses);
        (copies as u32).max(1)
    }
}

impl Broker {
    /// Returns the original id of a partition, which stays the same over reassignments.
    pub fn identity(&self, partition: PartitionId) -> PartitionId {
        self.0.applied.tables().original_id(partition)
    }

    /// Returns the topic whose first partition has the original id `identity`.
    pub fn topic_of_first(&self, identity: PartitionId) -> Option<Arc<Topic>> {
        let tables = self.0.applied.tables();
        let first = tables.current(identity);
        let topic = tables.topics.get(tables.partition_owner.get(&first)?)?;
        (topic.partition(0) == Some(first)).then(|| Arc::clone(topic))
    }
}

impl Broker {
    /// Returns the replica group `id`, if this node is a member.
    pub fn group_of(&self, id: GroupId) -> Option<Group> {
        self.0.replica(id).map(|replica| replica.group.clone())
    }

    /// Returns a function like [`Broker::group_of`] with a weak reference: the function returns `None` after
    /// the broker is dropped.
    pub fn finds_groups(&self) -> impl Fn(GroupId) -> Option<Group> + Send + Sync + 'static {
        let inner = Arc::downgrade(&self.0);
        move |id| Broker(inner.upgrade()?).group_of(id)
    }

    /// Returns all replica groups of which this node is a member, the site's first.
    pub fn groups(&self) -> Vec<Group> {
        let replicas = self.0.replicas.read();
        replicas.values().map(|replica| replica.group.clone()).collect()
    }

    /// Returns the leader of `group` with its term and address, if known.
    pub fn leader_of(&self, group: GroupId) -> Option<(NodeId, u64, Member)> {
        let seen = self
            .group_of(group)
            .map(|g| (g.leader().map(|(id, _)| id), g.term()));
        let (node, term) = match seen {
            Some((Some(node), term)) => (node, term),
            // A learner, or a node that is being added, may not have heard of the leader.
            _ => {
                let led = self.0.applied.tables().other::<LeaderReport>(&group)?;
                (led.node, led.term)
            }
        };
        let member = self.group().members().get(&node).cloned()?;
        Some((node, term, member))
    }

    /// Returns true if this node accepts writes and reads of `partition`: it leads the group, and the
    /// partition is not sealed for a reassignment.
    pub fn serves(&self, partition: PartitionId) -> bool {
        let leads = self
            .0
            .replica(partition.group())
            .is_some_and(|replica| replica.group.is_serving());
        leads && !self.0.applied.tables().sealed.contains(&partition)
    }

    /// Returns the replicas of `group`, and the replicas that are in step.
    pub fn replicas_of(&self, group: GroupId) -> (Vec<NodeId>, Vec<NodeId>) {
        if let Some(here) = self.group_of(group) {
            let members = here.members();
            let full = |id: &NodeId| members.get(id).is_some_and(|m| !m.witness);
            let voters = here.voters();
            return (
                members.keys().copied().filter(full).collect(),
                voters.into_iter().filter(full).collect(),
            );
        }
        let tables = self.0.applied.tables();
        let wanted = tables.other::<ReplicaGroup>(&group);
        let led = tables.other::<LeaderReport>(&group).unwrap_or_default();
        (
            wanted.map(|g| g.replicas).unwrap_or_default(),
            led.members.into_iter().collect(),
        )
    }
}

impl Broker {
    /// Checks that all nodes of the site support the feature `what`, which came with `level`.
    ///
    /// # Errors
    /// [`AdminError::Refused`] when a node is older.
    pub fn needs(&self, what: &'static str, level: u32) -> Result<(), AdminError> {
        self.0.applied.tables().needs(what, level)
    }

    /// Returns the level of the site, as applied here.
    pub fn level(&self) -> u32 {
        self.0.applied.tables().level()
    }
}

impl Tables {
    /// Checks that the site has reached `level`, which feature `what` needs.
    pub(crate) fn needs(&self, what: &'static str, level: u32) -> Result<(), AdminError> {
        if self.level() >= level {
            Ok(())
        } else {
            Err(AdminError::Refused(format!(
                "{what} needs {} on every node of the site, and one of them is older: replace it first",
                release_of(level)
            )))
        }
    }
}

impl Broker {
    /// Returns the number to add to terms of the group of `partition`, so that leader epochs ascend over
    /// reassignments.
    pub fn epoch_base(&self, partition: PartitionId) -> i32 {
        self.0.applied.tables().epoch_base(partition)
    }
}
