//! Reconciliation of replica groups.
//!
//! Rows of the site's group hold the configuration of each replica group. Every node opens the groups that
//! name it, and closes the others. The leader of a group adds and removes members until they match the
//! configuration. The leader is a row, too, so that nodes outside the group can redirect their clients.

use crate::cluster::balance::KEEP_EVERY;
use crate::core::{Broker, Inner};
use crate::error::AdminError;
use crate::placement::layout::{changes, decided, is_unused, layout, leaving};
use crate::propose::replica::{Directory, LocalReplica};
use crate::state::rows::Row;
use crate::state::rows::config_seen::ConfigSeen;
use crate::state::rows::leader::LeaderReport;
use crate::state::rows::replica_group::ReplicaGroup;
use crate::state::rows::site::Leaving;
use crate::state::tables::Tables;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_log::Op;
use weir_replica::{Group, GroupConfig, Member, NodeId};
use weir_types::{GroupId, PartitionId};

/// Interval of work that nobody waits for: repair of placement, and cleanup of deleted topics.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// A change of members takes a few round trips.
const STEP_WITHIN: Duration = Duration::from_secs(2);

/// Time after which a leader yields to the preferred leader: several elections.
const GIVE_WAY_AFTER: Duration = Duration::from_secs(3);

/// Number of missing entries at which a learner becomes a voter: less than a second of the highest load.
pub(crate) const CAUGHT_UP: u64 = 64;

impl Broker {
    /// Commits the leader of a group, unless a later term is known.
    pub(crate) async fn note_leader(&self, group: GroupId, led: LeaderReport) -> Result<(), AdminError> {
        self.change(move |tables, _| {
            let known = tables.other::<LeaderReport>(&group).unwrap_or_default();
            let is_news = led.term > known.term || (led.term == known.term && led != known);
            Ok(is_news.then(|| led.put(&group)).into_iter().collect())
        })
        .await
    }
}

/// Keeps this node's groups as they are decided, until the broker is gone.
pub(crate) async fn run_reconciler(inner: Weak<Inner>) {
    let Some(changed) = inner.upgrade().map(|inner| Arc::clone(&inner.groups_changed)) else {
        return;
    };
    let mut since: BTreeMap<GroupId, (u64, Instant)> = BTreeMap::new();
    let (mut every, mut tidied) = (KEEP_EVERY, Instant::now());
    loop {
        // Runs after a timeout as well: a planned step may wait for an absent node.
        let _ = tokio::time::timeout(every, changed.notified()).await;
        let Some(inner) = inner.upgrade() else { return };
        let broker = Broker(inner);
        if broker.group().is_witness() {
            return;
        }
        let decided = decided(&broker.0.applied.tables());
        every = if decided.is_empty() {
            TIDY_EVERY
        } else {
            KEEP_EVERY
        };
        let tidies = tidied.elapsed() >= TIDY_EVERY;
        if tidies {
            tidied = Instant::now();
            broker.repair_placement().await;
        }
        broker.reconcile_local().await;
        broker.begin_reassignments();
        broker.begin_forwarding().await;
        for (id, wanted) in decided {
            let Some(replica) = broker.0.replica(id).filter(|replica| replica.group.is_serving()) else {
                since.remove(&id);
                continue;
            };
            let term = replica.group.term();
            let begun = since.entry(id).or_insert((term, Instant::now()));
            if begun.0 != term {
                *begun = (term, Instant::now());
            }
            let step = async {
                if broker.acknowledge_config(id, &wanted).await {
                    broker.report_leader(&replica.group, &wanted).await;
                    broker.reconcile_members(&replica.group, &wanted, begun.1).await;
                }
                if tidies {
                    broker.drop_deleted(id).await;
                }
            };
            // A group without a majority must not hold up the others.
            if tokio::time::timeout(STEP_WITHIN, step).await.is_err() {
                tracing::debug!(group = id.0, "a step of a replica group timed out");
            }
        }
    }
}

