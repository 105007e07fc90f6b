//! What every store must do alike, and what the simulated disk must lose.

use super::*;

/// A log's directory, and where its rows are.
struct Home {
    dir: tempfile::TempDir,
    store: Store,
}

impl Home {
    fn of(store: Store) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, store }
    }

    fn open(&self) -> (Log, Recovered) {
        let environment = Environment {
            store: self.store.clone(),
            ..Environment::default()
        };
        open_in(self.dir.path(), &options(), environment).unwrap()
    }
}

/// What every kind of store must do alike.
macro_rules! on_every_store {
    ($($test:ident),* $(,)?) => {
        mod on_files {
            $(#[test] fn $test() { super::$test(&super::Home::of(super::Store::Files)); })*
        }
        mod on_a_simulated_disk {
            $(#[test] fn $test() { super::$test(&super::Home::of(super::Store::Simulated(Default::default()))); })*
        }
    };
}

on_every_store!(
    everything_is_read_back_at_every_fetch_size_and_after_reopening,
    a_truncated_tail_is_gone_with_its_rows_and_its_numbers_are_free,
    a_trim_leaves_a_marker_and_frees_the_rows,
    a_trim_within_a_batch_keeps_what_lies_behind_it,
    old_headers_are_purged_and_the_chain_still_holds,
    the_first_record_at_or_after_a_time_is_found,
    a_snapshot_installed_elsewhere_is_the_same_log,
);

fn wait<T: Send + 'static>(start: impl FnOnce(Box<dyn FnOnce(T) + Send>)) -> T {
    let (done, given) = mpsc::channel();
    start(Box::new(move |it| done.send(it).unwrap()));
    given.recv_timeout(DEADLINE).unwrap()
}

fn everything_is_read_back_at_every_fetch_size_and_after_reopening(home: &Home) {
    let (log, _) = home.open();
    let mut next = 0;
    for index in 1..=200u64 {
        // Sizes on both sides of KV separation, and of the memtable: rows end in several tables and blob
        // files.
        let (records, bytes) = (
            (index % 17 + 1) as u32,
            if index.is_multiple_of(3) { 20 } else { 4_000 },
        );
        flush(&log, entry(index, vec![batch(next, records, bytes)]));
        next += u64::from(records);
    }
    let want: Vec<u64> = (0..next).collect();
    for max_bytes in [1, 100, 5_000, 1 << 20] {
        assert_eq!(read_all(&log, max_bytes), (want.clone(), vec![]));
    }
    log.close();
    drop(log);
    let (log, recovered) = home.open();
    assert!(recovered.clean && recovered.damage.is_none(), "{recovered:?}");
    assert_eq!(read_all(&log, 9_000), (want, vec![]));
    let report = log.scrub(|_, _| {}).unwrap();
    assert_eq!((report.records, report.damaged.len()), (next, 0));
}

fn a_truncated_tail_is_gone_with_its_rows_and_its_numbers_are_free(home: &Home) {
    let (log, _) = home.open();
    flush(&log, entry(1, vec![batch(0, 3, 10)]));
    let (done, flushed) = mpsc::channel();
    log.append(entry(2, vec![batch(3, 3, 2_000)]), |_| {}).unwrap();
    log.append(entry(3, vec![batch(6, 3, 10)]), |_| {}).unwrap();
    log.truncate(GROUP, 2, move |r| done.send(r).unwrap()).unwrap();
    flushed.recv_timeout(DEADLINE).unwrap().unwrap();
    assert_eq!(read_all(&log, 1 << 20).0, [0, 1, 2]);
    flush(&log, entry(2, vec![batch(3, 1, 10)]));
    log.close();
    drop(log);
    let (log, recovered) = home.open();
    assert!(recovered.damage.is_none(), "{recovered:?}");
    assert_eq!(read_all(&log, 1 << 20), ((0..4).collect(), vec![]));
}

fn a_trim_leaves_a_marker_and_frees_the_rows(home: &Home) {
    let (log, _) = home.open();
    for index in 1..=10u64 {
        flush(&log, entry(index, vec![batch((index - 1) * 10, 10, 200)]));
    }
    let before = log.marks(P).unwrap().bytes();
    let trim = Op::Trim {
        partition: P,
        to: Offset::new(40),
        reason: GapReason::Evicted,
    };
    flush(
        &log,
        Entry {
            ops: vec![trim],
            ..entry(11, vec![])
        },
    );
    log.close();
    let marks = log.marks(P).unwrap();
    assert_eq!((marks.log_start().get(), marks.lost()), (40, 40));
    assert_eq!(marks.bytes(), before * 6 / 10);
    drop((log, marks));
    let (log, recovered) = home.open();
    assert!(recovered.damage.is_none(), "{recovered:?}");
    let evicted = Gap {
        start: Offset::ZERO,
        end: Offset::new(40),
        reason: GapReason::Evicted,
    };
    let chunk = read_chunk(&log, Offset::ZERO, 1 << 20).unwrap();
    assert_eq!(chunk.pieces[0], Piece::Gap(evicted));
    assert_eq!(read_all(&log, 1 << 20).0, (40..100).collect::<Vec<_>>());
    assert_eq!(log.marks(P).unwrap().lost(), 40);
}

fn a_trim_within_a_batch_keeps_what_lies_behind_it(home: &Home) {
    let (log, _) = home.open();
    for index in 1..=3u64 {
        flush(&log, entry(index, vec![batch((index - 1) * 10, 10, 200)]));
    }
    let (to, reason) = (Offset::new(15), GapReason::Expired);
    let trim = Op::Trim {
        partition: P,
        to,
        reason,
    };
    flush(
        &log,
        Entry {
            ops: vec![trim],
            ..entry(4, vec![])
        },
    );
    log.close();
    drop(log);
    let (log, _) = home.open();
    let (there, gaps) = read_all(&log, 1 << 20);
    assert_eq!((there.iter().filter(|o| **o >= 15).count(), gaps.len()), (15, 0));
}

fn old_headers_are_purged_and_the_chain_still_holds(home: &Home) {
    let (log, _) = home.open();
    let entries = 1_000;
    for index in 1..=entries {
        let entry = Entry {
            lazy: true,
            ..entry(index, vec![batch(index - 1, 1, 10)])
        };
        let header = Arc::new(entry.header());
        log.append(entry, |_| {}).unwrap();
        log.apply(header);
        if index.is_multiple_of(100) {
            log.purge(GROUP, index - 20, |r| r.unwrap()).unwrap();
        }
    }
    log.close();
    drop(log);
    let (log, recovered) = home.open();
    assert!(recovered.damage.is_none(), "{recovered:?}");
    let state = recovered.groups[&GROUP];
    assert_eq!(state.last.index, entries);
    // Never what is not yet applied on the disk, so it may be a round behind.
    assert!((800..=980).contains(&state.purged.index), "{state:?}");
    assert_eq!(read_all(&log, 1 << 20).0.len() as u64, entries);
}

fn the_first_record_at_or_after_a_time_is_found(home: &Home) {
    let (log, _) = home.open();
    for index in 1..=60u64 {
        flush(&log, entry(index, vec![batch((index - 1) * 10, 10, 9_000)]));
    }
    for (timestamp, want) in [(0, 0), (1_000, 0), (1_001, 10), (1_255, 260), (1_590, 590)] {
        let (done, chunk) = mpsc::channel();
        log.seek(P, timestamp, move |r| done.send(r).unwrap()).unwrap();
        let chunk = chunk.recv_timeout(DEADLINE).unwrap().unwrap();
        match &chunk.pieces[0] {
            Piece::Batch(b) => assert_eq!(b.base_offset().get(), want, "at {timestamp}"),
            other => panic!("{other:?}"),
        }
    }
}

fn a_snapshot_installed_elsewhere_is_the_same_log(home: &Home) {
    let (log, _) = home.open();
    for index in 1..=30u64 {
        let bytes = if index.is_multiple_of(2) { 20 } else { 4_000 };
        flush(&log, entry(index, vec![batch((index - 1) * 10, 10, bytes)]));
    }
    trim(&log, 31, P, 50);
    let taken = wait(|done| log.snapshot(GROUP, done).unwrap()).unwrap();
    // What comes later is not in it.
    flush(&log, entry(32, vec![batch(300, 10, 20)]));
    let other = Home::of(match home.store {
        Store::Files => Store::Files,
        Store::Simulated(_) => Store::Simulated(simulated::Disk::default()),
    });
    let (copy, _) = other.open();
    flush(&copy, entry(1, vec![batch(0, 3, 20)]));
    for (partition, position) in taken.partitions().unwrap() {
        let (mut next, end) = (position.log_start, position.committed_end);
        while next < end {
            let (batches, then) = taken.batches(partition, next, end, 10_000).unwrap();
            wait(|done| copy.receive(partition, batches, done).unwrap()).unwrap();
            next = then;
        }
        assert_eq!(copy.received().unwrap()[&partition], end);
    }
    let (mut state, mut after) = (Vec::new(), None);
    loop {
        let rows = taken.state(after.as_ref(), 100).unwrap();
        let Some((last, _)) = rows.last() else { break };
        after = Some(last.clone());
        state.extend(rows);
    }
    wait(|done| copy.install(GROUP, taken.applied(), state, done).unwrap()).unwrap();
    let want: Vec<u64> = (50..300).collect();
    assert_eq!(read_all(&copy, 9_000), (want.clone(), vec![]));
    copy.close();
    drop(copy);
    let (copy, recovered) = other.open();
    assert!(recovered.damage.is_none(), "{recovered:?}");
    assert_eq!(recovered.groups[&GROUP].applied.index, 31);
    assert_eq!(read_all(&copy, 9_000), (want, vec![]));
}

/// The simulated disk is no use if it does not lose what a real one may.
#[test]
fn a_simulated_power_cut_takes_what_was_not_synced_and_nothing_else() {
    for keep in [0, 500, 1_000] {
        let disk = simulated::Disk::default();
        let home = Home::of(Store::Simulated(disk.clone()));
        let (log, _) = home.open();
        flush(&log, entry(1, vec![batch(0, 10, 20)]));
        disk.lie();
        for index in 2..=5u64 {
            flush(&log, entry(index, vec![batch((index - 1) * 10, 10, 20)]));
        }
        disk.cut_power(keep);
        let after = log.append(entry(6, vec![batch(50, 10, 20)]), |r| assert!(r.is_err()));
        drop((after, log));
        let (log, recovered) = home.open();
        let there = read_all(&log, 1 << 20).0;
        let want = match keep {
            0 => 10,
            500 => 30,
            _ => 50,
        };
        assert_eq!(there, (0..want).collect::<Vec<u64>>(), "keep {keep}");
        assert!(recovered.damage.is_none(), "{recovered:?}");
    }
}

#[test]
fn power_that_goes_during_a_write_leaves_its_outcome_open() {
    for keep in [0, 1_000] {
        let disk = simulated::Disk::default();
        let home = Home::of(Store::Simulated(disk.clone()));
        let (log, _) = home.open();
        flush(&log, entry(1, vec![batch(0, 10, 20)]));
        disk.cut_power_in(0);
        let outcome = wait(|done| log.append(entry(2, vec![batch(10, 10, 20)]), done).unwrap());
        assert!(matches!(outcome, Err(AppendError::Poisoned(_))), "{outcome:?}");
        assert!(disk.is_dark() && log.poisoned().is_some());
        disk.cut_power(keep);
        drop(log);
        let (log, _) = home.open();
        assert_eq!(read_all(&log, 1 << 20).0.len(), if keep == 0 { 10 } else { 20 });
    }
}

/// A group of whose log nothing is left but what it came to is not a new one, whatever the low-water mark
/// knows of it.
#[test]
fn a_log_that_is_purged_to_its_end_still_knows_where_it_is() {
    let disk = simulated::Disk::default();
    let home = Home::of(Store::Simulated(disk.clone()));
    let (log, _) = home.open();
    for index in 1..=5u64 {
        flush(&log, entry(index, vec![batch((index - 1) * 10, 10, 20)]));
    }
    // Effects are written with the next round.
    wait(|done| {
        log.put_local(StateKey::new(StateKind::Vote, b"x"), vec![1], done)
            .unwrap()
    })
    .unwrap();
    wait(|done| log.purge(GROUP, 5, done).unwrap()).unwrap();
    disk.kill();
    drop(log);
    let (_log, recovered) = home.open();
    assert!(recovered.damage.is_none(), "{recovered:?}");
    let at = EntryId {
        term: Term(1),
        index: 5,
    };
    let want = GroupState {
        purged: at,
        applied: at,
        last: at,
    };
    assert_eq!(recovered.groups.get(&GROUP), Some(&want));
}

#[test]
fn only_what_cannot_be_read_and_is_committed_is_mended() {
    let disk = crate::store::simulated::Disk::default();
    let home = Home::of(Store::Simulated(disk.clone()));
    let (log, _) = home.open();
    let copies: Vec<Batch> = (0..4).map(|n| batch(n * 3, 3, 40)).collect();
    for (copy, index) in copies.iter().zip(1..) {
        flush(&log, entry(index, vec![copy.clone()]));
    }
    let mend = |batches: Vec<Batch>| wait(|done| log.mend(P, batches, done).unwrap()).unwrap();
    assert_eq!(mend(copies.clone()), 0);
    // In the middle of the second batch of four.
    assert!(disk.rot(true, 1, 30 * 8));
    let lost = Gap {
        start: Offset::new(3),
        end: Offset::new(6),
        reason: GapReason::Lost,
    };
    let others = vec![0, 1, 2, 6, 7, 8, 9, 10, 11];
    assert_eq!(read_all(&log, 1 << 20), (others, vec![lost]));
    // What is not committed here may be another's by now.
    let beyond = batch(12, 3, 40);
    assert_eq!(mend(vec![copies[0].clone(), copies[1].clone(), beyond]), 1);
    assert_eq!(read_all(&log, 1 << 20), ((0..12).collect(), vec![]));
    log.close();
    drop(log);
    let (log, recovered) = home.open();
    assert!(recovered.damage.is_none(), "{recovered:?}");
    assert_eq!(read_all(&log, 1 << 20), ((0..12).collect(), vec![]));
}

/// A batch's checksum does not cover its first eight bytes, which say where it lies.
#[test]
fn a_batch_that_says_that_it_lies_elsewhere_is_damaged() {
    let disk = crate::store::simulated::Disk::default();
    let home = Home::of(Store::Simulated(disk.clone()));
    let (log, _) = home.open();
    for n in 0..3 {
        flush(&log, entry(n + 1, vec![batch(n * 3, 3, 40)]));
    }
    // The last bit of the last byte but seven of the offset of the third: 6 becomes 4.
    assert!(disk.rot(true, 2, 7 * 8 + 1));
    let (done, entries) = mpsc::channel();
    let reply = move |read| drop(done.send(read));
    log.entries(GROUP, 1, 4, usize::MAX, Payloads::Read, reply)
        .unwrap();
    let read = entries.recv_timeout(DEADLINE).unwrap();
    assert!(
        matches!(&read, Err(ReadError::Damaged { near: 6, .. })),
        "{read:?}"
    );
    let snapshot = wait(|done| log.snapshot(GROUP, done).unwrap()).unwrap();
    let read = snapshot.batches(P, Offset::ZERO, Offset::new(9), usize::MAX);
    assert!(
        matches!(&read, Err(ReadError::Damaged { near: 6, .. })),
        "{read:?}"
    );
    drop(snapshot);
    log.close();
    drop(log);
    let (log, recovered) = home.open();
    assert!(recovered.damage.is_none(), "the row is there: {recovered:?}");
    assert_eq!(log.marks(P).unwrap().committed_end(), Offset::new(9));
    let lost = Gap {
        start: Offset::new(6),
        end: Offset::new(9),
        reason: GapReason::Lost,
    };
    assert_eq!(read_all(&log, 1 << 20), ((0..6).collect(), vec![lost]));
}

#[test]
fn what_came_without_its_payload_is_not_missed() {
    let disk = crate::store::simulated::Disk::default();
    let home = Home::of(Store::Simulated(disk.clone()));
    let (log, _) = home.open();
    let without = |index, batch| {
        let mut entry = entry(index, vec![batch]);
        let OpHeader::Append(append) = entry.header().ops[0].clone() else {
            unreachable!()
        };
        entry.ops = vec![Op::Gone(append)];
        entry
    };
    // What trimmed it comes later.
    flush(&log, without(1, batch(0, 3, 40)));
    log.append(without(2, batch(3, 3, 40)), |_| {}).unwrap();
    let (done, flushed) = mpsc::channel();
    log.truncate(GROUP, 2, move |r| done.send(r).unwrap()).unwrap();
    flushed.recv_timeout(DEADLINE).unwrap().unwrap();
    // What comes in the place of the second is there.
    flush(&log, entry(2, vec![batch(3, 3, 40)]));
    disk.kill();
    drop(log);
    let (log, recovered) = home.open();
    assert!(recovered.damage.is_none(), "{recovered:?}");
    let expired = Gap {
        start: Offset::ZERO,
        end: Offset::new(3),
        reason: GapReason::Expired,
    };
    assert_eq!(read_all(&log, 1 << 20), (vec![3, 4, 5], vec![expired]));
}
