//! The log against kills, cuts, damage and a full disk, on real files.

mod stores;

use super::*;
use bytes::Bytes;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use weir_types::{Batch, BatchBuilder, Codec, Gap, GapReason, GroupId, Offset, PartitionId, Record, Term};

const GROUP: GroupId = GroupId(0);
const P: PartitionId = PartitionId(7);
const DEADLINE: Duration = Duration::from_secs(30);

fn options() -> Options {
    Options {
        disk_reserve_bytes: Some(0),
        memtable_bytes: 1 << 20,
        // Both ways of keeping a payload, at the sizes of these tests.
        value_log_from_bytes: 20_000,
        value_file_bytes: 1 << 20,
        ..Options::default()
    }
}

fn batch(base: u64, records: u32, bytes: usize) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    for i in 0..records {
        let mut value = format!("{}:", base + u64::from(i)).into_bytes();
        value.resize(bytes.max(value.len()), b'.');
        let value = Some(Bytes::from(value));
        builder.push_record(&Record {
            value,
            timestamp: 1_000 + base as i64,
            ..Record::default()
        });
    }
    builder.build(Offset::new(base), None).unwrap()
}

fn entry(index: u64, batches: Vec<Batch>) -> Entry {
    let ops = batches
        .into_iter()
        .map(|batch| Op::Append { partition: P, batch })
        .collect();
    Entry {
        group: GROUP,
        index,
        term: Term(1),
        lazy: false,
        ops,
    }
}

fn flush(log: &Log, entry: Entry) {
    let (done, flushed) = mpsc::channel();
    let header = Arc::new(entry.header());
    log.append(entry, move |r| done.send(r).unwrap()).unwrap();
    flushed.recv_timeout(DEADLINE).unwrap().unwrap();
    log.apply(header);
}

fn open(dir: &Path, options: &Options) -> Result<(Log, Recovered), OpenError> {
    open_in(dir, options, Environment::default())
}

/// Opens a log and makes the effects of all its entries, as a group does whose only member it is.
fn open_in(dir: &Path, options: &Options, environment: Environment) -> Result<(Log, Recovered), OpenError> {
    let (log, recovered) = Log::open_in(dir, options, environment)?;
    let state = recovered.groups.get(&GROUP).copied().unwrap_or_default();
    let (done, entries) = mpsc::channel();
    let from = state.applied.index + 1;
    log.entries(
        GROUP,
        from,
        u64::MAX,
        usize::MAX,
        crate::read::entries::Payloads::Read,
        move |r| {
            done.send(r).unwrap();
        },
    )
    .unwrap();
    for entry in entries.recv_timeout(DEADLINE).unwrap().unwrap() {
        log.apply(Arc::new(entry.header()));
    }
    Ok((log, recovered))
}

fn read_chunk(log: &Log, from: Offset, max_bytes: usize) -> Result<Chunk, ReadError> {
    let (done, chunk) = mpsc::channel();
    let end = log.marks(P).map_or(Offset::ZERO, |m| m.committed_end());
    log.read(P, from, end, max_bytes, move |r| done.send(r).unwrap())?;
    chunk.recv_timeout(DEADLINE).unwrap()
}

/// Every offset of the partition: what is there, and what is said to be missing.
fn read_all(log: &Log, max_bytes: usize) -> (Vec<u64>, Vec<Gap>) {
    let Some(marks) = log.marks(P) else {
        return (Vec::new(), Vec::new());
    };
    let (mut there, mut gaps) = (Vec::new(), Vec::new());
    let mut next = marks.log_start();
    while next < marks.committed_end() {
        let chunk = match read_chunk(log, next, max_bytes) {
            Ok(chunk) => chunk,
            Err(_) => {
                gaps.push(Gap {
                    start: next,
                    end: marks.committed_end(),
                    reason: GapReason::Lost,
                });
                break;
            }
        };
        for piece in chunk.pieces {
            match piece {
                Piece::Gap(gap) => gaps.push(gap),
                Piece::Batch(batch) => {
                    for record in batch.body().unwrap().records() {
                        let record = record.unwrap();
                        let value = String::from_utf8_lossy(record.value.unwrap()).into_owned();
                        assert_eq!(value.split(':').next().unwrap(), record.offset.to_string());
                        there.push(record.offset.get());
                    }
                }
            }
        }
        assert!(chunk.next > next, "a read must get on");
        next = chunk.next;
    }
    (there, gaps)
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_log_that_was_killed_before_its_first_write_is_not_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, _) = open(&dir.path().join("a"), &options()).unwrap();
    let copy = dir.path().join("copy");
    copy_dir(&dir.path().join("a"), &copy);
    let (_copied, recovered) = open(&copy, &options()).unwrap();
    assert!(recovered.damage.is_none(), "{recovered:?}");
}

