//! One revision after another: state taken over, a way back, and trying one out.

use super::*;
use std::path::Path;

/// A module that keeps its state in another form takes over what the version before it wrote, all at once, or nothing has happened.
#[test]
fn a_later_version_takes_over_what_the_one_before_it_remembers() {
    for counting in [IN_LINE[0], BEHIND[0]] {
        takes_over(counting);
    }
}

fn takes_over(counting: Counting) {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let at = if counting.behind { "at = \"log\"\n" } else { "" };
    let pipeline = |more: &str| format!("{at}{}", PIPELINE.replace("grants", &format!("{more}grants")));
    block_on(async {
        let client = node.client().await.unwrap();
        counting.begin(&client).await;
        send(&client, &["1", "8", "2"]).await;
        counting.judge(&client, "by the first version").await;
        let digest = || {
            let output = node.cli(&["pipeline", "state", "count", "--digest"], "").unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let first = digest();
        client
            .push_module("counter", "2", &guest("recounter"))
            .await
            .unwrap();

        for (mode, why) in [
            ("refuse", "it was told to refuse"),
            ("loop", "deadline"),
            ("trap", "trapped"),
            ("grow", "bytes of memory"),
            (
                "hoard",
                "what its pipeline remembers, on all partitions, has reached 65536",
            ),
        ] {
            let config = format!("config = {{ mode = \"{mode}\" }}, ");
            let tight = format!("{}\n[limits]\nstate_bytes = 65536\n", pipeline(&config));
            let refused = client.apply_pipeline(&tight).await;
            let refused = refused.unwrap_err().to_string();
            let told = "does not take over what version 1 of it remembers of partition 0: ";
            let at = refused.find(told).unwrap_or_else(|| panic!("{mode}: {refused}"));
            assert!(refused[at + told.len()..].contains(why), "{mode}: {refused}");
            assert_eq!(digest(), first, "something is left of what was refused");
        }
        send(&client, &["15"]).await;
        counting.judge(&client, "after what was refused").await;

        // While records come.
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, stops) = (node.client().await.unwrap(), Arc::clone(&stop));
        let sending = tokio::spawn(async move {
            let mut producer = sender.producer().await.unwrap();
            let mut sent = 0_u64;
            while !stops.load(Ordering::Relaxed) {
                let batch = batch(&[&sent.to_string()]);
                match producer.send("t", 0, &batch).await.unwrap().done().await {
                    Ok(_) => sent += 1,
                    // It stands still for a moment.
                    Err(e) => assert!(e.to_string().contains("being changed"), "{e}"),
                }
            }
            sent
        });
        let applied = client.apply_pipeline(&pipeline("")).await.unwrap();
        let applied: serde_json::Value = serde_json::from_slice(&applied).unwrap();
        assert_eq!(applied["revision"], 2);
        stop.store(true, Ordering::Relaxed);
        assert!(sending.await.unwrap() > 0);
        send(&client, &["22", "3"]).await;
        let judged = counting.judge(&client, "by the second version").await;
        assert_ne!(digest(), first);

        // Not the other way round.
        let back = pipeline("").replace("\"counter\"", "\"counter@1\"");
        let refused = client.apply_pipeline(&back).await.unwrap_err().to_string();
        assert!(
            refused.contains("version 2 of its state, and would be"),
            "{refused}"
        );
        send(&client, &["4"]).await;
        assert_eq!(counting.judge(&client, "still by the second").await, judged + 1);
    });
    node.stop().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        send(&client, &["5"]).await;
        counting.judge(&client, "after a restart").await;
    });
    node.stop().unwrap();
}

