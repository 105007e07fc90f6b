//! The broker over real logs: alone, and as three of a site that hear each other or do not.

mod groups;
mod settings;

use crate::propose::request::Request;
use crate::*;
use futures_util::FutureExt;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use weir_log::Log;
use weir_replica::memory::Hub;
use weir_types::*;

struct TestClock(AtomicI64);

impl Default for TestClock {
    fn default() -> Self {
        Self(AtomicI64::new(weir_types::level::RELEASED_MS))
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The clock is never stepped.
    fn steady_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed) as u64
    }
}

fn who() -> Principal {
    Principal::anonymous("test")
}

const DEADLINE: Duration = Duration::from_secs(30);

/// Timing under which a leader without followers serves for the length of a test.
const PATIENT: Timing = Timing {
    heartbeat: Duration::from_millis(50),
    election_min: Duration::from_secs(10),
    election_max: Duration::from_secs(12),
};

async fn open_node(
    dir: &Path,
    hub: &Hub,
    node: NodeId,
    timing: Timing,
    clock: Arc<dyn Clock>,
    options: Options,
) -> Broker {
    let log_options = weir_log::Options {
        disk_reserve_bytes: Some(0),
        ..weir_log::Options::default()
    };
    let (log, recovered) = Log::open(dir, &log_options).unwrap();
    assert!(recovered.damage.is_none(), "{recovered:?}");
    let config = GroupConfig {
        id: GroupId(0),
        node,
        member: Member::default(),
        founders: (node == 1).then(|| (1, Member::default())).into_iter().collect(),
        timing,
    };
    let broker = Broker::open(log, &recovered, config, hub.transport(node), clock, options);
    let broker = broker.await.unwrap();
    hub.add(node, broker.finds_groups());
    broker
}

async fn open_with(dir: &Path, clock: Arc<dyn Clock>, options: Options) -> Broker {
    let broker = open_node(dir, &Hub::default(), 1, Timing::EDGE, clock, options).await;
    assert!(broker.serving_within(DEADLINE).await);
    broker
}

async fn open(dir: &Path) -> Broker {
    open_with(dir, Arc::new(TestClock::default()), Options::default()).await
}