#[test]
fn what_was_flushed_survives_a_copy_taken_while_running() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(&dir.path().join("a"), &options()).unwrap();
    for index in 1..=20u64 {
        flush(&log, entry(index, vec![batch((index - 1) * 5, 5, 700)]));
        if index.is_multiple_of(7) {
            let copy = dir.path().join(format!("copy{index}"));
            copy_dir(&dir.path().join("a"), &copy);
            let (copied, recovered) = open(&copy, &options()).unwrap();
            assert!(!recovered.clean && recovered.damage.is_none(), "{recovered:?}");
            assert_eq!(read_all(&copied, 3_000).0, (0..index * 5).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_nearly_full_disk_refuses_and_keeps_reading() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), &options()).unwrap();
    flush(&log, entry(1, vec![batch(0, 3, 10)]));
    log.close();
    drop(log);
    let options = Options {
        disk_reserve_bytes: Some(u64::MAX / 2),
        ..options()
    };
    let (log, _) = open(dir.path(), &options).unwrap();
    let refused = log.room_for(entry(2, vec![batch(3, 3, 10)]).payload_bytes() as u64, false);
    assert!(
        matches!(refused, Err(AppendError::DiskFull { .. })),
        "{refused:?}"
    );
    assert_eq!(read_all(&log, 1 << 20).0, [0, 1, 2]);
}

#[test]
fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, _) = open(dir.path(), &options()).unwrap();
    assert!(matches!(open(dir.path(), &options()), Err(OpenError::Locked(_))));
}

/// A file that goes while it is looked at is gone.
fn value_files(dir: &Path) -> Vec<(String, u64)> {
    let mut files = Vec::new();
    for file in std::fs::read_dir(dir.join("values")).unwrap() {
        let file = file.unwrap();
        match file.metadata() {
            Ok(metadata) => files.push((file.file_name().into_string().unwrap(), metadata.len())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => panic!("{e}"),
        }
    }
    files.sort();
    files
}

fn trim(log: &Log, index: u64, partition: PartitionId, to: u64) {
    let op = Op::Trim {
        partition,
        to: Offset::new(to),
        reason: GapReason::Expired,
    };
    flush(
        log,
        Entry {
            ops: vec![op],
            ..entry(index, vec![])
        },
    );
}

/// Effects reach the disk behind the entries that they belong to.
fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + DEADLINE;
    while !is() {
        assert!(std::time::Instant::now() < until, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn payloads_of_a_large_round_are_written_once_and_their_file_goes_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), &options()).unwrap();
    let mut bytes = 0;
    for index in 1..=2u64 {
        let batch = batch((index - 1) * 10, 10, 40_000);
        bytes += batch.bytes().len() as u64;
        flush(&log, entry(index, vec![batch]));
    }
    // A file is full from 1 MiB on.
    let files = value_files(dir.path());
    assert_eq!((files.len(), files[0].1), (1, bytes + 2 * 20));
    assert!(log.usage().disk_bytes >= bytes);
    flush(&log, entry(3, vec![batch(20, 10, 80_000)]));
    assert_eq!(value_files(dir.path()).len(), 1);
    flush(&log, entry(4, vec![batch(30, 10, 40_000)]));
    assert_eq!(value_files(dir.path()).len(), 2);
    trim(&log, 5, P, 30);
    wait_for("the first file goes", || value_files(dir.path()).len() == 1);
    assert_eq!(read_all(&log, 1 << 20).0, (30..40).collect::<Vec<_>>());
    log.close();
    drop(log);
    // What no row names is of a round that never was: it goes.
    std::fs::write(dir.path().join("values/0000000007.val"), b"half a frame").unwrap();
    let (log, recovered) = open(dir.path(), &options()).unwrap();
    assert!(recovered.damage.is_none(), "{recovered:?}");
    assert_eq!(value_files(dir.path()).len(), 1);
    assert_eq!(read_all(&log, 1 << 20).0, (30..40).collect::<Vec<_>>());
    flush(&log, entry(6, vec![batch(40, 10, 4_000)]));
    assert_eq!(value_files(dir.path())[1].0, "0000000008.val");
}

