//! Speculative steps of a pipeline session, as the proposer sees them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use weir_types::planted::{Bug, planted};
use weir_types::sync::Condvar;
use weir_types::sync::Mutex;
use weir_types::{Batch, PartitionId, Term};

pub(crate) struct Shared {
    pub(crate) term: Term,
    /// The first invalid step; `u64::MAX` while all are valid.
    pub(crate) invalid_from: AtomicU64,
    pub(crate) undecided: Mutex<usize>,
    pub(crate) decided: Condvar,
}

/// A step of a session. A step that is dropped before its entry is committed invalidates the session.
pub struct Step {
    pub(crate) shared: Arc<Shared>,
    pub(crate) number: u64,
    pub(crate) is_committed: bool,
}

/// The precondition of a batch that passed a pipeline.
#[derive(Default)]
pub enum Footing {
    /// None: the pipeline has no state.
    #[default]
    Free,
    /// All earlier steps of the session are committed.
    Step(Step),
    /// The batch must be a duplicate or invalid: the pipeline has not processed the batch, which must not be
    /// stored.
    Unseen,
}

impl Shared {
    /// Returns true if step `number` is valid in `term`.
    pub(crate) fn is_valid_in(&self, term: Option<Term>, number: u64) -> bool {
        let is_on_whole = number < self.invalid_from.load(Ordering::Acquire);
        Some(self.term) == term && (is_on_whole || planted(Bug::StepOnFallen))
    }

    pub(crate) fn invalidate_from(&self, number: u64) {
        self.invalid_from.fetch_min(number, Ordering::AcqRel);
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, usize> {
        self.undecided.lock()
    }
}

impl Step {
    /// Returns true if the step can be part of an entry of `term`.
    pub(crate) fn is_valid_in(&self, term: Option<Term>) -> bool {
        self.shared.is_valid_in(term, self.number)
    }

    /// Invalidates this step and all later steps.
    pub(crate) fn invalidate(&self) {
        self.shared.invalidate_from(self.number);
    }

    /// Marks the step as committed and applied.
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
    /// The records, without a valid base offset.
    pub batch: Batch,
    /// Positions in the batch's bytes for offsets of source records, with the record's distance from the
    /// first. Filled with [`OFFSET_DIGITS`] digits when the entry is made, since only then the offset is
    /// known.
    pub offset_slots: Vec<(usize, u32)>,
}

/// Digits of an offset in an [`Output::offset_slots`]: as many as the largest has, zeros in front.
pub const OFFSET_DIGITS: usize = 20;
