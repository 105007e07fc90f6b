//! Kafka clients whose node is killed or loses power under load.

use super::{QUICK, config, create, free_port, read};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use weir_tests::{DEADLINE, Node, block_on};

/// Interrupts a node again and again under a group and an idempotent producer: acknowledged records are there
/// once, and no committed offset goes back. Returns the number of acknowledged records.
fn outlives(rounds: usize, mut node: Node, interrupt: impl Fn(Node) -> Node) -> usize {
    let (mut acknowledged, mut sent, mut committed) = (Vec::new(), 0u64, 0i64);
    let producer: FutureProducer = config(&node)
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .set("message.timeout.ms", "60000")
        .set("reconnect.backoff.max.ms", "100")
        .create()
        .unwrap();
    block_on(create(&node, "t", 1, &[("retention.ms", "-1")]));
    for round in 0..rounds {
        let mut waiting = Vec::new();
        for _ in 0..2_000 {
            let value = sent.to_string();
            let record = FutureRecord::<(), _>::to("t").payload(&value);
            waiting.push((
                sent,
                producer
                    .send_result(record)
                    .unwrap_or_else(|(e, _)| panic!("{e}")),
            ));
            sent += 1;
        }
        // Under load.
        let some = 300 + 37 * round % 900;
        block_on(async {
            for (n, delivery) in waiting.drain(..some) {
                acknowledged.push((delivery.await.unwrap().unwrap().offset, n));
            }
        });
        let consumer: BaseConsumer = config(&node)
            .set("group.id", "g")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        let upto = acknowledged.last().map_or(0, |(offset, _)| offset + 1);
        list.add_partition_offset("t", 0, Offset::Offset(upto)).unwrap();
        consumer.commit(&list, CommitMode::Sync).unwrap();
        committed = committed.max(upto);
        drop(consumer);
        node = interrupt(node);
        let consumer: BaseConsumer = config(&node).set("group.id", "g").create().unwrap();
        let mut asked = TopicPartitionList::new();
        asked.add_partition("t", 0);
        let found = consumer.committed_offsets(asked, DEADLINE).unwrap();
        assert_eq!(
            found.find_partition("t", 0).unwrap().offset(),
            Offset::Offset(committed),
            "round {round}"
        );
        block_on(async {
            for (n, delivery) in waiting {
                acknowledged.push((delivery.await.unwrap().unwrap().offset, n));
            }
        });
    }
    let got = read(&node, "t");
    let number = |v: &Option<Vec<u8>>| String::from_utf8_lossy(v.as_ref().unwrap()).parse().unwrap();
    let values: Vec<u64> = got.iter().map(|(_, _, v)| number(v)).collect();
    assert!(
        values.iter().copied().eq(0..sent),
        "each once, in order: {} of {sent}",
        values.len()
    );
    let by_offset: BTreeMap<i64, u64> = got.iter().map(|(o, ..)| *o).zip(values).collect();
    for (offset, n) in &acknowledged {
        assert_eq!(by_offset.get(offset), Some(n));
    }
    acknowledged.len()
}

#[test]
fn kill_under_librdkafka_load_loses_no_record() {
    let rounds = weir_tests::rounds("WEIR_KILL_ROUNDS", 3) as usize;
    let dir = tempfile::tempdir().unwrap();
    let kafka = free_port();
    let env = [QUICK, ("WEIR_KAFKA", kafka.as_str())];
    let node = Node::start(dir.path(), &env).unwrap();
    let acknowledged = outlives(rounds, node, |node| {
        node.kill().unwrap();
        Node::start(dir.path(), &env).unwrap()
    });
    println!("{rounds} kills, {acknowledged} acknowledged, none lost or doubled");
}

#[test]
fn power_cuts_under_librdkafka_load_lose_no_record() {
    let cuts = weir_tests::rounds("WEIR_POWER_CUTS", 2) as usize;
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = weir_tests::disk::Disk::make(dir.path(), 512) else {
        println!("SKIPPED: loop mounts are not permitted here, so no power can be cut");
        return;
    };
    let data = disk.mount.join("data");
    let kafka = free_port();
    let env = [
        QUICK,
        ("WEIR_KAFKA", kafka.as_str()),
        ("WEIR_DISK_RESERVE_BYTES", "1048576"),
    ];
    let node = Node::start_at(dir.path(), &data, &env).unwrap();
    let acknowledged = outlives(cuts, node, |node| {
        node.freeze().unwrap();
        assert!(disk.cut(), "the ioctl is refused");
        node.kill().unwrap();
        disk.detach();
        assert!(disk.attach(), "the file system does not mount after the cut");
        Node::start_at(dir.path(), &data, &env).unwrap()
    });
    println!("{cuts} power cuts, {acknowledged} acknowledged, none lost or doubled");
}

#[test]
fn group_membership_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = free_port();
    let env = [QUICK, ("WEIR_KAFKA", kafka.as_str())];
    let node = Node::start(dir.path(), &env).unwrap();
    block_on(create(&node, "t", 2, &[]));
    let consumer: BaseConsumer = config(&node)
        .set("group.id", "g")
        .set("group.instance.id", "i")
        .set("reconnect.backoff.max.ms", "100")
        .create()
        .unwrap();
    consumer.subscribe(&["t"]).unwrap();
    let assigned = |wanted: usize| {
        let begun = Instant::now();
        while consumer.assignment().unwrap().count() != wanted {
            assert!(begun.elapsed() < DEADLINE);
            let _ = consumer.poll(Duration::from_millis(50));
        }
    };
    assigned(2);
    node.kill().unwrap();
    let node = Node::start(dir.path(), &env).unwrap();
    // The node recognizes the heartbeats of the member: the member keeps its partitions and need not join
    // again.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        let _ = consumer.poll(Duration::from_millis(50));
        assert_eq!(consumer.assignment().unwrap().count(), 2);
    }
    let groups = consumer.fetch_group_list(Some("g"), DEADLINE).unwrap();
    let group = groups.groups().first().unwrap();
    assert_eq!((group.state(), group.members().len()), ("Stable", 1));
    drop(consumer);
    drop(node);
}