#[test]
fn a_file_of_which_most_is_gone_is_emptied_while_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), &options()).unwrap();
    let other = PartitionId(8);
    // Two partitions in the same files; one of them expires.
    for round in 0..40u64 {
        let mut both = entry(round + 1, vec![batch(round * 10, 10, 3_000)]);
        both.ops.push(Op::Append {
            partition: other,
            batch: batch(round * 10, 10, 8_000),
        });
        flush(&log, both);
    }
    let before = value_files(dir.path());
    assert!(before.len() > 3, "{before:?}");
    trim(&log, 41, other, 400);
    // Nothing but time passes: the sweep is the writer's own. Whoever reads meanwhile misses nothing.
    let last = &before[before.len() - 1].0;
    wait_for("all but the last file are emptied", || {
        assert_eq!(read_all(&log, 20_000), ((0..400).collect(), vec![]));
        value_files(dir.path()).iter().all(|(name, _)| name >= last)
    });
    log.close();
    drop(log);
    let (log, recovered) = open(dir.path(), &options()).unwrap();
    assert!(recovered.damage.is_none(), "{recovered:?}");
    assert_eq!(read_all(&log, 1 << 20), ((0..400).collect(), vec![]));
}

#[test]
fn a_drained_file_that_was_being_written_goes_after_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), &options()).unwrap();
    flush(&log, entry(1, vec![batch(0, 10, 9_000)]));
    trim(&log, 2, P, 10);
    log.close();
    assert_eq!(value_files(dir.path()).len(), 1);
    drop(log);
    let (log, _) = open(dir.path(), &options()).unwrap();
    flush(&log, entry(3, vec![batch(10, 1, 10)]));
    wait_for("the drained file goes", || value_files(dir.path()).is_empty());
    assert_eq!(read_all(&log, 1 << 20).0, [10]);
}

#[test]
fn without_its_database_a_log_does_not_begin_with_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), &options()).unwrap();
    flush(&log, entry(1, vec![batch(0, 10, 9_000)]));
    log.close();
    drop(log);
    // Removed, or on a file system that is not mounted.
    std::fs::rename(dir.path().join("db"), dir.path().join("elsewhere")).unwrap();
    let Err(OpenError::Damaged { damage, .. }) = open(dir.path(), &options()) else {
        panic!("it opened")
    };
    assert_eq!(damage.lost.len(), 1);
    std::fs::rename(dir.path().join("elsewhere"), dir.path().join("db")).unwrap();
    let (log, recovered) = open(dir.path(), &options()).unwrap();
    assert!(recovered.damage.is_none(), "{recovered:?}");
    log.close();
    drop(log);
    // And when it is gone for good, what lies beside it comes back.
    std::fs::remove_dir_all(dir.path().join("db")).unwrap();
    let rebuilt = rebuild(dir.path()).unwrap();
    assert_eq!(rebuilt.partitions[&P].records, 10);
    let (log, _) = open(dir.path(), &options()).unwrap();
    assert_eq!(read_all(&log, 1 << 20).0, (0..10).collect::<Vec<_>>());
}

