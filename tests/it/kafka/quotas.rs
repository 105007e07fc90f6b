//! Quotas and the self-test, as Kafka clients see them.

use super::{QUICK, config, create};
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::process::Command;
use std::time::{Duration, Instant};
use weir_tests::{DEADLINE, Node, block_on};

#[test]
fn kafka_quota_is_per_address_and_not_per_name() {
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
        // The first second's worth is free, then the rate holds: the third send waits for the end of the
        // second.
        assert!(
            begun.elapsed() > Duration::from_millis(900),
            "{:?}",
            begun.elapsed()
        );
    });
}

#[test]
fn kafka_check_passes() {
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
        11,
        "{said}"
    );
    let nobody = Command::new(weir_tests::weir())
        .args(["kafka", "check", "--bootstrap", "here"])
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(2));
}
