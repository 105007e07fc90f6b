//! Strangers' Kafka clients against a node: each from its own package, unmodified.

use crate::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use weir_tests::{DEADLINE, Node};

const QUICK: (&str, &str) = ("WEIR_GROUP_INITIAL_REBALANCE_DELAY_MS", "100");

fn clients(name: &str) -> PathBuf {
    weir_tests::target().join("clients").join(name)
}

/// Runs a client's program against a node of its own. A client that could not be installed is skipped, and says so.
fn passes(name: &str, program: &str, args: &[&str], env: &[(&str, &str)]) {
    let installed = if name == "kcat" {
        Command::new("kcat").arg("-V").output().is_ok()
    } else {
        clients(name).join(".installed").exists()
    };
    if !installed {
        eprintln!(
            "SKIPPED: {name} is not installed; `cargo verify` installs it where its registry can be reached"
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[QUICK]).unwrap();
    let mut command = Command::new(program);
    let scripts = weir_tests::root().join("tests/clients");
    command
        .current_dir(scripts)
        .envs(env.iter().copied())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    for arg in args {
        command.arg(arg.replace("NODE", &node.kafka.to_string()));
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("PASSED"),
        "{name} ended with {}:\n{said}\n{errors}\nnode:\n{}",
        output.status,
        node.said()
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
    let rounds = crate::rounds("WEIR_KILL_ROUNDS", 3) as usize;
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
    let cuts = crate::rounds("WEIR_POWER_CUTS", 2) as usize;
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = crate::power::Disk::make(dir.path(), 512) else {
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

/// A request without its length: key, version, correlation 7, no client id, and `body`.
fn request(key: i16, version: i16, flexible: bool, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&key.to_be_bytes());
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&7i32.to_be_bytes());
    bytes.extend_from_slice(&(-1i16).to_be_bytes());
    if flexible {
        bytes.push(0);
    }
    bytes.extend_from_slice(body);
    bytes
}

fn ask(stream: &mut TcpStream, request: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(&[&(request.len() as u32).to_be_bytes(), request].concat())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn connect(node: &Node) -> TcpStream {
    let stream = TcpStream::connect(node.kafka).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Sends three megabytes to a topic of its own, which takes room to be received.
fn produce_large(node: &Node) {
    block_on(async {
        create(node, "beside", 1, &[]).await;
        let producer: FutureProducer = config(node).set("message.max.bytes", "4000000").create().unwrap();
        let value = vec![7u8; 3_000_000];
        let record = FutureRecord::<(), _>::to("beside").payload(&value);
        producer.send(record, DEADLINE).await.unwrap();
    });
}

/// The body of Fetch 4 for `t`/0 from offset 0 on: waits `wait_ms` for a million bytes.
fn long_poll(wait_ms: i32) -> Vec<u8> {
    let mut body = Vec::new();
    for field in [-1i32, wait_ms, 1_000_000, 2_000_000] {
        body.extend(field.to_be_bytes());
    }
    body.extend([0, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1]);
    body.extend([0; 12]);
    body.extend(1_000_000i32.to_be_bytes());
    body
}

#[test]
fn large_requests_behind_long_polls_hold_up_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[QUICK]).unwrap();
    block_on(create(&node, "t", 1, &[]));
    let begun = Instant::now();
    // Each has a request that waits for its turn; together they are more than may be received at once.
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let mut stream = connect(&node);
            let poll = request(1, 4, false, &long_poll(30_000));
            let large = request(3, 1, false, &vec![0; (16 << 20) - 64]);
            for bytes in [poll, large] {
                stream.write_all(&(bytes.len() as u32).to_be_bytes()).unwrap();
                // Refused is as good as taken: what matters is that it is in nobody's way.
                let _ = stream.write_all(&bytes);
            }
            stream
        })
        .collect();
    produce_large(&node);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "it took {:?}",
        begun.elapsed()
    );
    drop(waiting);
}

#[test]
fn a_fetch_that_waits_for_more_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[QUICK]).unwrap();
    block_on(async {
        create(&node, "t", 1, &[]).await;
        let producer: FutureProducer = config(&node).create().unwrap();
        let record = FutureRecord::<(), _>::to("t").payload("a record");
        producer.send(record, DEADLINE).await.unwrap();
    });
    // Fetch 4: 400 ms for a million bytes, of which there are a few. It is looked at several times meanwhile.
    let answer = ask(&mut connect(&node), &request(1, 4, false, &long_poll(400))).unwrap();
    assert!(answer.windows(8).any(|w| w == b"a record"));
    let mut http = TcpStream::connect(node.http).unwrap();
    http.write_all(b"GET /metrics HTTP/1.0\r\nhost: weir\r\n\r\n")
        .unwrap();
    let mut metrics = String::new();
    http.read_to_string(&mut metrics).unwrap();
    let out = metrics
        .lines()
        .find(|l| l.starts_with("weir_records_out_total "))
        .unwrap();
    assert_eq!(out, "weir_records_out_total 1", "{metrics}");
}