/// Small records move no watermark by their bytes, and a node that was killed has closed nothing.
#[test]
fn an_older_database_beside_the_other_files_of_a_killed_node_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), &options()).unwrap();
    flush(&log, entry(1, vec![batch(0, 1, 10)]));
    let older = tempfile::tempdir().unwrap();
    copy_dir(&dir.path().join("db"), older.path());
    for n in 1..100 {
        flush(&log, entry(n + 1, vec![batch(n, 1, 10)]));
    }
    let killed = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), killed.path());
    drop(log);
    std::fs::remove_dir_all(killed.path().join("db")).unwrap();
    copy_dir(older.path(), &killed.path().join("db"));
    let damage = match open(killed.path(), &options()) {
        Ok((_, recovered)) => recovered.damage,
        Err(OpenError::Damaged { damage, .. }) => damage,
        Err(e) => panic!("{e}"),
    };
    let lost: u64 = damage.lost.iter().map(|(_, gap)| gap.end.since(gap.start)).sum();
    assert!((60..=100).contains(&lost), "{damage:?}");
}

#[test]
fn after_damage_space_still_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), &options()).unwrap();
    flush(&log, entry(1, vec![batch(0, 10, 9_000)]));
    log.close();
    drop(log);
    for slot in ["watermark.a", "watermark.b"] {
        std::fs::remove_file(dir.path().join(slot)).unwrap();
    }
    // What nobody points to now may be all that is left of something, and is kept.
    std::fs::write(dir.path().join("values/0000000007.val"), b"half a frame").unwrap();
    let (log, recovered) = open(dir.path(), &options()).unwrap();
    assert!(!recovered.damage.is_none());
    let kept = || {
        let files = std::fs::read_dir(dir.path().join("quarantine")).unwrap();
        files.map(|f| f.unwrap().file_name()).collect::<Vec<_>>()
    };
    assert_eq!(kept(), ["0000000007.val.0"]);
    // What expires from then on is gone for good.
    trim(&log, 2, P, 10);
    wait_for("the file goes", || value_files(dir.path()).is_empty());
    assert_eq!(kept().len(), 1);
}

#[test]
fn lazy_entries_are_synced_in_time_however_busy_the_log_is() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), &options()).unwrap();
    let before = log.usage().syncs;
    let mut index = 0;
    wait_for("a sync under lazy load alone", || {
        index += 1;
        let lazy = Entry {
            lazy: true,
            ..entry(index, vec![batch(index - 1, 1, 10)])
        };
        flush(&log, lazy);
        log.usage().syncs > before
    });
}

#[test]
fn a_missing_file_of_the_value_log_is_reported_by_range() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), &options()).unwrap();
    flush(&log, entry(1, vec![batch(0, 10, 100)]));
    flush(&log, entry(2, vec![batch(10, 10, 9_000)]));
    flush(&log, entry(3, vec![batch(20, 10, 100)]));
    log.close();
    drop(log);
    let (file, _) = value_files(dir.path()).remove(0);
    std::fs::remove_file(dir.path().join("values").join(file)).unwrap();
    let (log, _) = open(dir.path(), &options()).unwrap();
    let (there, gaps) = read_all(&log, 1 << 20);
    assert_eq!(there, (0..10).chain(20..30).collect::<Vec<_>>());
    assert_eq!((gaps[0].start.get(), gaps[0].end.get()), (10, 20));
    assert_eq!(log.scrub(|_, _| {}).unwrap().damaged.len(), 1);
}

