//! A replica group, as the layers above see it.

pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod judge;
mod keeper;
pub(crate) mod leader;
mod leadership;
pub(crate) mod members;
pub(crate) mod mend;
mod open;
pub(crate) mod serve;
pub(crate) mod status;

use crate::raft::machine::Machine;
use crate::raft::shared::Shared;
use crate::raft::store::Store;
use crate::raft::timing::Timing;
use crate::transport::Transport;
use crate::types::{NodeId, Types};
use futures_util::future::BoxFuture;
use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use tokio::time::Instant;
use weir_log::{EntryId, Log, Op};
use weir_types::GroupId;
use weir_types::sync::Mutex;
use weir_types::{Offset, PartitionId};

/// Answers requests from other members to the leader, beyond consensus.
pub trait Forwarded: Send + Sync + 'static {
    /// Answers `ask`, in a form that both sides agree on.
    fn answer(&self, ask: Vec<u8>) -> BoxFuture<'static, Vec<u8>>;
}

/// A proposal.
pub struct Proposal {
    /// Effects, all or none of them.
    pub ops: Vec<Op>,
    /// May be acknowledged before a sync. Honoured only on a single node, since a replica must not forget
    /// acknowledged entries.
    pub lazy: bool,
    /// May use part of the disk's reserve: frees space, or keeps the node in order.
    pub control: bool,
}

/// The last failed repair: partition, offset, time.
pub(super) type LastFailedRepair = Option<(PartitionId, Offset, Instant)>;

/// An open group. Clones are handles to the same group.
#[derive(Clone)]
pub struct Group(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Store,
    pub(super) raft: Raft<Types, Machine>,
    pub(super) timing: Timing,
    pub(super) witness: bool,
    /// The last entry of this node before it left the group for a while.
    pub(super) forgotten: EntryId,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) receiving: tokio::sync::Mutex<()>,
    /// Held during a change of voters, which takes two entries.
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
    pub(super) last_failed_repair: tokio::sync::Mutex<LastFailedRepair>,
    pub(super) forwarded: OnceLock<Arc<dyn Forwarded>>,
    pub(super) keeper: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Group {
    /// Sets the handler of requests from other members, once.
    pub fn set_forwarded(&self, answer: Arc<dyn Forwarded>) {
        let _ = self.0.forwarded.set(answer);
    }

    pub(crate) fn forwarded(&self) -> Option<&Arc<dyn Forwarded>> {
        self.0.forwarded.get()
    }

    pub(crate) fn raft(&self) -> &Raft<Types, Machine> {
        &self.0.raft
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(crate) fn log(&self) -> &Log {
        self.0.store.log()
    }

    pub(crate) fn shared_handle(&self) -> Arc<Shared> {
        Arc::clone(&self.0.shared)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    pub(crate) fn transport(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.0.transport)
    }

    pub(crate) fn changing(&self) -> &tokio::sync::Mutex<()> {
        &self.0.changing
    }

    pub(crate) fn last_failed_repair(&self) -> &tokio::sync::Mutex<LastFailedRepair> {
        &self.0.last_failed_repair
    }

    /// Returns the reason why consensus stopped, if it did. Nothing is decided here until a restart.
    pub fn stopped(&self) -> Option<String> {
        let running = self.0.raft.metrics().borrow_watched().running_state.clone();
        let ended = || self.0.shared.ended.load(Ordering::Relaxed);
        let panicked =
            || ended().then(|| "it ended with a panic: what this node has contradicts the others".to_owned());
        running.err().map(|e| e.to_string()).or_else(panicked)
    }

    pub(crate) fn receiving(&self) -> &tokio::sync::Mutex<()> {
        &self.0.receiving
    }

    /// Returns the last entry of this node before it left the group for a while, or the default id.
    pub(crate) fn forgotten(&self) -> EntryId {
        self.0.forgotten
    }

    /// Returns true while this node lacks entries from before it left the group. Its log may name outdated
    /// members, who could elect the node.
    pub(crate) fn lacks_earlier_entries(&self) -> bool {
        self.last_id() < self.0.forgotten
    }

    pub(crate) fn last_id(&self) -> EntryId {
        self.0.store.tail().last
    }

    pub(crate) fn last_index(&self) -> u64 {
        self.0.store.tail().last.index
    }

    /// Returns the group's number.
    pub fn id(&self) -> GroupId {
        self.0.store.group()
    }

    /// Returns this node's number.
    pub fn node(&self) -> NodeId {
        self.0.shared.node
    }

    /// Returns true when this node only votes: see [`crate::raft::witness`].
    pub fn is_witness(&self) -> bool {
        self.0.witness
    }

    /// Returns the group's timeouts.
    pub fn timing(&self) -> Timing {
        self.0.timing
    }
}
