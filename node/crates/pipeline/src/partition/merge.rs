//! In which order records of several sources are looked at.
//!
//! By their times, as Kafka Streams does, and records of one source never overtake each other. What comes next depends on what
//! is stored and on nothing else: a source of which more is stored than is at hand is waited for.

use std::ops::Range;
use weir_types::RecordRef;

/// Records of one source that are at hand.
pub(crate) struct List<'a> {
    pub(crate) records: Vec<RecordRef<'a>>,
    /// Places in `records` behind the last of each stored batch, ascending.
    pub(crate) ends: Vec<usize>,
    /// The first that is not looked at yet.
    pub(crate) at: usize,
    /// Nothing more is stored than what is at hand.
    pub(crate) is_all: bool,
}

impl List<'_> {
    fn head(&self) -> Option<i64> {
        self.records.get(self.at).map(|r| r.timestamp)
    }
}

/// The next records that are looked at together, all of one stored batch: of which list, and which. None when there are none, or
/// when more has to be read first.
pub(crate) fn next_run(lists: &[List<'_>]) -> Option<(usize, Range<usize>)> {
    if lists.iter().any(|list| list.head().is_none() && !list.is_all) {
        return None;
    }
    let heads = || {
        let heads = lists.iter().enumerate();
        heads.filter_map(|(n, list)| list.head().map(|time| (time, n)))
    };
    let (_, source) = heads().min()?;
    // The first of the other sources: it goes before whatever is later.
    let other = heads().filter(|(_, n)| *n != source).min();
    let list = lists.get(source)?;
    let batch_end = list.ends.iter().find(|end| **end > list.at);
    let batch_end = batch_end.copied().unwrap_or(list.records.len());
    let of_batch = list.records.get(list.at..batch_end)?;
    let overtaken = |time: i64| other.is_some_and(|other| (time, source) > other);
    let len = of_batch.iter().position(|r| overtaken(r.timestamp));
    Some((source, list.at..list.at + len.unwrap_or(of_batch.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use weir_types::{Headers, Offset};

    /// Batches of times.
    type Batches = Vec<Vec<i64>>;

    fn list(batches: &[Vec<i64>], is_all: bool) -> List<'static> {
        let mut ends = Vec::new();
        let mut records = Vec::new();
        for batch in batches {
            records.extend(batch.iter().map(|timestamp| RecordRef {
                offset: Offset::ZERO,
                timestamp: *timestamp,
                key: None,
                value: None,
                headers: Headers::NONE,
            }));
            ends.push(records.len());
        }
        List {
            records,
            ends,
            at: 0,
            is_all,
        }
    }

    /// Takes runs until there are no more: source and time of each record, with a mark where a run begins.
    fn take(lists: &mut [List<'_>]) -> Vec<(usize, i64)> {
        let mut taken = Vec::new();
        while let Some((source, run)) = next_run(lists) {
            assert!(!run.is_empty());
            let list = &mut lists[source];
            assert_eq!(run.start, list.at);
            let crosses = list.ends.iter().any(|end| run.start < *end && *end < run.end);
            assert!(!crosses, "{run:?} crosses a batch");
            taken.extend(list.records[run.clone()].iter().map(|r| (source, r.timestamp)));
            list.at = run.end;
        }
        taken
    }

    /// The same by a rule that looks at one record at a time.
    fn one_by_one(sources: &[Batches]) -> Vec<(usize, i64)> {
        let mut rest: Vec<Vec<i64>> = sources.iter().map(|batches| batches.concat()).collect();
        let mut taken = Vec::new();
        loop {
            let heads = rest
                .iter()
                .enumerate()
                .filter_map(|(n, r)| Some((*r.first()?, n)));
            let Some((time, n)) = heads.min() else {
                return taken;
            };
            rest[n].remove(0);
            taken.push((n, time));
        }
    }

    proptest! {
        #[test]
        fn runs_are_what_one_record_at_a_time_would_be(
            sources in prop::collection::vec(prop::collection::vec(prop::collection::vec(0..20i64, 0..5), 0..5), 1..4),
        ) {
            let mut lists: Vec<_> = sources.iter().map(|batches| list(batches, true)).collect();
            prop_assert_eq!(take(&mut lists), one_by_one(&sources));
        }

        /// However much of it is at hand at a time.
        #[test]
        fn the_order_does_not_depend_on_what_is_read_at_once(
            sources in prop::collection::vec(prop::collection::vec(prop::collection::vec(0..20i64, 1..4), 0..6), 1..4),
            sizes in prop::collection::vec(1..4usize, 40),
        ) {
            let mut read = vec![0; sources.len()];
            let mut held: Vec<Batches> = vec![Vec::new(); sources.len()];
            let (mut taken, mut sizes) = (Vec::new(), sizes.into_iter().cycle());
            loop {
                for (n, batches) in sources.iter().enumerate() {
                    if held[n].iter().all(Vec::is_empty) {
                        let to = (read[n] + sizes.next().unwrap()).min(batches.len());
                        held[n] = batches[read[n]..to].to_vec();
                        read[n] = to;
                    }
                }
                let all = |n: usize| read[n] == sources[n].len();
                let mut lists: Vec<_> = held.iter().enumerate().map(|(n, h)| list(h, all(n))).collect();
                let now = take(&mut lists);
                if now.is_empty() {
                    break;
                }
                taken.extend(now);
                for (held, list) in held.iter_mut().zip(&lists) {
                    let mut used = list.at;
                    for batch in held.iter_mut() {
                        let of_batch = used.min(batch.len());
                        batch.drain(..of_batch);
                        used -= of_batch;
                    }
                }
            }
            prop_assert_eq!(taken, one_by_one(&sources));
        }
    }
}