/// Damages one place of a closed directory after the other. Whatever was hit, every record is either read
/// back, or lies in a range that is reported, or the log says that it does not open and names everything.
#[test]
fn no_damaged_byte_or_sector_loses_a_record_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let records = 120u64;
    let batches: Vec<_> = (1..=24u64)
        .map(|index| {
            let sizes = if index <= 12 {
                [100, 3_000, 30_000]
            } else {
                [40, 400, 6_000]
            };
            batch((index - 1) * 5, 5, sizes[index as usize % 3])
        })
        .collect();
    let stored: Vec<Vec<u8>> = batches.iter().map(|b| b.bytes().to_vec()).collect();
    {
        // Two sessions: the first leaves tables and blob files behind, the second a journal.
        let (log, _) = open(&whole, &options()).unwrap();
        for (index, batch) in (1u64..).zip(batches) {
            let mut entry = entry(index, vec![batch]);
            if index == 1 {
                entry.ops.push(Op::Put {
                    key: topic_key(),
                    value: Bytes::from_static(b"a topic"),
                });
            }
            flush(&log, entry);
            if index == 12 {
                log.flush_tables();
            }
        }
        log.close();
    }
    trim_journals(&whole.join("db"));
    let mut files = Vec::new();
    collect_files(&whole, Path::new(""), &mut files);
    let rounds: usize = std::env::var("WEIR_DAMAGE_ROUNDS")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(2);
    let (mut repaired, mut reported, mut refused, mut back, mut of) = (0, 0, 0, 0, 0);
    for (n, (file, size)) in files.iter().enumerate() {
        for round in 0..rounds {
            // Spread over the file, and different for each: no randomness, so that a failure can be run
            // again.
            let at = (*size as u128 * (round as u128 * 2 + 1) / (rounds as u128 * 2) + n as u128 * 7) as u64
                % *size;
            for sector in [false, true] {
                let bad = dir.path().join(format!("bad-{n}-{round}-{sector}"));
                copy_dir(&whole, &bad);
                damage(&bad.join(file), at, sector);
                let what = format!("{} at {at}, sector {sector}", file.display());
                let opened = open(&bad, &options());
                match &opened {
                    Err(OpenError::Damaged { damage, .. }) => {
                        assert!(!damage.lost.is_empty(), "{what}: refused without a range");
                        refused += 1;
                    }
                    Err(e) => panic!("{what}: {e}"),
                    Ok((log, recovered)) => {
                        let (there, mut gaps) = read_all(log, 1 << 20);
                        gaps.extend(recovered.damage.lost.iter().map(|(_, g)| *g));
                        let said = |o: u64| gaps.iter().any(|g| g.start.get() <= o && o < g.end.get());
                        let there: std::collections::BTreeSet<u64> = there.into_iter().collect();
                        let silent: Vec<u64> =
                            (0..records).filter(|o| !there.contains(o) && !said(*o)).collect();
                        assert!(
                            silent.is_empty(),
                            "{what}: {silent:?} gone in silence, {recovered:?}"
                        );
                        if there.len() as u64 == records {
                            repaired += 1
                        } else {
                            reported += 1
                        }
                    }
                }
                if let Ok((log, _)) = opened {
                    log.close();
                }
                // Repair brings back each record whose bytes are on the disk.
                let bytes = all_bytes(&bad);
                let readable: Vec<u64> = (0..24u64)
                    .filter(|n| bytes.iter().any(|file| contains(file, &stored[*n as usize])))
                    .flat_map(|n| n * 5..(n + 1) * 5)
                    .collect();
                rebuild(&bad).unwrap_or_else(|e| panic!("{what}: {e}"));
                let (log, _) = open(&bad, &options()).unwrap_or_else(|e| panic!("{what}: repaired: {e}"));
                let there: std::collections::BTreeSet<u64> = read_all(&log, 1 << 20).0.into_iter().collect();
                let missing: Vec<u64> = readable.into_iter().filter(|o| !there.contains(o)).collect();
                assert!(
                    missing.is_empty(),
                    "{what}: {missing:?} are readable and did not come back"
                );
                back += there.len() as u64;
                of += records;
                let row = log.state_row(&topic_key()).unwrap();
                assert_eq!(row.as_deref(), Some(&b"a topic"[..]), "{what}");
                log.close();
                drop(log);
                // The writer may still be closing its files.
                let _ = std::fs::remove_dir_all(&bad);
            }
        }
    }
    println!(
        "{repaired} harmless or repaired, {reported} reported by range, {refused} refused with all ranges; repair \
         brought back {back} of {of} records"
    );
    assert!(repaired > 0 && reported > 0, "the damage must bite");
}

