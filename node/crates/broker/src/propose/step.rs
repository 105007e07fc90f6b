//! Speculative steps of a pipeline session, as the proposer sees them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use weir_types::planted::{Bug, planted};
use weir_types::{Batch, PartitionId, Term};

pub(crate) struct Shared {
    pub(crate) term: Term,
    /// The first step that came to nothing: neither do those behind it. As large as can be while there is none.
    pub(crate) invalid_from: AtomicU64,
    pub(crate) undecided: Mutex<usize>,
    pub(crate) decided: Condvar,
}

/// One step of a chain. Dropped before its entry is committed, it breaks the chain.
pub struct Step {
    pub(crate) shared: Arc<Shared>,
    pub(crate) number: u64,
    pub(crate) is_committed: bool,
}

/// What a batch that passed a pipeline stands on.
#[derive(Default)]
pub enum Footing {
    /// On nothing: its pipeline remembers nothing.
    #[default]
    Free,
    /// On the steps before it.
    Step(Step),
    /// It was taken before, it seems, or cannot be: the pipeline has not looked at it, and it must not be stored.
    Unseen,
}

impl Shared {
    /// Whether step `number` does.
    pub(crate) fn is_valid_in(&self, term: Option<Term>, number: u64) -> bool {
        let is_on_whole = number < self.invalid_from.load(Ordering::Acquire);
        Some(self.term) == term && (is_on_whole || planted(Bug::StepOnFallen))
    }

    pub(crate) fn invalidate_from(&self, number: u64) {
        self.invalid_from.fetch_min(number, Ordering::AcqRel);
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, usize> {
        self.undecided.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Step {
    /// Whether it may be taken into an entry of `term`.
    pub(crate) fn is_valid_in(&self, term: Option<Term>) -> bool {
        self.shared.is_valid_in(term, self.number)
    }

    /// Its batch is not taken: nothing on top of it may be.
    pub(crate) fn invalidate(&self) {
        self.shared.invalidate_from(self.number);
    }

    /// Its entry is committed, and applied here.
    pub(crate) fn commit(mut self) {
        self.is_committed = true;
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.is_committed {
            self.invalidate();
        }
        *self.shared.lock() -= 1;
        self.shared.decided.notify_all();
    }
}

/// Records for another partition, in the same entry.
#[derive(Clone, Debug)]
pub struct Output {
    /// Where.
    pub partition: PartitionId,
    /// What; its base offset is stamped later.
    pub batch: Batch,
    /// Places in the batch's bytes where the offset of a record of the source belongs, and how far that record lies
    /// behind the first: it is known only when the entry is made. Written as [`OFFSET_DIGITS`] digits.
    pub offset_slots: Vec<(usize, u32)>,
}

/// Digits of an offset in an [`Output::offset_slots`]: as many as the largest has, zeros in front.
pub const OFFSET_DIGITS: usize = 20;
