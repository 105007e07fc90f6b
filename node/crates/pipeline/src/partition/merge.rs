//! Order in which records of several sources are processed.
//!
//! By their times, as in Kafka Streams; records of a source never overtake each other. The order depends on
//! the stored records only. A source with stored but unread records is read first.

use std::ops::Range;
use weir_types::RecordRef;

/// Records of a source that are read but not processed.
pub(crate) struct List<'a> {
    pub(crate) records: Vec<RecordRef<'a>>,
    /// Indexes in `records` after the last record of each stored batch, ascending.
    pub(crate) ends: Vec<usize>,
    /// Index of the first unprocessed record.
    pub(crate) at: usize,
    /// The log has no further records.
    pub(crate) is_all: bool,
}

impl List<'_> {
    fn head(&self) -> Option<i64> {
        self.records.get(self.at).map(|r| r.timestamp)
    }
}

/// Returns the next run of records to process together: the index of its list, and a range within a single
/// stored batch. Returns `None` at the end, or when more has to be read first.
pub(crate) fn next_run(lists: &[List<'_>]) -> Option<(usize, Range<usize>)> {
    if lists.iter().any(|list| list.head().is_none() && !list.is_all) {
        return None;
    }
    let heads = || {
        let heads = lists.iter().enumerate();
        heads.filter_map(|(n, list)| list.head().map(|time| (time, n)))
    };
    let (_, source) = heads().min()?;
    // The head of the other sources limits the run.
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

    /// Takes runs until none is left. Returns source and time of each record.
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

    /// Takes records singly, by the reference rule.
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

        /// Independent of the number of records that are read at a time.
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