fn topic_key() -> StateKey {
    StateKey::new(StateKind::Topic, b"t")
}

fn all_bytes(dir: &Path) -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    collect_files(dir, Path::new(""), &mut files);
    files
        .iter()
        .map(|(path, _)| std::fs::read(dir.join(path)).unwrap())
        .collect()
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    // The checksum and what is before it is as good as its own.
    let first = &what[..24];
    let mut from = 0;
    while let Some(at) = bytes[from..].windows(24).position(|w| w == first) {
        if bytes[from + at..].starts_with(what) {
            return true;
        }
        from += at + 1;
    }
    false
}

/// Journals are sized ahead to 64 MiB of zeros, which would only be copied here.
fn trim_journals(db: &Path) {
    for entry in std::fs::read_dir(db).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "jnl") {
            let bytes = std::fs::read(&path).unwrap();
            let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
            std::fs::write(&path, &bytes[..(used + 1_024).min(bytes.len())]).unwrap();
        }
    }
}

fn collect_files(root: &Path, under: &Path, out: &mut Vec<(std::path::PathBuf, u64)>) {
    for entry in std::fs::read_dir(root.join(under)).unwrap() {
        let entry = entry.unwrap();
        let path = under.join(entry.file_name());
        match entry.metadata().unwrap() {
            meta if meta.is_dir() => collect_files(root, &path, out),
            meta if meta.len() > 0 => {
                // A journal is sized ahead: the part that says something is what can be damaged.
                let bytes = std::fs::read(root.join(&path)).unwrap();
                let used = bytes.iter().rposition(|b| *b != 0).map_or(1, |i| i as u64 + 1);
                out.push((path, used));
            }
            _ => {}
        }
    }
    out.sort();
}

fn damage(path: &Path, at: u64, sector: bool) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = at as usize;
    if sector {
        let from = at / 512 * 512;
        let to = (from + 512).min(bytes.len());
        bytes[from..to].fill(0);
    } else {
        bytes[at] ^= 0x10;
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_a_damaged_database_held_comes_back_and_offsets_go_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), &options()).unwrap();
    flush(&log, entry(1, vec![batch(0, 100, 50)]));
    flush(&log, entry(2, vec![batch(100, 100, 50)]));
    trim(&log, 3, P, 100);
    log.close();
    drop(log);
    std::fs::write(dir.path().join("db/version"), b"nonsense").unwrap();
    let Err(OpenError::Damaged { damage, .. }) = open(dir.path(), &options()) else {
        panic!("it opened")
    };
    let all = Gap {
        start: Offset::new(100),
        end: Offset::new(200),
        reason: GapReason::Lost,
    };
    assert_eq!(damage.lost, [(P, all)]);
    let rebuilt = rebuild(dir.path()).unwrap();
    assert_eq!(rebuilt.partitions[&P].records, 100);
    assert!(rebuilt.recovered.damage.lost.is_empty(), "{rebuilt:?}");
    assert!(dir.path().join("quarantine/db.0").exists());
    let (log, recovered) = open(dir.path(), &options()).unwrap();
    // What was expired does not come back.
    assert_eq!(read_all(&log, 1 << 20), ((100..200).collect(), vec![]));
    assert_eq!(log.marks(P).unwrap().log_start(), Offset::new(100));
    let next = log.marks(P).unwrap().committed_end();
    assert_eq!(next, Offset::new(200));
    let at = recovered.groups[&GroupId(0)].last.index + 1;
    flush(&log, entry(at, vec![batch(200, 2, 50)]));
    assert_eq!(read_all(&log, 1 << 20).0, (100..202).collect::<Vec<_>>());
}

