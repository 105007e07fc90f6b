//! The broker over a real log, under commit rules that commit at once, late, and not at all.

use crate::proposer::Request;
use crate::*;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use weir_log::Log;
use weir_replica::{CommitRule, Decider, Synced};
use weir_types::*;

#[derive(Default)]
struct TestClock(AtomicI64);
impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Commits only when it is let go; can discard what waits instead.
#[derive(Default)]
struct Gate {
    open: AtomicBool,
    waiting: Mutex<Vec<(Term, u64, Decider)>>,
    seen: AtomicU64,
}

impl CommitRule for Gate {
    fn flushed(&self, term: Term, index: u64, decider: &Decider) {
        if self.open.load(Ordering::Acquire) {
            return decider.commit(term, index);
        }
        self.waiting.lock().unwrap().push((term, index, decider.clone()));
        self.seen.fetch_add(1, Ordering::Release);
    }
}

impl Gate {
    fn release(&self) {
        self.open.store(true, Ordering::Release);
        for (term, index, decider) in self.waiting.lock().unwrap().drain(..) {
            decider.commit(term, index);
        }
    }

    fn discard(&self) {
        self.open.store(true, Ordering::Release);
        let mut waiting = self.waiting.lock().unwrap();
        if let Some((term, index, decider)) = waiting.first() {
            decider.discard(*term, *index);
        }
        waiting.clear();
    }

    fn close(&self) {
        self.open.store(false, Ordering::Release);
        self.seen.store(0, Ordering::Release);
    }

    async fn seen(&self, entries: u64) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while self.seen.load(Ordering::Acquire) < entries {
            assert!(tokio::time::Instant::now() < deadline, "no entry came");
            tokio::task::yield_now().await;
        }
    }
}

fn who() -> Principal {
    Principal::anonymous("test")
}

fn open_with(dir: &Path, rule: Arc<dyn CommitRule>, clock: Arc<dyn Clock>, options: Options) -> Broker {
    let log_options = weir_log::Options {
        disk_reserve_bytes: Some(0),
        ..weir_log::Options::default()
    };
    let (log, recovered) = Log::open(dir, &log_options).unwrap();
    assert!(recovered.damage.is_none(), "{recovered:?}");
    Broker::open(log, &recovered, rule, clock, options).unwrap()
}

fn open(dir: &Path) -> Broker {
    open_with(
        dir,
        Synced::rule(),
        Arc::new(TestClock::default()),
        Options::default(),
    )
}

/// A broker whose entries commit when its gate lets them; it is open.
fn gated(dir: &Path) -> (Broker, Arc<Gate>) {
    let gate = Arc::new(Gate {
        open: AtomicBool::new(true),
        ..Gate::default()
    });
    let rule = Arc::clone(&gate) as _;
    let broker = open_with(dir, rule, Arc::new(TestClock::default()), Options::default());
    (broker, gate)
}

fn batch(values: &[&str], producer: Option<Producer>) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    for value in values {
        let value = Some(bytes::Bytes::copy_from_slice(value.as_bytes()));
        builder.push_record(&Record {
            value,
            timestamp: 5,
            ..Record::default()
        });
    }
    builder.build(Offset::ZERO, producer).unwrap()
}

fn numbered(sequence: i32, values: &[&str]) -> Batch {
    batch(
        values,
        Some(Producer {
            id: 77,
            epoch: 0,
            sequence,
        }),
    )
}

async fn send(broker: &Broker, topic: &str, batch: Batch) -> Result<u64, ProduceError> {
    let producing = broker.produce(&who(), topic, 0, batch, Framing::Merge).await?;
    Ok(producing.await?.base.get())
}