/// Three brokers of a site; the first leads.
async fn three(dir: &Path, timing: Timing) -> (Hub, Vec<Broker>) {
    let hub = Hub::default();
    let mut brokers = Vec::new();
    for node in 1..=3 {
        let dir = dir.join(node.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let clock = Arc::new(TestClock::default());
        brokers.push(open_node(&dir, &hub, node, timing, clock, Options::default()).await);
    }
    assert!(brokers[0].serving_within(DEADLINE).await);
    for node in 2..=3 {
        brokers[0]
            .group()
            .add_learner(node, Member::default())
            .await
            .unwrap();
        until(|| brokers[0].group().lag(node) == Some(0)).await;
        brokers[0].group().promote(node).await.unwrap();
    }
    assert!(brokers[0].serving_within(DEADLINE).await);
    (hub, brokers)
}

async fn until(condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "it does not come to that");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Returns the serving node, other than `not`.
async fn leader_but(brokers: &[Broker], not: NodeId) -> Broker {
    let found = || brokers.iter().find(|b| b.is_serving() && b.group().node() != not);
    until(|| found().is_some()).await;
    found().unwrap().clone()
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_changed_on_top_of_what_was_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).await;
    let kind = weir_log::StateKind::Pipeline;
    let put = async |expected: Option<&'static [u8]>, value: &'static [u8], term| {
        let rows = ["a", "b"].map(|key| {
            let key = weir_log::StateKey::new(kind, key.as_bytes());
            (key, Some(bytes::Bytes::from_static(value)))
        });
        let is_it = move |now: Option<&[u8]>| now == expected;
        broker.put_rows_if((kind, b"a"), is_it, term, rows.to_vec()).await
    };
    let there = || {
        let rows = broker.rows(kind);
        rows.into_iter().map(|(_, value)| value).collect::<Vec<_>>()
    };
    put(None, b"1", None).await.unwrap();
    for expected in [None, Some(&b"2"[..])] {
        let refused = put(expected, b"3", None).await;
        assert!(matches!(refused, Err(AdminError::Changed)), "{refused:?}");
    }
    assert_eq!(there(), [b"1", b"1"]);
    let term = broker.led_term(PartitionId::HOME);
    put(Some(b"1"), b"2", term).await.unwrap();
    assert_eq!(there(), [b"2", b"2"]);
    let another = term.map(|term| Term(term.0 + 1));
    let refused = put(Some(b"2"), b"3", another).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Retry, "{refused}");
    assert_eq!(there(), [b"2", b"2"]);
    broker.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_batches_share_a_row_and_keep_their_order_and_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        linger: Duration::from_millis(50),
        ..Options::default()
    };
    let broker = open_with(dir.path(), Arc::new(TestClock::default()), options).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_are_answered_with_the_first_offset_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).await;
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
    let broker = open(dir.path()).await;
    assert_eq!(send(&broker, "t", numbered(2, &["c"])).await.unwrap(), 2);
    assert_eq!(send(&broker, "t", numbered(3, &["d"])).await.unwrap(), 3);
    assert_eq!(read(&broker, "t").await.len(), 4);
    let first = broker.init_producer(&who()).await.unwrap();
    assert_ne!(broker.init_producer(&who()).await.unwrap(), first);
    broker.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_answered_or_read_before_it_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, brokers) = three(dir.path(), PATIENT).await;
    let broker = &brokers[0];
    topic(broker, "t", &[]).await;
    hub.cut(1, 2);
    hub.cut(1, 3);
    let logged = broker.group().status().last;
    let first = broker
        .produce(&who(), "t", 0, numbered(0, &["a"]), Framing::Merge)
        .await
        .unwrap();
    until(|| broker.group().status().last > logged).await;
    // A second batch continues the first; a duplicate of the first waits for the original.
    let second = broker
        .produce(&who(), "t", 0, numbered(1, &["b"]), Framing::Merge)
        .await
        .unwrap();
    until(|| broker.group().status().last > logged + 1).await;
    let mut again = broker
        .produce(&who(), "t", 0, numbered(0, &["a"]), Framing::Merge)
        .await
        .unwrap();
    let early = tokio::time::timeout(Duration::from_millis(50), &mut again).await;
    assert!(early.is_err(), "answered before its original was committed");
    assert_eq!(read(broker, "t").await, []);
    hub.heal();
    assert_eq!(first.await.unwrap().base.get(), 0);
    assert_eq!(second.await.unwrap().base.get(), 1);
    assert_eq!(again.await.unwrap().base.get(), 0);
    assert_eq!(read(broker, "t").await.len(), 2);
    brokers.iter().for_each(Broker::close);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_leader_had_alone_is_void_with_all_that_was_computed_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, brokers) = three(dir.path(), Timing::EDGE).await;
    let old = &brokers[0];
    topic(old, "t", &[]).await;
    assert_eq!(send(old, "t", numbered(0, &["kept"])).await.unwrap(), 0);
    hub.cut(1, 2);
    hub.cut(1, 3);
    let lost = old
        .produce(&who(), "t", 0, numbered(1, &["lost"]), Framing::Merge)
        .await;
    let behind = old
        .produce(&who(), "t", 0, numbered(2, &["behind it"]), Framing::Merge)
        .await;
    let new = leader_but(&brokers, 1).await;
    // A leader without followers refuses writes and reads, since another may have been elected.
    until(|| !old.is_serving()).await;
    let refused = send(old, "t", numbered(3, &["no"])).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Retry);
    // Offsets and sequences continue from the committed end.
    let hole = send(&new, "t", numbered(2, &["behind it"])).await;
    assert!(
        matches!(hole, Err(ProduceError::OutOfOrder { expected: 1, .. })),
        "{hole:?}"
    );
    assert_eq!(send(&new, "t", numbered(1, &["again"])).await.unwrap(), 1);
    // Time for the old leader to learn of the new; its answers come on their own.
    hub.heal();
    // Never called failed: another could still have had them.
    for producing in [lost, behind] {
        assert_eq!(
            producing.unwrap().await.unwrap_err().kind(),
            ErrorKind::UnknownOutcome
        );
    }
    let want = vec![(0, "kept".to_owned()), (1, "again".to_owned())];
    assert_eq!(read(&new, "t").await, want);
    until(|| old.group().status().applied >= new.group().status().applied).await;
    assert_eq!(old.marks("t", 0).unwrap().committed_end().get(), 2);
    // The old leader leads again, on top of the new leader's entries.
    new.hand_over(1).await.unwrap();
    assert!(old.serving_within(DEADLINE).await);
    assert_eq!(send(old, "t", numbered(1, &["again"])).await.unwrap(), 1);
    assert_eq!(send(old, "t", numbered(2, &["behind it"])).await.unwrap(), 2);
    assert_eq!(read(old, "t").await.len(), 3);
    brokers.iter().for_each(Broker::close);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_gets_a_snapshot_of_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, brokers) = three(dir.path(), Timing::EDGE).await;
    let leader = &brokers[0];
    topic(leader, "t", &[("retention.ms", "-1")]).await;
    topic(leader, "gone", &[]).await;
    let big = "x".repeat(3_000);
    for i in 0..20 {
        send(leader, "t", numbered(i, &[&big])).await.unwrap();
    }
    until(|| brokers[2].group().status().applied == leader.group().status().applied).await;
    hub.cut(1, 3);
    hub.cut(2, 3);
    for i in 20..120 {
        send(leader, "t", numbered(i, &[&big])).await.unwrap();
    }
    leader.delete_topic(&who(), "gone").await.unwrap();
    topic(leader, "new", &[]).await;
    send(leader, "new", batch(&["n"], None)).await.unwrap();
    leader
        .trim(&who(), "t", 0, Offset::new(30), GapReason::Evicted)
        .await
        .unwrap();
    // The entries that the third node lacks are purged on the others.
    for broker in &brokers[..2] {
        until(|| broker.group().status().applied == leader.group().status().applied).await;
        let applied = broker.group().status().applied;
        until_purged(broker, applied).await;
    }
    hub.heal();
    let behind = &brokers[2];
    until(|| behind.group().status().applied >= leader.group().status().applied).await;
    let marks = behind.marks("t", 0).unwrap();
    assert_eq!((marks.log_start().get(), marks.committed_end().get()), (30, 120));
    assert!(behind.topic("gone").is_none() && behind.topic("new").is_some());
    // The third node leads with all entries, and knows the producer even after a restart.
    leader.hand_over(3).await.unwrap();
    assert!(behind.serving_within(DEADLINE).await);
    let there = read(behind, "t").await;
    assert_eq!(there.len(), 90);
    assert!(
        there
            .iter()
            .enumerate()
            .all(|(i, (offset, value))| *offset == i as u64 + 30 && *value == big)
    );
    assert_eq!(send(behind, "t", numbered(119, &[&big])).await.unwrap(), 119);
    assert_eq!(send(behind, "t", numbered(120, &["last"])).await.unwrap(), 120);
    assert!(behind.log().scrub(|_, _| {}).unwrap().damaged.is_empty());
    hub.remove(3);
    behind.close();
    drop(brokers);
    let clock = Arc::new(TestClock::default());
    let again = open_node(
        &dir.path().join("3"),
        &hub,
        3,
        Timing::EDGE,
        clock,
        Options::default(),
    )
    .await;
    let marks = again.marks("t", 0).unwrap();
    assert!(marks.log_start().get() == 30 && marks.committed_end().get() >= 120);
    assert_eq!(again.log().scrub(|_, _| {}).unwrap().damaged, []);
    again.close();
}

