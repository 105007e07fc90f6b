//! One replica group.

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
use std::sync::{Arc, Mutex, OnceLock};
use tokio::time::Instant;
use weir_log::{EntryId, Log, Op};
use weir_types::GroupId;
use weir_types::{Offset, PartitionId};

/// Answers what other members ask of the one that leads, beyond consensus.
pub trait Forwarded: Send + Sync + 'static {
    /// The answer to `ask`, in whatever form the two sides agree on.
    fn answer(&self, ask: Vec<u8>) -> BoxFuture<'static, Vec<u8>>;
}

/// What to propose.
pub struct Proposal {
    /// Effects, all or none of them.
    pub ops: Vec<Op>,
    /// May be acknowledged before it is synced; heeded only on a node that stands alone, since a replica that forgets
    /// what it acknowledged is no replica.
    pub lazy: bool,
    /// May use part of the disk's reserve: frees space, or keeps the node in order.
    pub control: bool,
}

/// What was asked for in vain last, and when.
pub(super) type InVain = Option<(PartitionId, Offset, Instant)>;

/// A group that is open. Clones are handles to the same one.
#[derive(Clone)]
pub struct Group(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Store,
    pub(super) raft: Raft<Types, Machine>,
    pub(super) timing: Timing,
    pub(super) witness: bool,
    /// The last entry that this node had before it was out of the group for a while.
    pub(super) forgotten: EntryId,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) receiving: tokio::sync::Mutex<()>,
    /// Held while the voters change: that takes two entries.
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
    pub(super) in_vain: tokio::sync::Mutex<InVain>,
    pub(super) forwarded: OnceLock<Arc<dyn Forwarded>>,
    pub(super) keeper: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Group {
    /// Sets who answers what other members ask, once.
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

    pub(crate) fn in_vain(&self) -> &tokio::sync::Mutex<InVain> {
        &self.0.in_vain
    }

    /// Why consensus stopped, if it did: nothing is decided here any more, and only a new start helps.
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

    /// The last entry that this node had before it was out of the group for a while; the first of all when it never was.
    pub(crate) fn forgotten(&self) -> EntryId {
        self.0.forgotten
    }

    /// Whether it does not have yet what it had before it was out of the group: what it has may name members of long
    /// ago, and be enough to be elected by them.
    pub(crate) fn lacks_what_it_had(&self) -> bool {
        self.last_id() < self.0.forgotten
    }

    pub(crate) fn last_id(&self) -> EntryId {
        self.0.store.tail().last
    }

    pub(crate) fn last_index(&self) -> u64 {
        self.0.store.tail().last.index
    }

    /// Which group it is.
    pub fn id(&self) -> GroupId {
        self.0.store.group()
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.0.shared.node
    }

    /// Whether this node only votes: see [`crate::raft::witness`].
    pub fn is_witness(&self) -> bool {
        self.0.witness
    }

    /// How long others are waited for.
    pub fn timing(&self) -> Timing {
        self.0.timing
    }
}
