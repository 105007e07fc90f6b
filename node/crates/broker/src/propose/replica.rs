//! A replica of a group on this node, with the proposer of its entries.

use crate::propose::proposer::Proposer;
use crate::propose::request::{Queue, Request};
use crate::propose::thread::ProposerThread;
use crate::state::applied::{AppliedState, GroupStateMachine};
use futures_util::future::BoxFuture;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use weir_log::{GroupState, Log, Running};
use weir_replica::{Channel, Group, GroupConfig, GroupError, Member, NodeId, ProposeError, Transport};
use weir_types::Clock;
use weir_types::limits::{
    PROPOSER_CHANGES_MAX, PROPOSER_QUEUE_MAX, STEPS_QUEUED_BYTES_MAX, STEPS_QUEUED_MAX,
};
use weir_types::sync::Mutex;

/// A transport to the current addresses of members, as the site knows them: they may have changed since the
/// group last heard of them.
pub(crate) struct Directory {
    pub(crate) site: Group,
    pub(crate) transport: Arc<dyn Transport>,
}

impl Transport for Directory {
    fn open(&self, node: NodeId, member: Member) -> BoxFuture<'static, io::Result<Channel>> {
        let known = self.site.members().get(&node).cloned();
        self.transport.open(node, known.unwrap_or(member))
    }

    fn suspect(&self, node: NodeId) {
        self.transport.suspect(node);
    }
}

/// Longest wait for replication to stop.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

pub(crate) struct LocalReplica {
    pub(crate) group: Group,
    pub(crate) requests: Queue,
    /// Permits for changes, which must not take the places of produce requests.
    pub(crate) changes: Semaphore,
    /// The same for steps of pipelines that no batch made, by bytes.
    pub(crate) steps: Arc<Semaphore>,
    pub(crate) proposer: Mutex<Option<Running>>,
}

/// Context that all replicas of a node share.
pub(crate) struct ReplicaContext {
    pub(crate) log: Log,
    pub(crate) applied: Arc<AppliedState>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) linger: Duration,
}

impl LocalReplica {
    /// Opens the group that `config` says, which the log's recovery found at `state`.
    pub(crate) async fn open(
        common: &ReplicaContext,
        config: GroupConfig,
        state: GroupState,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, GroupError> {
        let ReplicaContext { log, applied, .. } = common;
        // Room for every request that has a permit, and for a few wakes.
        let (requests, queue) = Queue::new(PROPOSER_QUEUE_MAX + PROPOSER_CHANGES_MAX + STEPS_QUEUED_MAX + 64);
        let waker = requests.clone();
        // A wake-up that does not fit is not missed: other requests in the full queue wake as well.
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || drop(waker.try_send(Request::Wake)));
        let part = GroupStateMachine::new(Arc::clone(applied), config.id, Arc::clone(&wake));
        let group = Group::open(config, log.clone(), state, transport, Arc::new(part)).await?;
        let (clock, applied) = (Arc::clone(&common.clock), Arc::clone(applied));
        let state = Proposer::new(log.clone(), group.clone(), applied, clock, wake);
        let driver = ProposerThread {
            proposer: state,
            requests: queue,
            linger: common.linger,
        };
        let proposer = log.workers().start("weir-propose", Box::new(driver));
        let proposer = proposer.map_err(|e| GroupError::Stopped(e.to_string()))?;
        requests.wake_by(&proposer);
        Ok(Self {
            group,
            requests,
            changes: Semaphore::new(PROPOSER_CHANGES_MAX),
            steps: Arc::new(Semaphore::new(STEPS_QUEUED_BYTES_MAX)),
            proposer: Mutex::new(Some(proposer)),
        })
    }

    /// Returns the error for requests that need the leader.
    pub(crate) fn not_leader(&self) -> ProposeError {
        let (node, leader) = (self.group.node(), self.group.leader());
        let leader = leader.map(|(id, _)| id);
        ProposeError::NotLeader {
            // A leader without a majority is not a leader to be redirected to.
            leader: leader.filter(|id| *id != node),
        }
    }

    /// Stops accepting requests, and finishes the accepted. Blocks.
    pub(crate) fn close(&self, runtime: &tokio::runtime::Handle) {
        self.end_proposing();
        let group = self.group.clone();
        let (done, closed) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            group.close().await;
            let _ = done.send(());
        });
        // Bounded: the log must be closed in any case.
        let _ = closed.recv_timeout(CLOSE_WITHIN);
    }

    fn end_proposing(&self) {
        if self.requests.send(Request::Stop).is_ok() {
            let proposer = self.proposer.lock().take();
            if let Some(proposer) = proposer {
                (proposer.join)();
            }
        }
    }

    /// Leaves a group that continues without this node.
    pub(crate) async fn leave(&self) {
        // The thread ends by itself.
        let _ = self.requests.try_send(Request::Stop);
        self.group.close().await;
    }
}