async fn until_purged(broker: &Broker, upto: u64) {
    broker.group().purge(upto).await;
    until(|| broker.group().status().purged >= upto.saturating_sub(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_waits_for_records_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_come_change_and_go_and_a_new_one_has_nothing_of_the_old() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).await;
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
                offset: 1,
                leader_epoch: -1,
                metadata: "here".to_owned(),
            }],
        )
        .await
        .unwrap();
    assert_eq!(
        broker
            .committed_offset("g", "t", 0)
            .map(|c| (c.number(), c.metadata)),
        Some((1, "here".to_owned()))
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_records_expire_and_the_budget_evicts_the_least_important_first() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::default());
    let options = Options {
        disk_budget_bytes: Some(40_000),
        ..Options::default()
    };
    let broker = open_with(dir.path(), Arc::clone(&clock) as _, options).await;
    topic(&broker, "young", &[("retention.ms", "1000")]).await;
    topic(&broker, "dear", &[("retention.ms", "-1"), ("priority", "9")]).await;
    topic(&broker, "cheap", &[("retention.ms", "-1"), ("priority", "0")]).await;
    let big = "x".repeat(6_000);
    for _ in 0..5 {
        send(&broker, "dear", batch(&[&big], None)).await.unwrap();
        send(&broker, "cheap", batch(&[&big], None)).await.unwrap();
    }
    send(&broker, "young", batch(&["soon gone"], None)).await.unwrap();
    broker.raise_level().await;
    // Noted at the first look, and older than a second at the next.
    broker.retain().await;
    assert_eq!(broker.marks("young", 0).unwrap().log_start().get(), 0);
    clock.0.fetch_add(5_000, Ordering::Relaxed);
    broker.retain().await;
    broker.keep_within_budget().await;
    let removed = broker.removed_from("young").await;
    assert_eq!(removed, BTreeMap::from([(Why::Age, 1)]));
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

