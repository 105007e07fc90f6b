//! The error policy: its effect on records that a module fails on.

use super::{batch, hostile_topic, pipeline_status};
use std::time::Duration;
use weir_client::{BatchBuilder, Codec, Offset};
use weir_tests::{Node, block_on, eventually_async, guest, read_all, within};

#[test]
fn inline_policy_applies_to_the_failing_record_alone() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .push_module("hostile", "1", &guest("hostile"))
            .await
            .unwrap();
        for mode in ["trap-on-bad", "loop-on-bad"] {
            let (dead, skip, halt) = (format!("{mode}.d"), format!("{mode}.s"), format!("{mode}.h"));
            hostile_topic(&client, &dead, mode, "dead-letter").await;
            hostile_topic(&client, &skip, mode, "skip").await;
            hostile_topic(&client, &halt, mode, "halt").await;
            let values = || {
                (0..40).map(|i| {
                    if i == 17 {
                        "bad".to_owned()
                    } else {
                        format!("v{i}")
                    }
                })
            };
            let mut producer = client.producer().await.unwrap();
            producer
                .send(&dead, 0, &batch(values()))
                .await
                .unwrap()
                .done()
                .await
                .unwrap();
            producer
                .send(&skip, 0, &batch(values()))
                .await
                .unwrap()
                .done()
                .await
                .unwrap();
            let halted = producer
                .send(&halt, 0, &batch(values()))
                .await
                .unwrap()
                .done()
                .await
                .unwrap_err();
            let halted = halted.to_string();
            assert!(
                halted
                    .contains("halted: stage 1, module `hostile@1`, on a record without a key, of time 0: "),
                "{halted}"
            );
            for topic in [&dead, &skip] {
                let (kept, _) = read_all(&client, topic, 0, 1 << 20).await.unwrap();
                let offsets: Vec<u64> = kept.iter().map(|(o, _)| *o).collect();
                assert_eq!(
                    offsets,
                    (0..40).filter(|o| *o != 17).collect::<Vec<_>>(),
                    "{topic}"
                );
            }
            let (letters, _) = read_all(&client, &format!("{dead}.dead"), 0, 1 << 20)
                .await
                .unwrap();
            assert_eq!(letters.len(), 1);
            let header = |name: &str| {
                let found = letters[0].1.headers.iter().find(|(n, _)| n == name);
                String::from_utf8(found.unwrap().1.as_ref().unwrap().to_vec()).unwrap()
            };
            assert_eq!(header("weir.source.offset").parse::<u64>().unwrap(), 17);
            assert_eq!(header("weir.attempts"), "2");
            let (skipped, _) = read_all(&client, &format!("{skip}.dead"), 0, 1 << 20)
                .await
                .unwrap();
            assert!(skipped.is_empty());
            let (none, _) = read_all(&client, &halt, 0, 1 << 20).await.unwrap();
            assert!(none.is_empty(), "a refused batch leaves nothing");
        }
    });
}

#[test]
fn log_pipeline_halts_and_names_the_failing_record() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .push_module("hostile", "1", &guest("hostile"))
            .await
            .unwrap();
        let forever = weir_tests::for_ever();
        for topic in ["stored", "through"] {
            client.create_topic(topic, 1, &forever).await.unwrap();
        }
        let behind = "name = \"behind\"\nat = \"log\"\nsource = \"stored\"\noutputs = { main = \"through\" }\n\
                      on_error = { policy = \"halt\" }\nlimits = { deadline_ms = 50 }\n\
                      stages = [{ module = \"hostile\", grants = [\"state\", \"timers\"], config = { mode = \"trap-on-bad\" } }]\n";
        client.apply_pipeline(behind).await.unwrap();
        let mut producer = client.producer().await.unwrap();
        for n in 0..3 {
            let values = (0..4).map(|i| {
                if (n, i) == (2, 1) {
                    "bad".to_owned()
                } else {
                    format!("v{i}")
                }
            });
            let sent = producer.send("stored", 0, &batch(values)).await.unwrap();
            sent.done().await.unwrap();
        }
        let halted = eventually_async("the pipeline halts", async || {
            let status = pipeline_status(&client, "behind").await;
            let is_halted = status["state"] == "halted";
            if is_halted { Ok(status) } else { Err(status) }
        })
        .await;
        let why = halted["why"].as_str().unwrap_or_default();
        assert!(
            why.contains("stage 1, module `hostile@1`, on a record without a key"),
            "{why}"
        );
        assert!(
            why.contains("(topic `stored`, partition 0, offsets 8 to 11)"),
            "{why}"
        );
        // Batches before the bad record may be stored; later batches are not.
        assert!(halted["lag"].as_u64().unwrap() >= 4, "{halted}");
    });
}