impl Broker {
    /// Opens the groups that this node has or should have, and closes the groups that have removed it.
    pub(crate) async fn reconcile_local(&self) {
        let me = self.group().node();
        let decided = decided(&self.0.applied.tables());
        for (id, wanted) in &decided {
            let is_open = self.0.replica(*id).is_some();
            let should = wanted.replicas.contains(&me);
            let led = self.0.applied.tables().other::<LeaderReport>(id);
            let is_out = led.is_some_and(|led| led.is_without(me, wanted));
            let has = is_open || self.0.recovered().contains_key(id);
            match (is_open, is_out) {
                (true, true) => self.close_group(*id).await,
                // The node stopped before it had deleted the group's log.
                (false, true) if has => self.forget_group(*id).await,
                (false, false) if should || has => self.open_group(*id, wanted).await,
                _ => {}
            }
        }
    }

    /// Has groups that lack a node get another, if this node leads the site.
    async fn repair_placement(&self) {
        if !self.is_serving() || decided(&self.0.applied.tables()).is_empty() {
            return;
        }
        let members = self.group().members();
        let healed = |tables: &Tables, members: &BTreeMap<NodeId, Member>| {
            let mut layout = layout(tables, members);
            let before = layout.groups.clone();
            layout.heal();
            let mut ops = changes(&before, layout, members);
            let gone = leaving(tables).filter(|node| !members.contains_key(node));
            ops.extend(gone.map(|node| Leaving::remove(&node)));
            ops
        };
        if healed(&self.0.applied.tables(), &members).is_empty() {
            return;
        }
        let done = self.change(move |tables, _| Ok(healed(tables, &members)));
        if let Err(error) = done.await {
            tracing::debug!(%error, "cannot repair the placement of replica groups yet");
        }
    }

    async fn open_group(&self, id: GroupId, wanted: &ReplicaGroup) {
        let (site, me) = (self.group(), self.group().node());
        // A node that comes later is added by the members, as is a founder that finds that they have begun.
        let led = self.0.applied.tables().other::<LeaderReport>(&id);
        let begins = wanted.founders.contains_key(&me) && led.is_none();
        let config = GroupConfig {
            id,
            node: me,
            member: site.members().get(&me).cloned().unwrap_or_default(),
            founders: if begins {
                wanted.founders.clone()
            } else {
                BTreeMap::new()
            },
            timing: site.timing(),
        };
        let state = self.0.recovered().remove(&id);
        let transport = Arc::new(Directory {
            site: site.clone(),
            transport: Arc::clone(&self.0.transport),
        });
        match LocalReplica::open(&self.0.common, config, state.unwrap_or_default(), transport).await {
            Ok(replica) => {
                tracing::info!(group = id.0, replicas = ?wanted.replicas, "replica group opened");
                let mut replicas = self.0.replicas.write();
                replicas.insert(id, Arc::new(replica));
            }
            Err(error) => {
                self.0.recovered().extend(state.map(|state| (id, state)));
                tracing::warn!(group = id.0, %error, "cannot open a replica group yet");
            }
        }
    }

    async fn close_group(&self, id: GroupId) {
        let replica = {
            let mut replicas = self.0.replicas.write();
            replicas.remove(&id)
        };
        let Some(replica) = replica else { return };
        replica.leave().await;
        self.forget_group(id).await;
    }

    async fn forget_group(&self, id: GroupId) {
        let (done, forgotten) = oneshot::channel();
        if self.0.common.log.forget(id, move |r| drop(done.send(r))).is_ok() {
            let _ = forgotten.await;
            self.0.recovered().remove(&id);
            tracing::info!(group = id.0, "replica group removed from this node");
        }
    }

    /// Returns true if no leader of `group` has seen a newer configuration than `wanted`. The group's own log
    /// records the version: a leader that lags behind in the site's group does not add a removed node again.
    async fn acknowledge_config(&self, group: GroupId, wanted: &ReplicaGroup) -> bool {
        let version = wanted.version;
        let known = move |tables: &Tables| tables.configs_seen.get(&group).copied().unwrap_or(0);
        let now = known(&self.0.applied.tables());
        if now >= version {
            return now == version;
        }
        let noted = self.change_in(group, move |tables, _| {
            let is_news = known(tables) < version;
            Ok(is_news
                .then(|| ConfigSeen(version).put(&group))
                .into_iter()
                .collect())
        });
        noted.await.is_ok() && known(&self.0.applied.tables()) == version
    }