/// A revision that leaves its bounds goes by itself; one that an operator does not like goes when told.
#[test]
fn what_a_pipeline_was_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let cli = |args: &[&str]| said(&node, args);
    let hot = |at: &str, field: &str, guard: &str| {
        format!(
            "name = \"hot\"\nsource = \"t\"\noutputs = {{ hot = \"counts\" }}\n{at}\n{guard}\n\
             stages = [{{ module = \"threshold\", config = {{ field = \"{field}\", limit = 50, then = \"hot\" }} }}]\n"
        )
    };
    const GUARD: &str = "guard = { failed_max = 0.1, min_records = 20 }";
    block_on(async {
        let client = node.client().await.unwrap();
        for topic in ["t", "counts", "t.dead"] {
            let forever = weir_tests::for_ever();
            client.create_topic(topic, 1, &forever).await.unwrap();
        }
        let module = weir_tests::module("threshold");
        client.push_module("threshold", "0.1.0", &module).await.unwrap();
        let values: Vec<String> = (0..100).map(|n| format!("{{\"v\":{n}}}")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        for at in ["", "at = \"log\""] {
            client.apply_pipeline(&hot(at, "v", GUARD)).await.unwrap();
            send(&client, &values).await;
            // Of no record is there a number under that name.
            client.apply_pipeline(&hot(at, "w", GUARD)).await.unwrap();
            let begun = Instant::now();
            loop {
                send(&client, &values).await;
                let rolled = cli(&["pipeline", "history", "hot", "-o", "json"]);
                if rolled.lines().count() == 3 {
                    break;
                }
                assert!(begun.elapsed() < DEADLINE, "{rolled}");
            }
            let history = cli(&["pipeline", "history", "hot"]);
            assert!(
                history.contains("rolled back to revision 1: 100.0 % of")
                    && history.contains("at most 10.0 % may"),
                "{history}"
            );
            assert!(
                history.contains("guard") && history.contains("User:ANONYMOUS"),
                "{history}"
            );
            let now = cli(&["pipeline", "describe", "hot", "-o", "json"]);
            let now: serde_json::Value = serde_json::from_str(&now).unwrap();
            assert_eq!(now["revision"], 3);
            assert_eq!(now["spec"]["stages"][0]["config"]["field"], "v");
            assert_eq!(
                now["state"]["state"].as_str().or(now["state"].as_str()),
                Some("running")
            );

            // By hand, to what is no better, which then stays: it was asked for.
            let said = cli(&["pipeline", "rollback", "hot", "--to", "2"]);
            assert!(said.contains("pipeline hot is as it was, revision 4"), "{said}");
            send(&client, &values).await;
            let said = cli(&["pipeline", "rollback", "hot"]);
            assert!(said.contains("revision 5"), "{said}");
            let history = cli(&["pipeline", "history", "hot", "-o", "json"]);
            let last: serde_json::Value = serde_json::from_str(history.lines().next().unwrap()).unwrap();
            assert_eq!(last["why"], "rolled back to revision 3");
            let refused = node
                .cli(&["pipeline", "rollback", "hot", "--to", "77"], "")
                .unwrap();
            let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(refused.contains("no revision 77 to go back to"), "{refused}");
            cli(&["pipeline", "remove", "hot"]);
        }
        client.apply_pipeline(&hot("", "v", "")).await.unwrap();
        assert_eq!(
            cli(&["pipeline", "history", "hot", "-o", "json"]).lines().count(),
            1
        );
    });
    node.stop().unwrap();
}

#[test]
fn a_canary_works_on_its_partitions_until_it_is_promoted_or_leaves_its_bounds() {
    for at in ["ingest", "log"] {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::start(dir.path(), &[]).unwrap();
        canaries(&node, dir.path(), at);
        node.stop().unwrap();
    }
}

fn canaries(node: &Node, dir: &Path, at: &str) {
    let cli = |args: &[&str]| said(node, args);
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
                let sent = producer.send("t", partition, &batch(&["0"; 7])).await.unwrap();
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
        // Each goes on with what was remembered.
        let second: Vec<u64> = (8..=14).flat_map(|n| [n, n]).collect();
        assert_eq!(counts("tried").await, second);
        assert_eq!(counts("counts").await, [times(7, 4), second].concat());
        cli(&["pipeline", "promote", "count"]);
        round().await;
        assert_eq!(counts("counts").await.len(), 28 + 14);
        let third: Vec<u64> = (15..=21).flat_map(|n| [n; 4]).collect();
        assert_eq!(counts("tried").await[14..], third);
        // One that does not do what it says it would.
        let bad = format!("{PIPELINE}\n[guard]\nmin_records = 1\noutput = [5.0, 6.0]\n");
        cli(&["pipeline", "canary", &written(&bad), "--partitions", "0"]);
        round().await;
        let begun = Instant::now();
        let history = loop {
            let history = cli(&["pipeline", "history", "count"]);
            if history.contains("is taken back") {
                break history;
            }
            assert!(begun.elapsed() < DEADLINE, "{history}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
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
        // And one is taken back by hand.
        cli(&["pipeline", "canary", &written(PIPELINE), "--partitions", "2"]);
        cli(&["pipeline", "rollback", "count"]);
        round().await;
        assert_eq!(counts("counts").await.len(), before);
        let all = counts("tried").await.len() + before;
        assert_eq!(all, 6 * 28, "each record counted once");
        // Back once more: to what worked on all before, not to what was only tried.
        cli(&["pipeline", "rollback", "count"]);
        let history = cli(&["pipeline", "history", "count"]);
        assert!(history.contains("rolled back to revision 1"), "{history}");
    });
}