#[test]
fn records_with_too_many_headers_are_dead_letters() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .push_module("hostile", "1", &guest("hostile"))
            .await
            .unwrap();
        for mode in ["emit-header", "reject"] {
            hostile_topic(&client, mode, mode, "dead-letter").await;
        }
        let mut producer = client.producer().await.unwrap();
        // The second has as many headers as a record may have.
        let full = || {
            let mut batch = BatchBuilder::new(Codec::None);
            for count in [1, 10_000, 2] {
                let mut headers = weir_types::HeaderBuf::default();
                (0..count).for_each(|n: u32| headers.push(b"n", Some(&n.to_be_bytes())));
                let encoded = headers.encoded();
                batch.push(0, None, Some(b"v"), weir_types::HeaderBuf::view(&encoded));
            }
            batch.build(Offset::ZERO, None).unwrap()
        };
        for (topic, left, dead) in [
            ("emit-header", &[2, 3][..], &[10_000][..]),
            ("reject", &[], &[8, 10_000, 9]),
        ] {
            let sent = producer.send(topic, 0, &full()).await.unwrap();
            sent.done().await.unwrap();
            let (kept, _) = read_all(&client, topic, 0, 4 << 20).await.unwrap();
            let (letters, _) = read_all(&client, &format!("{topic}.dead"), 0, 4 << 20)
                .await
                .unwrap();
            let counts = |records: &[(u64, weir_types::Record)]| -> Vec<usize> {
                records.iter().map(|(_, r)| r.headers.len()).collect()
            };
            assert_eq!(counts(&kept), left, "{topic}");
            assert_eq!(counts(&letters), dead, "{topic}");
            for (_, letter) in &letters {
                let last = letter.headers.last().unwrap();
                assert_eq!(last.0, "weir.source.offset");
            }
        }
        let (letters, _) = read_all(&client, "emit-header.dead", 0, 4 << 20).await.unwrap();
        let error = letters[0]
            .1
            .headers
            .iter()
            .find(|(n, _)| n == "weir.error")
            .unwrap();
        let error = String::from_utf8(error.1.as_ref().unwrap().to_vec()).unwrap();
        assert!(error.contains("a record with 10001 headers"), "{error}");

        client.close().await;
    });
    node.stop().unwrap();
}