async fn read(broker: &Broker, topic: &str) -> Vec<(u64, String)> {
    let mut from = Offset::ZERO;
    let mut out = Vec::new();
    loop {
        let fetch = Fetch {
            topic: topic.to_owned(),
            partition: 0,
            from,
            max_bytes: 1 << 20,
            wait: Duration::ZERO,
        };
        let fetched = broker.fetch(&who(), fetch).await.unwrap();
        for piece in &fetched.pieces {
            if let Piece::Batch(batch) = piece {
                for record in batch.body().unwrap().records() {
                    let record = record.unwrap();
                    out.push((
                        record.offset.get(),
                        String::from_utf8_lossy(record.value.unwrap()).into_owned(),
                    ));
                }
            }
        }
        if fetched.next == fetched.committed_end {
            return out;
        }
        from = fetched.next;
    }
}

async fn topic(broker: &Broker, name: &str, settings: &[(&str, &str)]) {
    let settings: Vec<_> = settings
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    broker.create_topic(&who(), name, 1, &settings).await.unwrap();
}

#[tokio::test]
async fn small_batches_share_a_row_and_keep_their_order_and_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        linger: Duration::from_millis(50),
        ..Options::default()
    };
    let broker = open_with(
        dir.path(),
        Synced::rule(),
        Arc::new(TestClock::default()),
        options,
    );
    topic(&broker, "t", &[]).await;
    let mut waiting = Vec::new();
    for i in 0..100 {
        let producing = broker
            .produce(&who(), "t", 0, batch(&[&format!("v{i}")], None), Framing::Merge)
            .await
            .unwrap();
        waiting.push(producing);
    }
    for (i, producing) in waiting.into_iter().enumerate() {
        assert_eq!(producing.await.unwrap().base.get(), i as u64);
    }
    let read = read(&broker, "t").await;
    assert_eq!(read, (0..100).map(|i| (i, format!("v{i}"))).collect::<Vec<_>>());
    let fetch = Fetch {
        topic: "t".to_owned(),
        partition: 0,
        from: Offset::ZERO,
        max_bytes: 1 << 20,
        wait: Duration::ZERO,
    };
    let rows = broker.fetch(&who(), fetch).await.unwrap().pieces.len();
    assert!(rows <= 10, "{rows} rows for 100 small batches");
    broker.close();
}

#[tokio::test]
async fn duplicates_are_answered_with_the_first_offset_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    topic(&broker, "t", &[]).await;
    assert_eq!(send(&broker, "t", numbered(0, &["a", "b"])).await.unwrap(), 0);
    assert_eq!(send(&broker, "t", numbered(2, &["c"])).await.unwrap(), 2);
    assert_eq!(send(&broker, "t", numbered(0, &["a", "b"])).await.unwrap(), 0);
    let hole = send(&broker, "t", numbered(9, &["x"])).await;
    assert!(
        matches!(hole, Err(ProduceError::OutOfOrder { expected: 3, .. })),
        "{hole:?}"
    );
    broker.close();
    drop(broker);
    let broker = open(dir.path());
    assert_eq!(send(&broker, "t", numbered(2, &["c"])).await.unwrap(), 2);
    assert_eq!(send(&broker, "t", numbered(3, &["d"])).await.unwrap(), 3);
    assert_eq!(read(&broker, "t").await.len(), 4);
    let first = broker.init_producer(&who()).await.unwrap();
    assert_ne!(broker.init_producer(&who()).await.unwrap(), first);
    broker.close();
}

#[tokio::test]
async fn nothing_is_answered_or_read_before_it_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, gate) = gated(dir.path());
    topic(&broker, "t", &[]).await;
    gate.close();
    let first = broker
        .produce(&who(), "t", 0, numbered(0, &["a"]), Framing::Merge)
        .await
        .unwrap();
    gate.seen(1).await;
    // A second batch is numbered behind the first, and a duplicate of the first waits for its original.
    let second = broker
        .produce(&who(), "t", 0, numbered(1, &["b"]), Framing::Merge)
        .await
        .unwrap();
    gate.seen(2).await;
    let mut again = broker
        .produce(&who(), "t", 0, numbered(0, &["a"]), Framing::Merge)
        .await
        .unwrap();
    let early = tokio::time::timeout(Duration::from_millis(50), &mut again).await;
    assert!(early.is_err(), "answered before its original was committed");
    assert_eq!(read(&broker, "t").await, []);
    gate.release();
    assert_eq!(first.await.unwrap().base.get(), 0);
    assert_eq!(second.await.unwrap().base.get(), 1);
    assert_eq!(again.await.unwrap().base.get(), 0);
    assert_eq!(read(&broker, "t").await.len(), 2);
    broker.close();
}

