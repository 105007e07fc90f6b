//! The Kafka protocol, by unmodified clients and by hand.

mod clients;
mod durability;
mod failover;
mod java;
mod quotas;
mod raw;
mod rust_clients;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use weir_tests::{DEADLINE, Node};

const QUICK: (&str, &str) = ("WEIR_GROUP_INITIAL_REBALANCE_DELAY_MS", "100");

fn clients(name: &str) -> PathBuf {
    weir_tests::target().join("clients").join(name)
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

/// Returns a free address, for a node that returns to the same address.
fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

/// Returns a free port whose successor is free, too.
fn free_ports() -> u16 {
    let free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).ok();
    let found = std::iter::repeat_with(|| free(0)).take(100).find_map(|first| {
        let first = first?.local_addr().ok()?.port();
        let next = first.checked_add(1)?;
        (free(first).is_some() && free(next).is_some()).then_some(first)
    });
    found.unwrap()
}