    /// Reports the leader of `group` to the site, unless it is known.
    async fn report_leader(&self, group: &Group, wanted: &ReplicaGroup) {
        let led = LeaderReport {
            node: group.node(),
            term: group.term(),
            members: group.members().into_keys().collect(),
            version: wanted.version,
        };
        let known = self.0.applied.tables().other::<LeaderReport>(&group.id());
        if known.as_ref() == Some(&led) {
            return;
        }
        let told = if self.is_serving() {
            self.note_leader(group.id(), led).await
        } else {
            self.tell_leader(group.id(), led).await
        };
        if let Err(error) = told {
            tracing::debug!(group = group.id().0, %error, "cannot report the leader of a group yet");
        }
    }

    /// Performs a step towards the configured members of `group`, which this node leads since `begun`.
    async fn reconcile_members(&self, group: &Group, wanted: &ReplicaGroup, begun: Instant) {
        let (members, voters, site) = (group.members(), group.voters(), self.group().members());
        let me = group.node();
        let stepped = 'step: {
            for node in &wanted.replicas {
                let Some(member) = site.get(node) else { continue };
                if members.get(node) != Some(member) {
                    break 'step group.add_learner(*node, member.clone()).await;
                }
                if !voters.contains(node) && group.lag(*node).is_some_and(|lag| lag <= CAUGHT_UP) {
                    break 'step group.promote(*node).await;
                }
            }
            let complete = wanted.replicas.iter().all(|n| voters.contains(n));
            let extra = members.keys().copied().filter(|n| !wanted.replicas.contains(n));
            let (own, others): (Vec<NodeId>, Vec<NodeId>) = extra.partition(|n| *n == me);
            if let Some(node) = others.first().filter(|_| complete) {
                break 'step group.remove(*node).await;
            }
            // The preferred leader, or a successor if this node is being removed.
            let heir = wanted
                .replicas
                .iter()
                .find(|n| voters.contains(n) && group.lag(**n).is_some_and(|l| l <= CAUGHT_UP));
            let first = wanted.replicas.first().filter(|n| voters.contains(n));
            let to = if own.is_empty() {
                first
            } else {
                heir.filter(|_| complete)
            };
            match to {
                Some(to) if *to != me && begun.elapsed() > GIVE_WAY_AFTER => group.transfer(*to).await,
                _ => Ok(()),
            }
        };
        if let Err(error) = stepped {
            tracing::debug!(group = group.id().0, %error, "cannot change the members of a replica group yet");
        }
    }

    /// Drops partitions of `group` whose topic was deleted. Partition numbers ascend and are never reused: an
    /// unused number below the next belonged to a deleted topic.
    async fn drop_deleted(&self, group: GroupId) {
        let gone = {
            let tables = self.0.applied.tables();
            let next = tables.next_partition(group);
            let ends = self
                .0
                .common
                .log
                .ends()
                .into_iter()
                .map(|(partition, _)| partition);
            let deleted = |p: &PartitionId| {
                let is_old = p.group() == group && u64::from(p.number()) < next;
                is_old && is_unused(&tables, *p)
            };
            ends.filter(deleted).collect::<Vec<_>>()
        };
        if gone.is_empty() {
            return;
        }
        let dropped = self
            .change_in(group, move |tables, log| {
                let is_there = |p: &PartitionId| log.marks(*p).is_some() && is_unused(tables, *p);
                let mut ops = Vec::new();
                for partition in gone.into_iter().filter(is_there) {
                    // The seal stays, since a later leader that lags behind in the site's group may serve the
                    // partition otherwise.
                    ops.push(Op::Drop { partition });
                    ops.extend(tables.forget_producers(partition));
                }
                Ok(ops)
            })
            .await;
        if let Err(error) = dropped {
            tracing::debug!(group = group.0, %error, "cannot drop partitions of a deleted topic yet");
        }
    }
}
