//! A witness: a third vote for a site of two, on a machine without room for records.
//!
//! The witness keeps headers of entries and their effects on `state`. So it can compare logs, and votes by
//! Raft's rules. It never stands for election, since it has no records to serve. An entry committed by a full
//! node and the witness has a single copy of its records. If that node fails, the witness blocks the election
//! of nodes without them, and the site waits for the node's return. Nothing acknowledged is lost, unless that
//! node's disk is.
//!
//! To make that rare, the witness comes last, like the auxiliaries of Cheap Paxos (Lamport and Massa, 2004):
//! an entry is held back until every other full voter has confirmed it or timed out. While both full nodes
//! are well, committed entries are on both, and either may fail. An entry is also held back until the leader
//! itself has synced it: a witness with an entry that nobody else has would block every election for ever.
//! Votes and heartbeats are not held back.

use crate::raft::shared::{Confirmed, Shared};
use crate::raft::store::Store;
use crate::raft::timing::Timing;
use crate::types::NodeId;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// The delays of a stream to a witness.
pub(crate) struct HoldBack {
    shared: Arc<Shared>,
    store: Store,
    timing: Timing,
    /// Voters that timed out and have not caught up since.
    given_up: BTreeSet<NodeId>,
}

impl HoldBack {
    /// Makes the delays of a stream: a single timeout for each voter that falls silent.
    pub(crate) fn new(shared: Arc<Shared>, store: Store, timing: Timing) -> Self {
        Self {
            shared,
            store,
            timing,
            given_up: BTreeSet::new(),
        }
    }

    /// Waits until the entry `index` may go to the witness.
    ///
    /// # Errors
    /// Fails when this node's log has stopped.
    pub(crate) async fn until_copied(&mut self, index: u64) -> io::Result<()> {
        self.store.until_flushed(index).await?;
        let others = self.shared.other_full_voters();
        let mut confirmed = self.shared.confirmed();
        let lacks = |c: &Confirmed, node: &NodeId| c.get(node).is_none_or(|has| *has < index);
        self.given_up.retain(|node| lacks(&confirmed.borrow(), node));
        let waited_for: Vec<NodeId> = others.difference(&self.given_up).copied().collect();
        // A voter not heard since this node leads may well be the earlier leader, now gone.
        let is_heard = waited_for
            .iter()
            .any(|node| confirmed.borrow().contains_key(node));
        let patience = if is_heard {
            self.timing.election_min
        } else {
            self.timing.heartbeat
        };
        let copied = confirmed.wait_for(|c| waited_for.iter().all(|node| !lacks(c, node)));
        if tokio::time::timeout(patience, copied).await.is_err() {
            let behind = waited_for.iter().filter(|node| lacks(&confirmed.borrow(), node));
            self.given_up.extend(behind.copied().collect::<Vec<_>>());
        }
        Ok(())
    }
}
