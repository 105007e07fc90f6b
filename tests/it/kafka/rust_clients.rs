//! The Rust clients: librdkafka through `rdkafka`, and `rskafka`.

use super::{Found, QUICK, config, create, read};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use weir_tests::{DEADLINE, Node, block_on};

#[test]
fn librdkafka_produces_consumes_and_commits() {
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
fn rskafka_works_with_its_fixed_versions() {
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
fn inline_filter_keeps_the_offsets_of_the_producer() {
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
    // A look-up by time finds the next remaining record behind dropped records.
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

/// Reads until offset `last`; offsets before may be sparse.
fn read_until(node: &Node, topic: &str, last: i64) -> Vec<Found> {
    let got = read(node, topic);
    assert_eq!(got.last().map(|(offset, ..)| *offset), Some(last));
    got
}

#[test]
fn log_append_time_is_the_time_of_the_node() {
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
