//! Timers on many partitions, and timers that misbehave.

use super::{batch, hostile_topic, pipeline_status};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use weir_client::{BatchBuilder, Client, Codec, Offset};
use weir_tests::records::send;
use weir_tests::{Node, block_on, cli, eventually_async, guest, read_all};

/// More partitions have timers than are in memory at once: each fires all the same, and once.
#[test]
fn timers_fire_on_partitions_that_were_evicted() {
    const PARTITIONS: u32 = 70;
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .push_module("absence", "1", &weir_tests::module("absence"))
            .await
            .unwrap();
        client
            .create_topic("wide", PARTITIONS, &weir_tests::for_ever())
            .await
            .unwrap();
        client
            .create_topic("absent", 1, &weir_tests::for_ever())
            .await
            .unwrap();
        let pipeline = r#"
            name = "absence"
            source = "wide"
            outputs = { absent = "absent" }
            stages = [{ module = "absence", config = { silence_ms = 400 }, grants = ["state", "timers"] }]
        "#;
        client.apply_pipeline(pipeline).await.unwrap();
        let mut producer = client.producer().await.unwrap();
        for partition in 0..PARTITIONS {
            let mut builder = BatchBuilder::new(Codec::None);
            let key = format!("{partition:02}");
            builder.push(0, Some(key.as_bytes()), Some(b"x"), weir_types::Headers::NONE);
            let batch = builder.build(Offset::ZERO, None).unwrap();
            let sent = producer.send("wide", partition, &batch).await.unwrap();
            sent.done().await.unwrap();
        }
        let keys = async || {
            let (records, _) = read_all(&client, "absent", 0, 1 << 20).await.unwrap();
            let keys = records
                .into_iter()
                .map(|(_, r)| String::from_utf8(r.key.unwrap().to_vec()).unwrap());
            let mut keys: Vec<_> = keys.collect();
            keys.sort();
            keys
        };
        let wanted: Vec<_> = (0..PARTITIONS).map(|p| format!("{p:02}")).collect();
        eventually_async("each timer fires once", async || match keys().await {
            keys if keys == wanted => Ok(()),
            keys => Err(format!("{keys:?}")),
        })
        .await;
    });
    node.stop().unwrap();
}

/// Sends a record to a topic.
async fn send_one(client: &Client, topic: &str) {
    send(client, topic, &batch(["x".to_owned()])).await.unwrap();
}

#[test]
fn error_policy_applies_to_timers() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .push_module("hostile", "1", &guest("hostile"))
            .await
            .unwrap();
        for (mode, policy) in [
            ("timer-traps", "halt"),
            ("timer-keeps", "halt"),
            ("timer-traps", "skip"),
            ("timer-keeps", "dead-letter"),
        ] {
            let topic = format!("{mode}.{policy}");
            hostile_topic(&client, &topic, mode, policy).await;
            send_one(&client, &topic).await;
            let status = eventually_async(&topic, async || {
                let status = pipeline_status(&client, &topic).await;
                let is_done = match policy {
                    "halt" => status["state"] == "halted",
                    "skip" => status["skipped"] == 1,
                    _ => status["dead_letters"] == 1,
                };
                if is_done { Ok(status) } else { Err(status) }
            })
            .await;
            match policy {
                "halt" => {
                    let why = status["why"].as_str().unwrap_or_default();
                    let words = match mode {
                        "timer-traps" => "trap",
                        _ => "kept, copied or rejected",
                    };
                    assert!(why.contains(words), "{why}");
                }
                "dead-letter" => expect_dead_timer(&client, &topic).await,
                _ => {}
            }
        }
    });
    node.stop().unwrap();
}

/// Checks the dead letter of a timer: its key, and the headers that differ from those of a record.
async fn expect_dead_timer(client: &Client, topic: &str) {
    let dead = eventually_async("the dead letter is there", async || {
        let (dead, _) = read_all(client, &format!("{topic}.dead"), 0, 1 << 20)
            .await
            .unwrap();
        dead.into_iter().next()
    });
    let (_, dead) = dead.await;
    let headers: BTreeMap<_, _> = dead.headers.iter().cloned().collect();
    assert!(headers.contains_key("weir.timer") && !headers.contains_key("weir.source.offset"));
    assert_eq!(dead.key.as_deref(), Some(&b"k"[..]));
}

/// A timer that sets itself again and again, for a time in the past.
#[test]
fn endless_timers_fire_at_most_once_a_millisecond() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .push_module("hostile", "1", &guest("hostile"))
            .await
            .unwrap();
        hostile_topic(&client, "ever", "timer-for-ever", "halt").await;
        let begun = Instant::now();
        send_one(&client, "ever").await;
        let so_far = async || {
            let status = pipeline_status(&client, "ever").await;
            status["timers_fired"].as_u64().unwrap()
        };
        eventually_async("20 timers fire, and records get through", async || {
            send_one(&client, "ever").await;
            so_far().await >= 20
        })
        .await;
        assert!(u128::from(so_far().await) <= begun.elapsed().as_millis() + 1);
        cli::run(&node, &["pipeline", "pause", "ever"]);
        let still = so_far().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(
            so_far().await,
            still,
            "timers fire although the pipeline is paused"
        );
    });
    node.stop().unwrap();
}
