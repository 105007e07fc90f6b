//! A Kafka client whose leader is killed.

use super::{QUICK, config};
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use weir_tests::site::Site;
use weir_tests::{DEADLINE, Node, block_on, eventually};

/// librdkafka knows the three brokers, and finds the next leader as with Kafka.
#[test]
fn librdkafka_continues_with_the_next_leader() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[]).unwrap();
    let brokers: Vec<String> = (1..=3).map(|n| site.node(n).unwrap().kafka.to_string()).collect();
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", brokers.join(","));
    block_on(async {
        let client = site.client().await.unwrap();
        client
            .create_topic("k", 1, &weir_tests::for_ever())
            .await
            .unwrap();
        let producer: FutureProducer = config
            .clone()
            .set("enable.idempotence", "true")
            .set("topic.metadata.refresh.interval.ms", "1000")
            .create()
            .unwrap();
        for n in 0..300 {
            if n == 100 {
                let leader = site.leader().unwrap();
                site.kill(leader).unwrap();
            }
            let value = n.to_string();
            let record = FutureRecord::<(), str>::to("k").payload(&value);
            let placed = producer.send(record, DEADLINE).await.unwrap();
            assert_eq!((placed.partition, placed.offset), (0, n));
        }
        let consumer: StreamConsumer = config
            .set("group.id", "g")
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        consumer.subscribe(&["k"]).unwrap();
        for n in 0..300 {
            if n == 150 {
                consumer
                    .commit_consumer_state(rdkafka::consumer::CommitMode::Sync)
                    .unwrap();
            }
            let read = async {
                loop {
                    // The consumer also reports the dead broker.
                    if let Ok(read) = consumer.recv().await {
                        return read;
                    }
                }
            };
            let read = tokio::time::timeout(DEADLINE, read).await.unwrap();
            assert_eq!(read.payload(), Some(n.to_string().as_bytes()));
        }
    });
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
fn metadata_omits_dead_nodes_and_lists_them_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[QUICK]).unwrap();
    site.until_in_step().unwrap();
    site.cli(&["topic", "create", "t"]).unwrap();
    let until = |site: &Site, asked: usize, brokers: &[i32]| {
        eventually(&format!("node {asked} returns brokers {brokers:?}"), || {
            let (told, in_sync, replicas) = told(site.node(asked).unwrap());
            assert_eq!(replicas.len(), 3, "nodes that are down remain replicas");
            if told == brokers && in_sync == brokers {
                Ok(replicas[0])
            } else {
                Err(format!("brokers {told:?}, in sync {in_sync:?}"))
            }
        })
    };
    let leader = site.leader().unwrap();
    let others: Vec<usize> = (1..=3).filter(|n| *n != leader).collect();
    for n in 1..=3 {
        let first = until(&site, n, &[1, 2, 3]);
        assert_eq!(first, leader as i32, "the leader stands first");
    }
    // A follower, and then the leader.
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