/// A batch with a record of this timestamp.
fn dated(timestamp: i64, bytes: usize) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(timestamp, None, Some(&vec![7; bytes]), Headers::NONE);
    builder.build(Offset::ZERO, None).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn age_is_the_time_since_a_batch_was_stored_whatever_it_says_itself() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::default());
    let broker = open_with(dir.path(), Arc::clone(&clock) as _, Options::default()).await;
    broker.raise_level().await;
    let any_time = ("message.timestamp.after.max.ms", "9223372036854775807");
    topic(&broker, "stored", &[any_time]).await;
    topic(&broker, "record", &[("retention.by", "record")]).await;
    let start = |name: &str| broker.marks(name, 0).unwrap().log_start().get();
    let pass = async |ms: i64| {
        for _ in 0..ms / 30_000 {
            clock.0.fetch_add(30_000, Ordering::Relaxed);
            broker.retain().await;
        }
    };
    broker.retain().await;
    // Dated 1970, years ahead, and 2013: as a gateway without a clock, a broken producer and a backfill do.
    for timestamp in [1_000, weir_types::level::RELEASED_MS * 2, 1_370_000_000_000] {
        send(&broker, "stored", dated(timestamp, 100)).await.unwrap();
    }
    send(&broker, "record", dated(1_000, 100)).await.unwrap();
    pass(3_600_000).await;
    assert_eq!((start("stored"), start("record")), (0, 0));
    // By their timestamps, records expire once there are more than always stay: not records of the last hour,
    for _ in 0..22 {
        send(&broker, "record", dated(1_000, 3_900_000)).await.unwrap();
    }
    pass(1_800_000).await;
    assert_eq!(start("record"), 1);
    // and not the newest 64 MiB.
    pass(6 * 3_600_000).await;
    let left = broker.marks("record", 0).unwrap().bytes();
    assert!(
        start("record") > 1 && left >= 64 << 20,
        "{} and {left}",
        start("record")
    );
    assert_eq!(start("stored"), 0);
    broker.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_out_of_the_midst_of_a_batch_is_not_handed_out() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).await;
    topic(&broker, "t", &[]).await;
    let values: Vec<String> = (0..10).map(|n| format!("secret {n}")).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    for _ in 0..2 {
        send(&broker, "t", batch(&values, None)).await.unwrap();
    }
    for to in [1, 7, 9, 10, 13] {
        broker
            .trim(&who(), "t", 0, Offset::new(to), GapReason::Expired)
            .await
            .unwrap();
        // The same for any reader and any start.
        for from in [0, 3, to, to + 1] {
            let fetch = Fetch {
                topic: "t".to_owned(),
                partition: 0,
                from: Offset::new(from),
                max_bytes: 1 << 20,
                wait: Duration::ZERO,
            };
            let fetched = broker.fetch(&who(), fetch).await.unwrap();
            let batches = fetched.pieces.iter().filter_map(|piece| match piece {
                Piece::Batch(batch) => Some(batch),
                Piece::Gap(_) => None,
            });
            let mut last = None;
            for batch in batches {
                for record in batch.body().unwrap().records() {
                    let offset = record.unwrap().offset.get();
                    assert!(offset >= to, "{offset} of what begins at {to}");
                    last = Some(offset);
                }
            }
            assert_eq!(last, Some(19));
        }
    }
    broker.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_while_followers_are_not_heard_for_a_moment_is_taken_in_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let hasty = Timing {
        election_min: Duration::from_millis(200),
        election_max: Duration::from_millis(300),
        ..PATIENT
    };
    let (hub, brokers) = three(dir.path(), hasty).await;
    let broker = &brokers[0];
    topic(broker, "t", &[]).await;
    // All nodes are cut off: no leader is elected, and the lease expires.
    for (a, b) in [(1, 2), (1, 3), (2, 3)] {
        hub.cut(a, b);
    }
    let mut taken = Vec::new();
    let values: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    for value in &values {
        // Some requests before the expiry, some after.
        tokio::time::sleep(Duration::from_millis(3)).await;
        let who = who();
        let sent = broker.produce(&who, "t", 0, batch(&[value], None), Framing::AsSent);
        taken.push(sent.await.unwrap());
    }
    assert!(!broker.is_serving());
    // The followers hear their leader again before they hear each other. The leader has more entries, so that
    // its vote elects neither.
    hub.join(1, 2);
    hub.join(1, 3);
    for (n, sent) in (0..).zip(taken) {
        assert_eq!(sent.await.unwrap().base.get(), n);
    }
    hub.heal();
    let leader = leader_but(&brokers, 0).await;
    let stored: Vec<String> = read(&leader, "t")
        .await
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    assert_eq!(stored, values);
    brokers.iter().for_each(Broker::close);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stops_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).await;
    topic(&broker, "t", &[]).await;
    broker.close();
    assert!(
        broker.0.site.requests.try_send(Request::Wake).is_err()
            || send(&broker, "t", batch(&["x"], None)).await.is_err()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_changes_than_the_queue_holds_wait_for_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, brokers) = three(dir.path(), PATIENT).await;
    let broker = brokers[0].clone();
    topic(&broker, "t", &[]).await;
    // A waiting change blocks the proposer, and the queue fills.
    hub.cut(1, 2);
    hub.cut(1, 3);
    let (other, logged) = (broker.clone(), broker.group().status().last);
    let held = tokio::spawn(async move { topic(&other, "u", &[]).await });
    until(|| broker.group().status().last > logged).await;
    let begun = Arc::new(AtomicU64::new(0));
    let commit = |i: u64| {
        let (broker, begun) = (broker.clone(), Arc::clone(&begun));
        async move {
            begun.fetch_add(1, Ordering::Relaxed);
            let commit = crate::Commit {
                topic: "t".to_owned(),
                partition: 0,
                offset: i as i64,
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
    hub.heal();
    held.await.unwrap();
    for commit in commits {
        commit.await.unwrap().unwrap();
    }
    let last = broker.committed_offset("g7999", "t", 0);
    assert_eq!(last.map(|c| c.number()), Some(7_999));
    brokers.iter().for_each(Broker::close);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_is_over_his_quota_waits() {
    let dir = tempfile::tempdir().unwrap();
    let quotas = QuotaConfig {
        fetch_bytes_per_s: Some(1_000),
        ..QuotaConfig::default()
    };
    let options = Options {
        quotas,
        ..Options::default()
    };
    let broker = open_with(dir.path(), Arc::new(TestClock::default()), options).await;
    let waits = |direction| broker.hold_back(&who(), direction).now_or_never().is_none();
    assert!(!waits(Direction::Fetch) && !waits(Direction::Produce));
    broker.delivered(&who(), 5_000, 1);
    assert!(waits(Direction::Fetch) && !waits(Direction::Produce));
}
