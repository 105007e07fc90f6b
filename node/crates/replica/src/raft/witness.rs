//! A witness: a third vote for a site of two, on a machine that has no room for records.
//!
//! It keeps the headers of entries and their effects on `state`, so it knows which log is the newer one, and gives its
//! vote by Raft's rules. It never stands for election: it has no records to serve. So an entry that is committed by a
//! full node and the witness alone has one copy of its records; should that node fail, the witness keeps anybody without
//! them from being elected, and the site waits for that node to come back. Nothing acknowledged is lost, unless that
//! node's disk is.
//!
//! To make that rare, the witness comes last, as the auxiliaries of Cheap Paxos do (Lamport and Massa, 2004): an entry is
//! held back from it until every other full voter has confirmed it, or has been waited for in vain. While both full nodes
//! are well, what is committed is on both, and either may fail. And it is held back until the leader itself has it on its
//! disk: a witness that knew of an entry which nobody has any more would keep everybody from being elected, for ever.
//! Votes and heartbeats are not held back.

use crate::raft::shared::{Confirmed, Shared};
use crate::raft::store::Store;
use crate::raft::timing::Timing;
use crate::types::NodeId;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// What one stream to a witness waits for.
pub(crate) struct HoldBack {
    shared: Arc<Shared>,
    store: Store,
    timing: Timing,
    /// Waited for in vain, and not caught up since.
    given_up: BTreeSet<NodeId>,
}

impl HoldBack {
    /// Waits once for each voter that falls silent.
    pub(crate) fn new(shared: Arc<Shared>, store: Store, timing: Timing) -> Self {
        Self {
            shared,
            store,
            timing,
            given_up: BTreeSet::new(),
        }
    }

    /// Returns once the entry `index` may go to the witness.
    ///
    /// # Errors
    /// When this node's log stopped.
    pub(crate) async fn until_copied(&mut self, index: u64) -> io::Result<()> {
        self.store.until_flushed(index).await?;
        let others = self.shared.other_full_voters();
        let mut confirmed = self.shared.confirmed();
        let lacks = |c: &Confirmed, node: &NodeId| c.get(node).is_none_or(|has| *has < index);
        self.given_up.retain(|node| lacks(&confirmed.borrow(), node));
        let waited_for: Vec<NodeId> = others.difference(&self.given_up).copied().collect();
        // Who was not heard of since this node leads may well be the one that led before, and is gone.
        let is_heard = waited_for
            .iter()
            .any(|node| confirmed.borrow().contains_key(node));
        let patience = match is_heard {
            true => self.timing.election_min,
            false => self.timing.heartbeat,
        };
        let copied = confirmed.wait_for(|c| waited_for.iter().all(|node| !lacks(c, node)));
        if tokio::time::timeout(patience, copied).await.is_err() {
            let behind = waited_for.iter().filter(|node| lacks(&confirmed.borrow(), node));
            self.given_up.extend(behind.copied().collect::<Vec<_>>());
        }
        Ok(())
    }
}