#[tokio::test]
async fn a_discarded_tail_is_void_with_all_that_was_computed_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, gate) = gated(dir.path());
    topic(&broker, "t", &[]).await;
    assert_eq!(send(&broker, "t", numbered(0, &["kept"])).await.unwrap(), 0);
    gate.close();
    let lost = broker
        .produce(&who(), "t", 0, numbered(1, &["lost"]), Framing::Merge)
        .await
        .unwrap();
    gate.seen(1).await;
    let behind = broker
        .produce(&who(), "t", 0, numbered(2, &["behind it"]), Framing::Merge)
        .await
        .unwrap();
    gate.seen(2).await;
    gate.discard();
    assert_eq!(lost.await.unwrap_err().kind(), ErrorKind::Retry);
    assert_eq!(behind.await.unwrap_err().kind(), ErrorKind::Retry);
    // Offsets and sequences go on where the committed ones end: the retry is no duplicate and leaves no hole.
    let hole = send(&broker, "t", numbered(2, &["behind it"])).await;
    assert!(
        matches!(hole, Err(ProduceError::OutOfOrder { expected: 1, .. })),
        "{hole:?}"
    );
    assert_eq!(send(&broker, "t", numbered(1, &["again"])).await.unwrap(), 1);
    let want = vec![(0, "kept".to_owned()), (1, "again".to_owned())];
    assert_eq!(read(&broker, "t").await, want);
    broker.close();
    drop(broker);
    let broker = open(dir.path());
    assert_eq!(read(&broker, "t").await, want);
    broker.close();
}

#[tokio::test]
async fn a_fetch_waits_for_records_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    topic(&broker, "t", &[]).await;
    let fetch = |wait| Fetch {
        topic: "t".to_owned(),
        partition: 0,
        from: Offset::ZERO,
        max_bytes: 1 << 20,
        wait,
    };
    let empty = broker
        .fetch(&who(), fetch(Duration::from_millis(20)))
        .await
        .unwrap();
    assert!(empty.pieces.is_empty());
    let waiting = {
        let broker = broker.clone();
        let fetch = fetch(Duration::from_secs(30));
        tokio::spawn(async move { broker.fetch(&who(), fetch).await })
    };
    send(&broker, "t", batch(&["x"], None)).await.unwrap();
    let fetched = tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(fetched.pieces.len(), 1);
    let beyond = broker
        .fetch(
            &who(),
            Fetch {
                from: Offset::new(9),
                ..fetch(Duration::ZERO)
            },
        )
        .await;
    assert!(matches!(beyond, Err(FetchError::OutOfRange { .. })));
    broker.close();
}

#[tokio::test]
async fn topics_come_change_and_go_and_a_new_one_has_nothing_of_the_old() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    topic(&broker, "t", &[("retention.ms", "-1")]).await;
    let again = broker.create_topic(&who(), "t", 1, &[]).await;
    assert!(matches!(again, Err(AdminError::Exists(_))));
    assert!(matches!(
        broker.create_topic(&who(), "a b", 1, &[]).await,
        Err(AdminError::Name(_))
    ));
    let altered = broker
        .alter_topic(&who(), "t", Some(3), &[("priority".to_owned(), "1".to_owned())])
        .await
        .unwrap();
    assert_eq!(
        (
            altered.partitions.len(),
            altered.config.priority,
            altered.config.retention_ms
        ),
        (3, 1, None)
    );
    assert!(broker.alter_topic(&who(), "t", Some(2), &[]).await.is_err());
    send(&broker, "t", batch(&["old"], None)).await.unwrap();
    broker
        .commit_offsets(
            &who(),
            "g",
            &[crate::Commit {
                topic: "t".to_owned(),
                partition: 0,
                offset: Offset::new(1),
                leader_epoch: -1,
                metadata: "here".to_owned(),
            }],
        )
        .await
        .unwrap();
    assert_eq!(
        broker
            .committed_offset("g", "t", 0)
            .map(|c| (c.offset, c.metadata)),
        Some((Offset::new(1), "here".to_owned()))
    );
    broker.delete_topic(&who(), "t").await.unwrap();
    assert!(matches!(
        send(&broker, "t", batch(&["x"], None)).await,
        Err(ProduceError::NoTopic(_))
    ));
    topic(&broker, "t", &[]).await;
    assert_eq!(read(&broker, "t").await, []);
    assert_eq!(broker.committed_offset("g", "t", 0), None);
    assert_eq!(send(&broker, "t", batch(&["new"], None)).await.unwrap(), 0);
    broker.close();
}