#[test]
fn output_larger_than_a_batch_is_stored_in_several_batches() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .push_module("hostile", "1", &guest("hostile"))
            .await
            .unwrap();
        for mode in ["reject", "thrice"] {
            hostile_topic(&client, mode, mode, "dead-letter").await;
        }
        let mut producer = client.producer().await.unwrap();
        let values = (0..3).map(|n| format!("{n}{}", "x".repeat(1 << 20)));
        let sent = producer.send("thrice", 0, &batch(values)).await.unwrap();
        sent.done().await.unwrap();
        let (kept, _) = read_all(&client, "thrice", 0, 64 << 20).await.unwrap();
        let firsts: Vec<_> = kept.iter().map(|(_, r)| r.value.as_ref().unwrap()[0]).collect();
        assert_eq!(firsts, *b"012001122");
        let mut large = BatchBuilder::new(Codec::Zstd);
        let mut noise = std::iter::successors(Some(1_u32), |n| {
            Some(n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
        });
        for mib in [1, 5, 2] {
            let value: Vec<u8> = noise
                .by_ref()
                .take(mib << 20)
                .map(|n| (n >> 24) as u8 & 7)
                .collect();
            large.push(0, None, Some(&value), weir_types::Headers::NONE);
        }
        let large = large.build(Offset::ZERO, None).unwrap();
        // So small when compressed that the output is far larger than usual.
        let mut even = BatchBuilder::new(Codec::Snappy);
        even.push(0, None, Some(&vec![b'x'; 5 << 20]), weir_types::Headers::NONE);
        for batch in [large, even.build(Offset::ZERO, None).unwrap()] {
            let sent = producer.send("reject", 0, &batch).await.unwrap();
            sent.done().await.unwrap();
        }
        let (letters, _) = read_all(&client, "reject.dead", 0, 64 << 20).await.unwrap();
        let lens: Vec<_> = letters
            .iter()
            .map(|(_, r)| r.value.as_ref().unwrap().len())
            .collect();
        assert_eq!(lens, [1 << 20, 5 << 20, 2 << 20, 5 << 20]);
        client.close().await;
    });
    node.stop().unwrap();
}

#[test]
fn breaker_opens_for_a_looping_module_alone() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .push_module("hostile", "1", &guest("hostile"))
            .await
            .unwrap();
        hostile_topic(&client, "bad", "loop", "dead-letter").await;
        hostile_topic(&client, "good", "well", "dead-letter").await;
        let flood = {
            let client = client.clone();
            tokio::spawn(async move {
                let mut producer = client.producer().await.unwrap();
                for i in 0..60 {
                    let sent = producer.send("bad", 0, &batch([format!("{i}")])).await.unwrap();
                    if let Err(e) = sent.done().await {
                        return e.to_string();
                    }
                }
                String::new()
            })
        };
        let mut producer = client.producer().await.unwrap();
        for i in 0..200 {
            producer
                .send("good", 0, &batch([format!("{i}")]))
                .await
                .unwrap()
                .done()
                .await
                .unwrap();
        }
        let (kept, _) = read_all(&client, "good", 0, 1 << 20).await.unwrap();
        assert_eq!(kept.len(), 200);
        let said = flood.await.unwrap();
        assert!(
            said.contains("halted") && said.contains("in a row failed"),
            "{said}"
        );
        // Nothing was dropped: records before the breaker opened are dead letters.
        let (letters, _) = read_all(&client, "bad.dead", 0, 1 << 20).await.unwrap();
        assert!(!letters.is_empty());
    });
}

#[test]
fn misbehaving_module_loses_priority_until_it_behaves() {
    let dir = tempfile::tempdir().unwrap();
    for (privileged, name) in [(true, "a"), (false, "b")] {
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        let node = if privileged {
            Node::start(&dir, &[]).unwrap()
        } else {
            Node::start_unprivileged(&dir).unwrap()
        };
        block_on(async {
            let client = node.client().await.unwrap();
            client
                .push_module("hostile", "1", &guest("hostile"))
                .await
                .unwrap();
            hostile_topic(&client, "t", "trap-on-bad", "skip").await;
            let mut producer = client.producer().await.unwrap();
            // A thread takes its name at its first run.
            let before = eventually_async("the thread has its name", async || node.nice("pipe-t")).await;
            let mut sent = 0;
            for value in std::iter::once("bad").chain(std::iter::repeat_n("fine", 25)) {
                let batch = batch([value.to_owned()]);
                producer.send("t", 0, &batch).await.unwrap().done().await.unwrap();
                sent += 1;
                if sent == 1 {
                    assert_eq!(node.nice("pipe-t").unwrap(), before.max(10));
                }
            }
            // The answer goes out before the thread looks at itself.
            let expected = format!("the old priority is restored, privileged: {privileged}");
            within(Duration::from_secs(10), &expected, || {
                node.nice("pipe-t").ok() == Some(before)
            });
            let (kept, _) = read_all(&client, "t", 0, 1 << 20).await.unwrap();
            assert_eq!(kept.len(), 25);
        });
    }
}