#[test]
fn what_cannot_be_served_is_answered_or_closed_and_costs_little() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[QUICK]).unwrap();
    // A version of ApiVersions from the future: answered in the oldest form, with what there is (KIP-511).
    let mut stream = connect(&node);
    let answer = ask(&mut stream, &request(18, 99, true, &[1, 1, 0])).unwrap();
    assert_eq!(&answer[..6], [0, 0, 0, 7, 0, 35]);
    let keys = i32::from_be_bytes(answer[6..10].try_into().unwrap());
    assert!(keys >= 28 && answer.len() == 10 + keys as usize * 6, "{keys}");
    // The same connection then goes on.
    let answer = ask(&mut stream, &request(18, 3, true, &[1, 1, 0])).unwrap();
    assert_eq!(&answer[..6], [0, 0, 0, 7, 0, 0]);

    let before = node.rss_mib().unwrap();
    let closed = [
        ("an unknown request", request(999, 0, false, &[])),
        ("a version from the future", request(3, 99, true, &[])),
        (
            "2^31 topics in four bytes",
            request(3, 1, false, &[0x7f, 0xff, 0xff, 0xff]),
        ),
        (
            "2^31 topics, produced",
            request(
                0,
                3,
                false,
                &[0xff, 0xff, 0, 1, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff],
            ),
        ),
        (
            "2^32 topics, compact",
            request(3, 12, true, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ),
        ("no UTF-8", request(3, 1, false, &[0, 0, 0, 1, 0, 1, 0xff])),
        (
            "records for nowhere without wanting an answer",
            request(
                0,
                3,
                false,
                &[
                    0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, b'x', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
                ],
            ),
        ),
    ];
    for (what, bytes) in closed {
        let mut stream = connect(&node);
        assert!(ask(&mut stream, &bytes).is_err(), "{what}");
    }
    for length in [-1i32, 0, 7, i32::MAX] {
        let mut stream = connect(&node);
        stream.write_all(&length.to_be_bytes()).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0, "length {length}");
    }
    // Announced and never sent: memory goes by what came.
    let idle: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = connect(&node);
            stream.write_all(&(15u32 << 20).to_be_bytes()).unwrap();
            stream.write_all(&[0; 100]).unwrap();
            stream
        })
        .collect();
    // Others are served meanwhile, large requests among them.
    let mut stream = connect(&node);
    assert!(ask(&mut stream, &request(18, 0, false, &[])).is_ok());
    let begun = Instant::now();
    produce_large(&node);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "a large request waited {:?} for those that send nothing",
        begun.elapsed()
    );
    let grown = node.rss_mib().unwrap() - before;
    assert!(grown < 30.0, "{grown} MiB for {} idle connections", idle.len());
    let log = node.said();
    for words in [
        "request 999 version 0 is not served",
        "request 3 version 99 is not served",
        "is over the limit",
    ] {
        assert!(log.contains(words), "{words}:\n{log}");
    }
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

/// Idle connections cost little, and others are served beside them.
#[test]
fn idle_connections_cost_little() {
    let count: usize = std::env::var("WEIR_CONNECTIONS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(500);
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[QUICK]).unwrap();
    let mut stream = connect(&node);
    ask(&mut stream, &request(18, 0, false, &[])).unwrap();
    let times = |stream: &mut TcpStream| {
        let mut times: Vec<Duration> = (0..500)
            .map(|_| {
                let begun = Instant::now();
                ask(stream, &request(18, 0, false, &[])).unwrap();
                begun.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[494]
    };
    let (alone, before) = (times(&mut stream), node.rss_mib().unwrap());
    let mut idle = Vec::with_capacity(count);
    for i in 0..count {
        let mut stream = TcpStream::connect(node.kafka).unwrap_or_else(|e| panic!("connection {i}: {e}"));
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        if i % 3 == 0 {
            ask(&mut stream, &request(18, 0, false, &[])).unwrap();
        } else if i % 3 == 1 {
            stream.write_all(&[0, 0]).unwrap();
        }
        idle.push(stream);
    }
    // The last of them was taken: so were those before it.
    ask(&mut connect(&node), &request(18, 0, false, &[])).unwrap();
    let each = (node.rss_mib().unwrap() - before) * 1_024.0 / count as f64;
    let beside = times(&mut stream);
    println!(
        "{count} idle connections: {each:.1} KiB each; p99 of another {alone:?} before, {beside:?} beside"
    );
    assert!(each < 40.0, "{each:.1} KiB a connection");
}

#[test]
fn a_client_over_its_quota_is_told_and_held_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[QUICK, ("WEIR_PRODUCE_BYTES_PER_S", "100000")]).unwrap();
    block_on(async {
        create(&node, "t", 1, &[]).await;
        let producer: FutureProducer = config(&node)
            .set("client.id", "greedy")
            .set("linger.ms", "0")
            .create()
            .unwrap();
        let begun = Instant::now();
        for _ in 0..3 {
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
