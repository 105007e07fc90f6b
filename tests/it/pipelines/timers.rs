//! Timers on many partitions, and timers that misbehave.

use super::{batch, hostile_topic};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use weir_client::{BatchBuilder, Client, Codec, Offset};
use weir_tests::{DEADLINE, Node, block_on, guest, read_all};

/// More partitions have timers than are in memory at once: each fires all the same, and once.
#[test]
fn timers_of_partitions_that_were_put_aside_fire() {
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
        let begun = Instant::now();
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
        while keys().await != wanted {
            assert!(begun.elapsed() < DEADLINE, "{:?}", keys().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    node.stop().unwrap();
}

#[test]
fn timers_that_misbehave_end_their_own_pipeline() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let fired = async |client: &Client, name: &str| {
        let told = client.pipelines().await.unwrap();
        let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
        let of = told.as_array().unwrap().iter().find(|p| p["name"] == name);
        of.unwrap().clone()
    };
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .push_module("hostile", "1", &guest("hostile"))
            .await
            .unwrap();
        let mut producer = client.producer().await.unwrap();
        let one = || batch(["x".to_owned()]);
        for (mode, policy) in [
            ("timer-traps", "halt"),
            ("timer-keeps", "halt"),
            ("timer-traps", "skip"),
            ("timer-keeps", "dead-letter"),
        ] {
            let topic = format!("{mode}.{policy}");
            hostile_topic(&client, &topic, mode, policy).await;
            producer
                .send(&topic, 0, &one())
                .await
                .unwrap()
                .done()
                .await
                .unwrap();
            let begun = Instant::now();
            loop {
                let told = fired(&client, &topic).await;
                let halted = told["state"] == "halted";
                let why = told["why"].as_str().unwrap_or_default();
                if halted && policy == "halt" {
                    let words = if mode == "timer-traps" {
                        "trap"
                    } else {
                        "kept, copied or rejected"
                    };
                    assert!(why.contains(words), "{why}");
                    break;
                }
                if told["skipped"] == 1 && policy == "skip" {
                    break;
                }
                if told["dead_letters"] == 1 {
                    let (dead, _) = read_all(&client, &format!("{topic}.dead"), 0, 1 << 20)
                        .await
                        .unwrap();
                    let Some((_, dead)) = dead.first() else { continue };
                    let headers: BTreeMap<_, _> = dead.headers.iter().cloned().collect();
                    assert!(
                        headers.contains_key("weir.timer") && !headers.contains_key("weir.source.offset")
                    );
                    assert_eq!(dead.key.as_deref(), Some(&b"k"[..]));
                    break;
                }
                assert!(begun.elapsed() < weir_tests::DEADLINE, "{topic}: {told}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        // One that sets itself again and again, for a time that has passed, fires once a millisecond at most: records get
        // through, and when it is paused it is still.
        hostile_topic(&client, "ever", "timer-for-ever", "halt").await;
        let begun = Instant::now();
        producer
            .send("ever", 0, &one())
            .await
            .unwrap()
            .done()
            .await
            .unwrap();
        let so_far = async || fired(&client, "ever").await["timers_fired"].as_u64().unwrap();
        while so_far().await < 20 {
            assert!(begun.elapsed() < weir_tests::DEADLINE);
            producer
                .send("ever", 0, &one())
                .await
                .unwrap()
                .done()
                .await
                .unwrap();
        }
        assert!(u128::from(so_far().await) <= begun.elapsed().as_millis() + 1);
        let output = node.cli(&["pipeline", "pause", "ever"], "").unwrap();
        assert!(output.status.success());
        let still = so_far().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(so_far().await, still, "it fires although it is paused");
    });
    node.stop().unwrap();
}
