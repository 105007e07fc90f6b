//! Canaries on some partitions: promotion and rollback.

use std::path::Path;
use weir_tests::counting::{PIPELINE, caught_up};
use weir_tests::records::{text_batch, texts};
use weir_tests::{Node, block_on, cli, eventually_async, guest};

#[test]
fn canary_is_promoted_or_rolled_back() {
    for at in ["ingest", "log"] {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::start(dir.path(), &[]).unwrap();
        canaries(&node, dir.path(), at);
        node.stop().unwrap();
    }
}

fn canaries(node: &Node, dir: &Path, at: &str) {
    let cli = |args: &[&str]| cli::run(node, args);
    let file = dir.join("count.toml");
    let written = |pipeline: &str| {
        std::fs::write(&file, format!("at = \"{at}\"\n{pipeline}")).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let refused = |args: &[&str]| {
        let output = node.cli(args, "").unwrap();
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .push_module("counter", "1", &guest("counter"))
            .await
            .unwrap();
        client
            .create_topic("t", 4, &weir_tests::for_ever())
            .await
            .unwrap();
        for topic in ["counts", "tried"] {
            client
                .create_topic(topic, 1, &weir_tests::for_ever())
                .await
                .unwrap();
        }
        let mut producer = client.producer().await.unwrap();
        // Seven on each partition, each of the number 0.
        let mut round = async || {
            for partition in 0..4 {
                let sent = producer
                    .send("t", partition, &text_batch(&["0"; 7]))
                    .await
                    .unwrap();
                sent.done().await.unwrap();
            }
            if at == "log" {
                caught_up(&client).await;
            }
        };
        // How many there have been on its partition, of those that came to a topic, sorted.
        let counts = async |topic: &str| {
            let count = |text: &String| text.split(' ').nth(2).unwrap().parse::<u64>().unwrap();
            let mut counts: Vec<u64> = texts(&client, topic)
                .await
                .iter()
                .map(|(_, text)| count(text))
                .collect();
            counts.sort_unstable();
            counts
        };
        let times = |n: u64, partitions: usize| -> Vec<u64> {
            (1..=n).flat_map(|n| std::iter::repeat_n(n, partitions)).collect()
        };
        client
            .apply_pipeline(&std::fs::read_to_string(written(PIPELINE)).unwrap())
            .await
            .unwrap();
        round().await;
        assert_eq!(counts("counts").await, times(7, 4));
        let tried = PIPELINE.replace(r#""counts" }"#, r#""tried" }"#);
        for (partitions, why) in [("4", "there is no partition 4"), ("0,1,2,3", "not all")] {
            let told = refused(&["pipeline", "canary", &written(&tried), "--partitions", partitions]);
            assert!(told.contains(why), "{told}");
        }
        assert!(refused(&["pipeline", "promote", "count"]).contains("there is no canary"));
        cli(&["pipeline", "canary", &written(&tried), "--partitions", "1,3"]);
        assert!(
            refused(&["pipeline", "canary", &file.to_string_lossy(), "--partitions", "1"])
                .contains("at work already")
        );
        round().await;
        let listed = cli(&["pipeline", "list"]);
        assert!(listed.contains("count (tried on 1, 3)"), "{listed}");
        // The canary continues with the state of its partitions.
        let second: Vec<u64> = (8..=14).flat_map(|n| [n, n]).collect();
        assert_eq!(counts("tried").await, second);
        assert_eq!(counts("counts").await, [times(7, 4), second].concat());
        cli(&["pipeline", "promote", "count"]);
        round().await;
        assert_eq!(counts("counts").await.len(), 28 + 14);
        let third: Vec<u64> = (15..=21).flat_map(|n| [n; 4]).collect();
        assert_eq!(counts("tried").await[14..], third);
        // A canary outside the bounds of its guard.
        let bad = format!("{PIPELINE}\n[guard]\nmin_records = 1\noutput = [5.0, 6.0]\n");
        cli(&["pipeline", "canary", &written(&bad), "--partitions", "0"]);
        round().await;
        let history = eventually_async("the canary is rolled back", async || {
            let history = cli(&["pipeline", "history", "count"]);
            let is_back = history.contains("is taken back");
            if is_back { Ok(history) } else { Err(history) }
        })
        .await;
        assert!(history.contains("tried on partitions 0"), "{history}");
        assert!(
            history.contains("promoted, after it was tried as revision 2"),
            "{history}"
        );
        let before = counts("counts").await.len();
        round().await;
        assert_eq!(
            counts("counts").await.len(),
            before,
            "what was promoted works on all again"
        );
        // And a canary that is rolled back by hand.
        cli(&["pipeline", "canary", &written(PIPELINE), "--partitions", "2"]);
        cli(&["pipeline", "rollback", "count"]);
        round().await;
        assert_eq!(counts("counts").await.len(), before);
        let all = counts("tried").await.len() + before;
        assert_eq!(all, 6 * 28, "each record counted once");
        // A second rollback restores the last revision that ran on all partitions, not the canary.
        cli(&["pipeline", "rollback", "count"]);
        let history = cli(&["pipeline", "history", "count"]);
        assert!(history.contains("rolled back to revision 1"), "{history}");
    });
}
