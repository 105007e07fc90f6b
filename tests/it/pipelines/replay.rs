//! The output of a log pipeline depends on its log alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use weir_client::{BatchBuilder, Codec, Offset};
use weir_tests::counting::caught_up;
use weir_tests::{DEADLINE, Node, block_on, cli, guest, read_all};

/// Whatever a pipeline behind the log makes of a topic, it makes again: on as many threads as may be, and from its start as well
/// as bit by bit.
#[test]
fn the_same_log_read_again_gives_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let cli = |args: &[&str]| cli::run(&node, args);
    let pipeline = |name: &str, more: &str| {
        format!(
            "name = \"{name}\"\nat = \"log\"\nsource = \"s\"\n{more}\n\
             outputs = {{ counts = \"counts-{name}\", echo = \"echo-{name}\" }}\n\
             stages = [{{ module = \"windowed\", grants = [\"state\", \"timers\"] }}]\n"
        )
    };
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .push_module("windowed", "1", &guest("windowed"))
            .await
            .unwrap();
        let topics = ["s"].map(str::to_owned).into_iter().chain(
            ["live", "one", "four"]
                .iter()
                .flat_map(|name| [format!("counts-{name}"), format!("echo-{name}")]),
        );
        for topic in topics {
            client
                .create_topic(&topic, 4, &weir_tests::for_ever())
                .await
                .unwrap();
        }
        client
            .apply_pipeline(&pipeline("live", "threads = 3"))
            .await
            .unwrap();
        // Times that go on, with stragglers, on each partition at a pace of its own.
        let mut producer = client.producer().await.unwrap();
        let mut count = 0_usize;
        for n in 0..60_i64 {
            for partition in 0..4_u32 {
                let mut builder = BatchBuilder::new(Codec::None);
                for k in 0..=(n % 7) {
                    let at = 1_000 + n * 17 * i64::from(partition + 1) - (k % 3) * 30;
                    // So that each result tells which partition it is of.
                    let value = (count as u64 * 7 + u64::from(partition)).to_string();
                    builder.push(at, None, Some(value.as_bytes()), weir_types::Headers::NONE);
                    count += 1;
                }
                let batch = builder.build(Offset::ZERO, None).unwrap();
                producer
                    .send("s", partition, &batch)
                    .await
                    .unwrap()
                    .done()
                    .await
                    .unwrap();
            }
        }
        caught_up(&client).await;
        client
            .apply_pipeline(&pipeline("one", "threads = 1"))
            .await
            .unwrap();
        client
            .apply_pipeline(&pipeline("four", "threads = 4"))
            .await
            .unwrap();
        caught_up(&client).await;
        // Values and times in order, of each partition of the topic and of its source: those of several of the source come in any
        // order.
        let said = async |topic: &str, name: &str| {
            let (mut said, topic) = (BTreeMap::<_, Vec<_>>::new(), format!("{topic}-{name}"));
            for partition in 0..4 {
                for (_, record) in read_all(&client, &topic, partition, 1 << 20).await.unwrap().0 {
                    let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                    let words: Vec<u64> = value.split(' ').map(|w| w.parse().unwrap()).collect();
                    let source = words.get(1).copied().unwrap_or(words[0] % 7);
                    let of = said.entry((partition, source)).or_default();
                    of.push((record.timestamp, value));
                }
            }
            said
        };
        let sum = |said: &BTreeMap<_, Vec<_>>| said.values().map(Vec::len).sum::<usize>();
        // The last timers of the node's clock are due in a moment.
        let begun = Instant::now();
        for name in ["live", "one", "four"] {
            while sum(&said("echo", name).await) < count {
                assert!(begun.elapsed() < DEADLINE);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let one = said("counts", "one").await;
        assert!(sum(&one) > 200, "{}", sum(&one));
        assert!(one == said("counts", "four").await, "one thread and four");
        assert!(one == said("counts", "live").await, "as it came, and all at once");
        assert!(said("echo", "one").await == said("echo", "four").await);
        let digest = |name: &str| cli(&["pipeline", "state", name, "--digest"]);
        let (one_digest, four_digest) = (digest("one"), digest("four"));
        assert_eq!(one_digest.trim().len(), 64);
        assert_eq!(one_digest, four_digest);
        let rows = cli(&["pipeline", "state", "one"]);
        assert!(
            rows.contains("due at") && rows.contains("of event time"),
            "{rows}"
        );
        assert!(cli(&["pipeline", "state", "one", "--partition", "9"]).is_empty());

        // Again, by the same one.
        cli(&["pipeline", "rewind", "one", "--to", "start"]);
        caught_up(&client).await;
        let begun = Instant::now();
        let again = loop {
            let said = said("counts", "one").await;
            if sum(&said) == 2 * sum(&one) && digest("one") == one_digest {
                break said;
            }
            assert!(begun.elapsed() < DEADLINE, "{} of {}", sum(&said), 2 * sum(&one));
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        for (of, first) in &one {
            assert!(again[of][first.len()..] == first[..], "{of:?}");
        }
        let refused = node
            .cli(&["pipeline", "rewind", "one", "--to", "100000"], "")
            .unwrap();
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(error.contains("offset 100000 is beyond the end"), "{error}");
    });
    node.stop().unwrap();
}
