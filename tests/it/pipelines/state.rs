//! State and time that go on: what is granted and kept, what fires when, and what the same log gives again.

use weir_tests::counting::{Counting, PIPELINE, judge_records};
use weir_tests::records::send_texts;
use weir_tests::{Node, block_on, cli, guest, read_all};

#[test]
fn state_is_granted_kept_over_a_swap_and_forgotten_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let cli = |args: &[&str]| cli::run(&node, args);
    block_on(async {
        let client = node.client().await.unwrap();
        Counting::INLINE_RECORDS.begin(&client).await;
        let without = PIPELINE.replace(r#", grants = ["state"]"#, "");
        let refused = client.apply_pipeline(&without).await.unwrap_err().to_string();
        assert!(refused.contains(r#"add `"state"` to its `grants`"#), "{refused}");
        let greedy = format!("{PIPELINE}limits = {{ state_bytes = 100663297 }}");
        let refused = client.apply_pipeline(&greedy).await.unwrap_err().to_string();
        assert!(refused.contains("limits.state_bytes"), "{refused}");
        client
            .create_topic("wide", 64, &weir_tests::for_ever())
            .await
            .unwrap();
        let wide = PIPELINE
            .replace("\"t\"", "\"wide\"")
            .replace("\"count\"", "\"wide\"");
        // What it remembers counts once it does, and not by how many partitions there are.
        client.apply_pipeline(&wide).await.unwrap();
        send_texts(&client, &["1", "8", "2"]).await;
        assert_eq!(judge_records(&client, "at first").await, 3);

        // The same module, set differently: it goes on where it was.
        let set = PIPELINE.replace("grants", r#"config = { mark = "x" }, grants"#);
        let file = dir.path().join("set.toml");
        std::fs::write(&file, &set).unwrap();
        let plan = || cli(&["pipeline", "plan", file.to_str().unwrap()]);
        assert_eq!(
            plan(),
            "pipeline count: revision 1 -> 2\n+ stages[1].config.mark = \"x\"\n"
        );
        assert_eq!(plan(), plan(), "a plan changes nothing");
        client.apply_pipeline(&set).await.unwrap();
        send_texts(&client, &["15", "22"]).await;
        assert_eq!(judge_records(&client, "after a swap").await, 5);
        assert_eq!(plan(), "pipeline count: nothing would change\n");

        // Another one must not read what this one wrote.
        client.push_module("other", "1", &guest("hostile")).await.unwrap();
        let planned = client
            .plan_pipeline("name = \"new\"\nsource = \"none\"\nstages = []")
            .await;
        assert!(planned.unwrap_err().to_string().contains("1 to 16 stages"));
        let other = r#"
            name = "count"
            source = "t"
            stages = [{ module = "other", config = { mode = "well" }, grants = ["state", "timers"] }]
        "#;
        let refused = client.apply_pipeline(other).await.unwrap_err().to_string();
        let planned = client.plan_pipeline(other).await.unwrap_err().to_string();
        assert_eq!(planned, refused);
        assert!(
            refused.contains("module `counter`, version 1") && refused.contains("weir pipeline reset count"),
            "{refused}"
        );

        let said = cli(&["pipeline", "describe", "count", "-o", "json"]);
        assert!(said.contains(r#""state_rows":3"#), "{said}");
        let said = cli(&["pipeline", "reset", "count"]);
        assert!(said.contains("has forgotten everything, and is paused"), "{said}");
        // Now another may take its place, and another's place be taken.
        client.apply_pipeline(other).await.unwrap();
        client.apply_pipeline(PIPELINE).await.unwrap();
        cli(&["pipeline", "resume", "count"]);
        send_texts(&client, &["1"]).await;
        let (counts, _) = read_all(&client, "counts", 0, 1 << 20).await.unwrap();
        assert_eq!(counts.last().unwrap().1.value.as_deref(), Some(&b"1 1 1 1"[..]));

        cli(&["pipeline", "remove", "count"]);
        client.apply_pipeline(PIPELINE).await.unwrap();
        send_texts(&client, &["8"]).await;
        let (counts, _) = read_all(&client, "counts", 0, 1 << 20).await.unwrap();
        assert_eq!(counts.last().unwrap().1.value.as_deref(), Some(&b"8 1 1 8"[..]));
    });
    node.stop().unwrap();
}
