//! Opening and closing a broker: the only file that knows all rooms.

use crate::access::ledger::Ledger;
use crate::access::quota::Quotas;
use crate::cluster::reconcile::run_reconciler;
use crate::coordinator::registry::Coordinator;
use crate::core::{Broker, Inner, Options};
use crate::forward::dispatch::PeerRequestHandler;
use crate::local::metrics::BrokerMetrics;
use crate::local::refused::Refused;
use crate::propose::replica::{LocalReplica, ReplicaContext};
use crate::state::applied::AppliedState;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use tokio::sync::{Notify, Semaphore, watch};
use weir_log::{Log, Recovered, StateKind};
use weir_replica::{Forwarded, GroupConfig, GroupError, Starts, Transport};
use weir_types::Clock;
use weir_types::sync::{Mutex, RwLock};

impl Broker {
    /// Opens a broker over `log` with its `recovered` state, as a member of the site's group `config` and of
    /// other groups. Must be called within a runtime, which runs the tasks of replication.
    ///
    /// # Errors
    /// When stored state cannot be read, or the log has stopped.
    ///
    /// # Cancel safety
    /// Not cancel safe: tasks that were started go on. Drop the runtime instead.
    pub fn open<'a>(
        log: Log,
        recovered: &'a Recovered,
        config: GroupConfig,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> BoxFuture<'a, Result<Self, GroupError>> {
        Box::pin(async move {
            let stopped = |e: &dyn std::fmt::Display| GroupError::Stopped(e.to_string());
            let applied = Arc::new(AppliedState::default());
            applied.load(&log).map_err(|e| stopped(&e))?;
            let common = ReplicaContext {
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
            let site = LocalReplica::open(&common, config, state, Arc::clone(&transport)).await?;
            let site = Arc::new(site);
            let coordinator = Coordinator::restore(&applied.tables().groups, options.group_initial_delay);
            let broker = Self(Arc::new(Inner {
                common,
                replicas: RwLock::new(BTreeMap::from([(site.group.id(), Arc::clone(&site))])),
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
                peer_requests: OnceLock::new(),
            }));
            let handler: Arc<dyn Forwarded> = Arc::new(PeerRequestHandler(Arc::downgrade(&broker.0)));
            broker.group().set_forwarded(Arc::clone(&handler));
            let _ = broker.0.peer_requests.set(handler);
            let turns = broker.0.applied.turns();
            tokio::spawn(follow_turns(Arc::downgrade(&broker.0), turns));
            broker.reconcile_local().await;
            tokio::spawn(run_reconciler(Arc::downgrade(&broker.0)));
            Ok(broker)
        })
    }

    /// Stops accepting requests, finishes the accepted, and closes the log. Blocks.
    pub fn close(&self) {
        self.0.ledger.records.close();
        let replicas = std::mem::take(&mut *self.0.replicas.write());
        replicas
            .values()
            .for_each(|replica| replica.close(&self.0.runtime));
        self.0.log.close();
    }
}

/// Reloads consumer groups when leadership of the site changes, since another node has coordinated them
/// meanwhile.
async fn follow_turns(inner: std::sync::Weak<Inner>, mut turns: watch::Receiver<u64>) {
    while turns.changed().await.is_ok() {
        let Some(inner) = inner.upgrade() else { return };
        let groups = inner.applied.tables().groups.clone();
        inner.coordinator.reload(&groups);
    }
}