#[test]
fn what_others_had_removed_is_not_missed_when_less_of_it_is_removed_here() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), &options()).unwrap();
    flush(&log, entry(1, vec![batch(0, 5, 50)]));
    let gone = batch(5, 10, 50);
    let header = entry(2, vec![gone]).header();
    let append = *header.appends().next().unwrap();
    let ops = vec![Op::Gone(append)];
    flush(
        &log,
        Entry {
            ops,
            ..entry(2, vec![])
        },
    );
    trim(&log, 3, P, 5);
    trim(&log, 4, P, 8);
    log.close();
    drop(log);
    let (log, recovered) = open(dir.path(), &options()).unwrap();
    assert!(recovered.damage.is_none(), "{recovered:?}");
    assert_eq!(log.marks(P).unwrap().committed_end(), Offset::new(15));
    flush(&log, entry(5, vec![batch(15, 5, 50)]));
    assert_eq!(read_all(&log, 1 << 20).0, (15..20).collect::<Vec<_>>());
}

#[test]
fn what_was_taken_back_does_not_come_back_in_the_place_of_what_was_written_there() {
    for with_headers in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = open(dir.path(), &options()).unwrap();
        flush(&log, entry(1, vec![batch(0, 10, 3_000)]));
        // Of a leader of another term, and not committed.
        let taken_back = entry(2, vec![batch(10, 20, 3_000)]);
        let (done, flushed) = mpsc::channel();
        let tell = done.clone();
        log.append(taken_back, move |r| tell.send(r).unwrap()).unwrap();
        flushed.recv_timeout(DEADLINE).unwrap().unwrap();
        log.truncate(GROUP, 2, move |r| done.send(r).unwrap()).unwrap();
        flushed.recv_timeout(DEADLINE).unwrap().unwrap();
        flush(&log, entry(2, vec![batch(10, 12, 4_000)]));
        flush(&log, entry(3, vec![batch(22, 10, 3_000)]));
        log.close();
        drop(log);
        if with_headers {
            std::fs::write(dir.path().join("db/version"), b"nonsense").unwrap()
        } else {
            std::fs::remove_dir_all(dir.path().join("db")).unwrap()
        }
        let rebuilt = rebuild(dir.path()).unwrap();
        assert_eq!(rebuilt.partitions[&P].records, 32, "{rebuilt:?}");
        let (log, _) = open(dir.path(), &options()).unwrap();
        assert_eq!(read_all(&log, 1 << 20), ((0..32).collect(), vec![]));
        let again = read_chunk(&log, Offset::new(10), 1).unwrap();
        let Piece::Batch(again) = &again.pieces[0] else {
            panic!("{again:?}")
        };
        assert_eq!(again.count(), 12);
    }
}

#[test]
fn a_topic_comes_back_from_either_copy_and_one_that_is_deleted_does_not() {
    let put = |name: &[u8], value: &'static [u8]| Op::Put {
        key: StateKey::new(StateKind::Topic, name),
        value: Bytes::from_static(value),
    };
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let (log, _) = open(&whole, &options()).unwrap();
    let mut first = entry(1, vec![batch(0, 1, 5)]);
    first.ops.extend([put(b"kept", b"1"), put(b"gone", b"1")]);
    flush(&log, first);
    log.flush_tables();
    let mut second = entry(2, vec![batch(1, 1, 5)]);
    second.ops.push(put(b"kept", b"2"));
    second.ops.push(Op::Remove {
        key: StateKey::new(StateKind::Topic, b"gone"),
    });
    flush(&log, second);
    log.close();
    drop(log);
    let rows = |dir: &Path| {
        let (log, _) = open(dir, &options()).unwrap();
        let rows = log.state_rows(StateKind::Topic).unwrap();
        log.close();
        rows.into_iter()
            .map(|(key, value)| (key.rest().to_vec(), value.to_vec()))
            .collect::<Vec<_>>()
    };
    let want = [(b"kept".to_vec(), b"2".to_vec())];
    for lost in ["db", "rows.copy"] {
        let bad = dir.path().join(format!("without-{lost}"));
        copy_dir(&whole, &bad);
        match lost {
            "db" => std::fs::remove_dir_all(bad.join(lost)).unwrap(),
            _ => std::fs::remove_file(bad.join(lost)).unwrap(),
        }
        rebuild(&bad).unwrap();
        assert_eq!(rows(&bad), want, "without {lost}");
    }
}