#[tokio::test]
async fn old_records_expire_and_the_budget_evicts_the_least_important_first() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::default());
    let options = Options {
        disk_budget_bytes: Some(40_000),
        ..Options::default()
    };
    let broker = open_with(dir.path(), Synced::rule(), Arc::clone(&clock) as _, options);
    topic(&broker, "young", &[("retention.ms", "1000")]).await;
    topic(&broker, "dear", &[("retention.ms", "-1"), ("priority", "9")]).await;
    topic(&broker, "cheap", &[("retention.ms", "-1"), ("priority", "0")]).await;
    let big = "x".repeat(6_000);
    for _ in 0..5 {
        send(&broker, "dear", batch(&[&big], None)).await.unwrap();
        send(&broker, "cheap", batch(&[&big], None)).await.unwrap();
    }
    send(&broker, "young", batch(&["soon gone"], None)).await.unwrap();
    clock.0.store(5_000, Ordering::Relaxed);
    broker.retain().await;
    broker.keep_within_budget().await;
    assert_eq!(broker.marks("young", 0).unwrap().log_start().get(), 1);
    assert_eq!(broker.marks("young", 0).unwrap().lost(), 0);
    let (dear, cheap) = (
        broker.marks("dear", 0).unwrap(),
        broker.marks("cheap", 0).unwrap(),
    );
    assert_eq!(dear.log_start().get(), 0);
    assert!(cheap.log_start().get() >= 4 && cheap.lost() == cheap.log_start().get());
    assert_eq!(cheap.gaps()[0].reason, GapReason::Evicted);
    broker.close();
}

#[tokio::test]
async fn a_broker_that_stops_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    topic(&broker, "t", &[]).await;
    broker.close();
    assert!(!broker.send(Request::Wake) || send(&broker, "t", batch(&["x"], None)).await.is_err());
}

#[tokio::test]
async fn more_changes_than_the_queue_holds_wait_for_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, gate) = gated(dir.path());
    topic(&broker, "t", &[]).await;
    // A change that waits for its entry holds up the proposer; the queue fills behind it.
    gate.close();
    let other = broker.clone();
    let held = tokio::spawn(async move { topic(&other, "u", &[]).await });
    gate.seen(1).await;
    let begun = Arc::new(AtomicU64::new(0));
    let commit = |i: u64| {
        let (broker, begun) = (broker.clone(), Arc::clone(&begun));
        async move {
            begun.fetch_add(1, Ordering::Relaxed);
            let commit = crate::Commit {
                topic: "t".to_owned(),
                partition: 0,
                offset: Offset::new(i),
                leader_epoch: -1,
                metadata: String::new(),
            };
            broker.commit_offsets(&who(), &format!("g{i}"), &[commit]).await
        }
    };
    let commits: Vec<_> = (0..8_000).map(|i| tokio::spawn(commit(i))).collect();
    while begun.load(Ordering::Relaxed) < 8_000 {
        tokio::task::yield_now().await;
    }
    gate.release();
    held.await.unwrap();
    for commit in commits {
        commit.await.unwrap().unwrap();
    }
    let last = broker.committed_offset("g7999", "t", 0);
    assert_eq!(last.map(|c| c.offset), Some(Offset::new(7_999)));
    broker.close();
}
