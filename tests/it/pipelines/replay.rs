//! The output of a log pipeline depends on its log alone: a replay gives the same output.

use std::collections::BTreeMap;
use weir_client::{BatchBuilder, Client, Codec, Offset};
use weir_tests::counting::caught_up;
use weir_tests::{Node, block_on, cli, eventually_async, for_ever, guest, read_all};

/// Records of each partition.
const BATCHES: i64 = 60;

fn pipeline(name: &str, threads: u32) -> String {
    format!(
        "name = \"{name}\"\nat = \"log\"\nsource = \"s\"\nthreads = {threads}\n\
         outputs = {{ counts = \"counts-{name}\", echo = \"echo-{name}\" }}\n\
         stages = [{{ module = \"windowed\", grants = [\"state\", \"timers\"] }}]\n"
    )
}

/// Output by partition of the topic and of the source: several partitions of the source may arrive in any
/// order.
type Results = BTreeMap<(u32, u64), Vec<(i64, String)>>;

/// A node with records in four partitions of topic `s`, and with pipelines that read them.
struct Replay {
    node: Node,
    client: Client,
    records: usize,
    _dir: tempfile::TempDir,
}

impl Replay {
    /// Starts the pipelines `before` (with their threads), sends the records, and then starts the pipelines
    /// `after`.
    async fn new(before: &[(&str, u32)], after: &[(&str, u32)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::start(dir.path(), &[]).unwrap();
        let client = node.client().await.unwrap();
        client
            .push_module("windowed", "1", &guest("windowed"))
            .await
            .unwrap();
        let names = before.iter().chain(after).map(|(name, _)| *name);
        let outputs = names.flat_map(|name| [format!("counts-{name}"), format!("echo-{name}")]);
        for topic in outputs.chain(["s".to_owned()]) {
            client.create_topic(&topic, 4, &for_ever()).await.unwrap();
        }
        for (name, threads) in before {
            client.apply_pipeline(&pipeline(name, *threads)).await.unwrap();
        }
        let records = send_records(&client).await;
        caught_up(&client).await;
        for (name, threads) in after {
            client.apply_pipeline(&pipeline(name, *threads)).await.unwrap();
        }
        caught_up(&client).await;
        let replay = Self {
            node,
            client,
            records,
            _dir: dir,
        };
        // The last timers of the node's clock are due in a moment.
        for (name, _) in before.iter().chain(after) {
            let fired = async || sum(&replay.results("echo", name).await) >= replay.records;
            eventually_async("all timers have fired", fired).await;
        }
        replay
    }

    async fn results(&self, topic: &str, name: &str) -> Results {
        let (mut results, topic) = (Results::new(), format!("{topic}-{name}"));
        for partition in 0..4 {
            let (records, _) = read_all(&self.client, &topic, partition, 1 << 20).await.unwrap();
            for (_, record) in records {
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                let words: Vec<u64> = value.split(' ').map(|w| w.parse().unwrap()).collect();
                let source = words.get(1).copied().unwrap_or(words[0] % 7);
                let of = results.entry((partition, source)).or_default();
                of.push((record.timestamp, value));
            }
        }
        results
    }

    fn cli(&self, args: &[&str]) -> String {
        cli::run(&self.node, args)
    }

    fn digest(&self, name: &str) -> String {
        self.cli(&["pipeline", "state", name, "--digest"])
    }
}

fn sum(results: &Results) -> usize {
    results.values().map(Vec::len).sum()
}

/// Sends records whose times go on, with stragglers, on each partition at a pace of its own; returns their
/// number.
async fn send_records(client: &Client) -> usize {
    let mut producer = client.producer().await.unwrap();
    let mut count = 0_usize;
    for n in 0..BATCHES {
        for partition in 0..4_u32 {
            let mut builder = BatchBuilder::new(Codec::None);
            for k in 0..=(n % 7) {
                let at = 1_000 + n * 17 * i64::from(partition + 1) - (k % 3) * 30;
                // Each result names its partition: the value modulo 7.
                let value = (count as u64 * 7 + u64::from(partition)).to_string();
                builder.push(at, None, Some(value.as_bytes()), weir_types::Headers::NONE);
                count += 1;
            }
            let batch = builder.build(Offset::ZERO, None).unwrap();
            let sent = producer.send("s", partition, &batch).await.unwrap();
            sent.done().await.unwrap();
        }
    }
    count
}

#[test]
fn output_and_state_do_not_depend_on_threads_or_pace() {
    block_on(async {
        let replay = Replay::new(&[("live", 3)], &[("one", 1), ("four", 4)]).await;
        let one = replay.results("counts", "one").await;
        assert!(sum(&one) > 200, "{}", sum(&one));
        assert!(
            one == replay.results("counts", "four").await,
            "a single thread and four"
        );
        assert!(
            one == replay.results("counts", "live").await,
            "while records arrive and afterwards"
        );
        assert!(replay.results("echo", "one").await == replay.results("echo", "four").await);
        assert_eq!(replay.digest("one").trim().len(), 64);
        assert_eq!(replay.digest("one"), replay.digest("four"));
    });
}

#[test]
fn state_shows_rows_and_timers() {
    block_on(async {
        let replay = Replay::new(&[], &[("one", 1)]).await;
        let rows = replay.cli(&["pipeline", "state", "one"]);
        assert!(
            rows.contains("due at") && rows.contains("of event time"),
            "{rows}"
        );
        let none = replay.cli(&["pipeline", "state", "one", "--partition", "9"]);
        assert!(none.is_empty(), "{none}");
    });
}

#[test]
fn rewind_repeats_the_output_and_ends_in_the_same_state() {
    block_on(async {
        let replay = Replay::new(&[], &[("one", 1)]).await;
        let first = replay.results("counts", "one").await;
        let digest = replay.digest("one");
        replay.cli(&["pipeline", "rewind", "one", "--to", "start"]);
        caught_up(&replay.client).await;
        let again = eventually_async("the output comes twice", async || {
            let again = replay.results("counts", "one").await;
            match sum(&again) {
                twice if twice == 2 * sum(&first) && replay.digest("one") == digest => Ok(again),
                found => Err(format!("{found} of {}", 2 * sum(&first))),
            }
        })
        .await;
        for (of, first) in &first {
            assert!(again[of][first.len()..] == first[..], "{of:?}");
        }
        let refused = cli::refused(&replay.node, &["pipeline", "rewind", "one", "--to", "100000"]);
        assert!(refused.contains("offset 100000 is beyond the end"), "{refused}");
    });
}
