//! When an entry is committed.

use crate::group::Shared;
use std::sync::{Arc, Weak};
use weir_types::Term;

/// Decides over entries that are on this node's disk.
pub trait CommitRule: Send + Sync + 'static {
    /// The entries of `term` up to `index` are flushed here. Called from the log's writer thread: must not block. May
    /// decide at once or keep `decider` for later.
    fn flushed(&self, term: Term, index: u64, decider: &Decider);
}

/// What a rule decides with.
#[derive(Clone)]
pub struct Decider(pub(crate) Weak<Shared>);

impl Decider {
    /// The entries of `term` up to `index` are committed, for ever. Ignored for a term that is over.
    pub fn commit(&self, term: Term, index: u64) {
        if let Some(shared) = self.0.upgrade() {
            shared.commit(term, index);
        }
    }

    /// The entries of `term` from `from` on are taken back, and the term is over. Committed ones stay.
    pub fn discard(&self, term: Term, from: u64) {
        if let Some(shared) = self.0.upgrade() {
            shared.step_down(term, from);
        }
    }
}

/// Committed is what this node's disk has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Synced;

impl CommitRule for Synced {
    fn flushed(&self, term: Term, index: u64, decider: &Decider) {
        decider.commit(term, index);
    }
}

impl Synced {
    /// The rule as a group takes it.
    pub fn rule() -> Arc<dyn CommitRule> {
        Arc::new(Self)
    }
}
