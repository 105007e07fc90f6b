//! Comparison of the candidate with the live pipeline.

use crate::error::ApplyError;
use crate::manage::shadow::report::{EXAMPLES_MAX, Example, told};
use crate::manage::shadow::side::Run;
use crate::spec::source::Origin;

/// Comparison of the candidate with the live pipeline.
pub(crate) struct Shadow {
    pub(crate) candidate: Run,
    pub(crate) live: Option<Run>,
    pub(crate) differences: u64,
    pub(crate) examples: Vec<Example>,
}

impl Shadow {
    /// Advances the side that lags, or both, so that few outputs have to be kept for comparison. Returns true
    /// if there were records.
    pub(crate) fn step(&mut self, partition: u32) -> bool {
        if self.is_halted() {
            return false;
        }
        let Some(live) = &mut self.live else {
            let did = self.candidate.step(partition);
            self.compare(partition);
            return did;
        };
        let (theirs, ours) = (live.place(partition), self.candidate.place(partition));
        let mut did = ours <= theirs && self.candidate.step(partition);
        if theirs <= ours || !did {
            did |= live.step(partition);
        }
        self.compare(partition);
        did
    }

    /// Returns true if a side has halted, which ends the comparison.
    pub(crate) fn is_halted(&self) -> bool {
        let is_halted = |run: &Run| run.halted.is_some();
        is_halted(&self.candidate) || self.live.as_ref().is_some_and(is_halted)
    }

    /// Compares the outputs of records that both sides have processed.
    fn compare(&mut self, partition: u32) {
        let Some(live) = &mut self.live else {
            self.candidate.lines.remove(&partition);
            return;
        };
        let provenances = |run: &Run| -> Vec<_> {
            let of = run.lines.get(&partition).into_iter();
            of.flat_map(|lines| lines.keys().cloned()).collect()
        };
        let mut all = provenances(&self.candidate);
        all.extend(provenances(live));
        all.sort();
        all.dedup();
        for provenance in all {
            let (topic, offset) = &provenance;
            let seen = |run: &Run| run.has_seen(partition, topic, *offset);
            if !seen(live) || !seen(&self.candidate) {
                continue;
            }
            let take = |run: &mut Run| {
                run.lines
                    .get_mut(&partition)
                    .and_then(|lines| lines.remove(&provenance))
            };
            let (before, after) = (
                take(live).unwrap_or_default(),
                take(&mut self.candidate).unwrap_or_default(),
            );
            if before == after {
                continue;
            }
            self.differences += 1;
            if self.examples.len() < EXAMPLES_MAX {
                self.examples.push(Example {
                    topic: topic.clone(),
                    partition,
                    offset: *offset,
                    live: before.iter().map(told).collect(),
                    candidate: after.iter().map(told).collect(),
                });
            }
        }
    }

    pub(crate) fn begin(&mut self, partition: u32, origin: Origin) -> Result<(), ApplyError> {
        self.candidate.begin(partition, origin)?;
        self.live
            .as_mut()
            .map_or(Ok(()), |live| live.begin(partition, origin))
    }

    pub(crate) fn end(&mut self, partition: u32) {
        for run in [Some(&mut self.candidate), self.live.as_mut()]
            .into_iter()
            .flatten()
        {
            run.parts.remove(&partition);
            run.lines.remove(&partition);
        }
    }
}
