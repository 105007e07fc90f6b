use super::*;
use crate::bindings::weir::module::types as wit;
use crate::handover;
use crate::timers::host;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A reading: key, time, value.
type Reading = (u8, i64, f64);
/// A result: key, start, end, and the values in the window.
type Result = (u8, i64, i64, Vec<f64>);

impl Aggregate for Vec<f64> {
    fn merge(&mut self, later: Self) {
        self.extend(later);
    }
}

/// Fires the thread's timers at this watermark and passes them to `close`.
fn fire(watermark: i64, close: impl FnOnce(&Fired<'_>)) {
    let due = host::take_due(Clock::Event, watermark);
    let mut keys = crate::state::empty();
    for (_, key, _) in &due {
        keys.data.extend_from_slice(key);
        keys.ends.push(keys.data.len() as u32);
    }
    let fired = wit::Fired {
        clock: wit::Clock::Event,
        now: 0,
        watermark,
        at: due.iter().map(|(at, ..)| *at).collect(),
        keys,
        tags: due.iter().map(|(.., tag)| *tag).collect(),
    };
    close(&Fired::new(&fired));
    handover::flush();
}

fn begin() {
    handover::begin();
    timers::begin();
    crate::state::forget();
    host::forget();
}

/// Generates batches of readings out of order by up to `disorder`, with the watermark as far behind.
fn stream() -> impl Strategy<Value = (Vec<Vec<Reading>>, i64)> {
    let reading = (0..3u8, -200..2_000i64, -9..9i32).prop_map(|(k, t, v)| (k, t, f64::from(v)));
    let batch = proptest::collection::vec(reading, 1..8);
    (proptest::collection::vec(batch, 0..20), 0..500i64)
}

fn sort(mut results: Vec<Result>) -> Vec<Result> {
    results.iter_mut().for_each(|r| r.3.sort_by(f64::total_cmp));
    results.sort_by_key(|r| (r.2, r.0, r.1));
    results
}

proptest! {
    /// Each reading is in each of its windows that is open at its arrival, and in no other.
    #[test]
    fn windows_have_what_came_in_time((batches, lateness) in stream(), size in 1..400u64, hops in 1..5u64) {
        begin();
        let step = size.div_ceil(hops);
        let ms = Duration::from_millis;
        let mut windows = Windows::<Vec<f64>>::hopping("w", ms(size), ms(step)).unwrap();
        let (size, step) = (size as i64, step as i64);
        let (mut got, mut model) = (Vec::new(), BTreeMap::<(i64, u8), Vec<f64>>::new());
        let mut watermark = i64::MIN;
        for batch in batches {
            for (key, at, value) in &batch {
                let added = windows.add_to(&[*key], *at, watermark, |all| all.push(*value));
                let mut any = false;
                let mut start = (at - size).div_euclid(step) * step;
                while start <= *at {
                    if start + size > *at && start + size > watermark {
                        model.entry((start, *key)).or_default().push(*value);
                        any = true;
                    }
                    start += step;
                }
                prop_assert_eq!(added, any);
            }
            handover::flush();
            let latest = batch.iter().map(|(_, at, _)| *at).max().unwrap();
            watermark = watermark.max(latest - lateness);
            fire(watermark, |fired| windows.close(fired, |w, all| {
                prop_assert_result(w.end <= watermark);
                got.push((w.key[0], w.start, w.end, all));
            }));
        }
        fire(i64::MAX, |fired| windows.close(fired, |w, all| got.push((w.key[0], w.start, w.end, all))));
        let model: Vec<Result> = model.into_iter().map(|((start, key), all)| (key, start, start + size, all)).collect();
        prop_assert_eq!(sort(got), sort(model));
        prop_assert!(host::take_due(Clock::Event, i64::MAX).is_empty());
        prop_assert!(windows.open.scan(b"").is_empty());
    }

    /// A window holds the values of the key within its time, in any order of arrival and whatever was removed
    /// meanwhile, unless the record is late.
    #[test]
    fn sliding_windows_have_what_came_before_within_the_time((batches, lateness) in stream(), size in 1..400i64) {
        begin();
        let mut sliding = Sliding::<f64>::new("sl", Duration::from_millis(size as u64)).unwrap();
        let (mut all, mut watermark) = (Vec::<Reading>::new(), i64::MIN);
        for batch in batches {
            for (key, at, value) in &batch {
                all.push((*key, *at, *value));
                let got = sliding.add_to(&[*key], *at, watermark, *value, |values| values.copied().collect::<Vec<_>>());
                // For a late record, earlier values may be removed.
                if *at >= watermark {
                    let is_in = |r: &&Reading| r.0 == *key && r.1 <= *at && r.1 > at - size;
                    let kept = |r: &&Reading| r.1.saturating_add(size) > watermark;
                    let model: Vec<_> = all.iter().filter(is_in).filter(kept).map(|r| r.2).collect();
                    prop_assert_eq!(got, Ok(model));
                }
            }
            handover::flush();
            let latest = batch.iter().map(|(_, at, _)| *at).max().unwrap();
            watermark = watermark.max(latest - lateness);
            fire(watermark, |fired| sliding.forget(fired));
        }
        fire(i64::MAX, |fired| sliding.forget(fired));
        prop_assert_eq!(crate::state::host::count(), 0);
    }

    /// The last early result of a window is its final result.
    #[test]
    fn early_results_grow_into_the_final_one(readings in proptest::collection::vec((0..3u8, 0..500i64), 1..40), hops in 1..4u64) {
        begin();
        let ms = Duration::from_millis;
        let mut windows = Windows::<Vec<f64>>::hopping("w", ms(100), ms(100_u64.div_ceil(hops))).unwrap();
        let mut early = BTreeMap::new();
        let (mut keys, mut timestamps) = (crate::state::empty(), Vec::new());
        for (key, at) in &readings {
            keys.data.push(*key);
            keys.ends.push(keys.data.len() as u32);
            timestamps.push(*at);
        }
        let (keys, marks) = (Some(keys), None);
        let (values, headers, watermark) = (None, None, i64::MIN);
        let batch = wit::Batch { source: 0, now: 0, watermark, timestamps, marks, keys, values, headers };
        for record in crate::Batch::new(&batch).records() {
            let number = record.index() as f64;
            windows.add_early(&record, |all| all.push(number), |window, all| {
                assert_eq!((window.index as f64, all.last()), (number, Some(&number)));
                early.insert((window.key.to_vec(), window.start, window.end), all.clone());
            });
        }
        handover::flush();
        let mut last = BTreeMap::new();
        fire(i64::MAX, |fired| windows.close(fired, |w, all| drop(last.insert((w.key.to_vec(), w.start, w.end), all))));
        prop_assert_eq!(early, last);
    }

    /// Readings of a key less than a gap apart are in one session, in any order of arrival.
    #[test]
    fn sessions_have_what_is_near((batches, lateness) in stream(), gap in 1..300i64) {
        begin();
        let mut sessions = Sessions::<Vec<f64>>::new("s", Duration::from_millis(gap as u64)).unwrap();
        let mut got: Vec<Result> = Vec::new();
        // Open sessions, as times and values of their readings.
        let mut open: Vec<(u8, Vec<(i64, f64)>)> = Vec::new();
        let mut model: Vec<Result> = Vec::new();
        let span = |s: &[(i64, f64)]| (s.iter().map(|r| r.0).min().unwrap(), s.iter().map(|r| r.0).max().unwrap());
        let over = |open: &mut Vec<(u8, Vec<(i64, f64)>)>, model: &mut Vec<Result>, watermark: i64| {
            open.retain(|(key, all)| {
                let (first, last) = span(all);
                let is_open = last.saturating_add(gap) > watermark;
                if !is_open {
                    model.push((*key, first, last + gap, all.iter().map(|r| r.1).collect()));
                }
                is_open
            });
        };
        let mut watermark = i64::MIN;
        for batch in batches {
            for (key, at, value) in &batch {
                let added = sessions.add_to(&[*key], *at, watermark, |all| all.push(*value));
                let near = |(k, all): &(u8, Vec<(i64, f64)>)| {
                    let (first, last) = span(all);
                    k == key && *at > first - gap && *at < last + gap
                };
                let (mine, others): (Vec<_>, Vec<_>) = std::mem::take(&mut open).into_iter().partition(near);
                open = others;
                let takes = !mine.is_empty() || at + gap > watermark;
                prop_assert_eq!(added, takes);
                if takes {
                    let mut all: Vec<_> = mine.into_iter().flat_map(|(_, all)| all).collect();
                    all.push((*at, *value));
                    open.push((*key, all));
                }
            }
            handover::flush();
            let latest = batch.iter().map(|(_, at, _)| *at).max().unwrap();
            watermark = watermark.max(latest - lateness);
            fire(watermark, |fired| sessions.close(fired, |w, all| got.push((w.key[0], w.start, w.end, all))));
            over(&mut open, &mut model, watermark);
        }
        fire(i64::MAX, |fired| sessions.close(fired, |w, all| got.push((w.key[0], w.start, w.end, all))));
        over(&mut open, &mut model, i64::MAX);
        prop_assert_eq!(sort(got), sort(model));
    }

    /// Compares statistics, and merged statistics of halves, with sums over all numbers.
    #[test]
    fn stats_are_those_of_the_numbers(values in proptest::collection::vec(-1e6..1e6f64, 1..50), cut in 0..50usize) {
        let (mut all, mut head, mut tail) = (Stats::default(), Stats::default(), Stats::default());
        for (n, value) in values.iter().enumerate() {
            all.add(*value, n as i64);
            if n < cut { head.add(*value, n as i64) } else { tail.add(*value, n as i64) }
        }
        // The order of merging must not matter.
        tail.merge(head);
        let head = tail;
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
        for stats in [all, head] {
            prop_assert!((stats.mean() - mean).abs() < 1e-6 && (stats.deviation() - deviation).abs() < 1e-4);
            prop_assert!((stats.sum() - mean * n).abs() < 1e-4);
            let ends = (values[0], values[values.len() - 1]);
            prop_assert_eq!((stats.first(), stats.last()), ends);
            prop_assert_eq!(stats.min(), values.iter().copied().fold(f64::MAX, f64::min));
            prop_assert_eq!(stats.max(), values.iter().copied().fold(f64::MIN, f64::max));
        }
    }

    /// Quantiles are within 1 %.
    #[test]
    fn a_sketch_knows_its_quantiles(mut values in proptest::collection::vec(-1e5..1e5f64, 1..200), q in 0.0..=1.0f64, cut in 0..200usize) {
        let (mut sketch, mut tail) = (Sketch::default(), Sketch::default());
        for (n, value) in values.iter().enumerate() {
            if n < cut { sketch.add(*value) } else { tail.add(*value) }
        }
        sketch.merge(tail);
        values.sort_by(f64::total_cmp);
        let exact = values[(q * (values.len() - 1) as f64) as usize];
        let found = sketch.quantile(q).unwrap();
        prop_assert!((found - exact).abs() <= exact.abs() * 0.0101 + 1e-9, "{} for {}", found, exact);
    }
}

#[test]
fn sums_of_whole_numbers_are_whole_and_what_is_small_beside_the_mean_is_not_lost() {
    let stats = |values: &[f64]| {
        let mut stats = Stats::default();
        values.iter().for_each(|value| stats.add(*value, 0));
        stats
    };
    assert_eq!(stats(&[12.0, 23.0, 80.0]).sum(), 115.0);
    assert_eq!(stats(&[1e16, 1.0, -1e16]).sum(), 1.0);
    let mut parts = [0.1; 10].to_vec();
    assert_eq!(stats(&parts).sum(), 1.0);
    parts.truncate(3);
    assert_eq!((stats(&parts).mean(), stats(&parts).deviation()), (0.1, 0.0));
    let far = stats(&[1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0]);
    assert_eq!((far.mean(), far.deviation()), (1e9 + 10.0, 22.5f64.sqrt()));
    // The variance lies half-way between two doubles: the last bit of a rounded sum of squares would decide.
    assert_eq!(
        stats(&[-49.9, -8.4, -22.9]).deviation(),
        stats(&[-22.9, -8.4, -49.9]).deviation()
    );
    // By time, not by arrival.
    let mut late = Stats::default();
    for (value, at) in [(5.0, 20), (3.0, 10), (4.0, 30), (9.0, 30), (8.0, 10)] {
        late.add(value, at);
    }
    assert_eq!((late.first(), late.last()), (3.0, 9.0));
    let huge = stats(&[1e308, 1e308]);
    assert!(huge.sum().is_infinite() && huge.count() == 2);
}

proptest! {
    /// Tests eighths, which are exact, and tenths, which are not; merged in parts.
    #[test]
    fn stats_are_the_same_in_any_order(
        values in proptest::collection::vec((-1_000_000..1_000_000i64, 0..20i64), 1..60),
        mut places in proptest::collection::vec(any::<u64>(), 60),
        by in prop_oneof![Just(8.0), Just(10.0), Just(1_000.0)],
    ) {
        let stats = |values: &[(i64, i64)]| {
            let mut stats = Stats::default();
            values.iter().for_each(|(value, at)| stats.add(*value as f64 / by, *at));
            stats
        };
        let mut shuffled: Vec<_> = values.iter().copied().zip(places.drain(..)).collect();
        shuffled.sort_by_key(|(_, place)| *place);
        let shuffled: Vec<_> = shuffled.into_iter().map(|(value, _)| value).collect();
        prop_assert_eq!(stats(&values), stats(&shuffled));
        let (head, tail) = shuffled.split_at(shuffled.len() / 2);
        let mut merged = stats(tail);
        merged.merge(stats(head));
        prop_assert_eq!(stats(&values), merged);
    }
}

fn prop_assert_result(holds: bool) {
    assert!(holds, "a window was closed before its end");
}

#[test]
fn windows_of_records_are_full_after_so_many() {
    begin();
    let mut windows = CountWindows::<Stats>::new("c", 3);
    let mut add = |key: &[u8], v| windows.add(key, |s| s.add(v, 0)).map(|s| s.mean());
    let got = [
        add(b"a", 1.0),
        add(b"b", 5.0),
        add(b"a", 2.0),
        add(b"a", 6.0),
        add(b"a", 1.0),
    ];
    assert_eq!(got, [None, None, None, Some(3.0), None]);
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    let ms = Duration::from_millis;
    assert!(Windows::<u64>::tumbling("w", ms(0)).is_err());
    assert!(Windows::<u64>::hopping("w", ms(10), ms(11)).is_err());
    assert!(Windows::<u64>::hopping("w", ms(1_000), ms(9)).is_err());
    assert!(Sessions::<u64>::new("w", Duration::MAX).is_err());
}
