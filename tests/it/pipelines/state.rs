//! State of modules: grants and limits, changes of the configuration, reset and removal.

use weir_client::Client;
use weir_tests::counting::{Counting, PIPELINE, judge_records};
use weir_tests::records::{send_texts, texts};
use weir_tests::{Node, block_on, cli, for_ever, guest};

/// Another module than the counter, under the counter's pipeline.
const OTHER: &str = r#"
    name = "count"
    source = "t"
    stages = [{ module = "other", config = { mode = "well" }, grants = ["state", "timers"] }]
"#;

/// Runs `test` on a node whose in-line pipeline `count` counts records.
fn with_counter(test: impl AsyncFnOnce(&Node, &Client)) {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        Counting::INLINE_RECORDS.begin(&client).await;
        test(&node, &client).await;
    });
    node.stop().unwrap();
}

/// As [`with_counter`], after three records; the module `other` is there, too.
fn with_state(test: impl AsyncFnOnce(&Node, &Client)) {
    with_counter(async |node, client| {
        client.push_module("other", "1", &guest("hostile")).await.unwrap();
        send_texts(client, &["1", "8", "2"]).await;
        assert_eq!(judge_records(client, "at first").await, 3);
        test(node, client).await;
    });
}

/// Returns the newest count.
async fn last_count(client: &Client) -> String {
    texts(client, "counts").await.pop().unwrap().1
}

async fn refused(client: &Client, pipeline: &str) -> String {
    client.apply_pipeline(pipeline).await.unwrap_err().to_string()
}

#[test]
fn apply_refuses_state_without_a_grant() {
    with_counter(async |_, client| {
        let without = PIPELINE.replace(r#", grants = ["state"]"#, "");
        let refused = refused(client, &without).await;
        assert!(refused.contains(r#"add `"state"` to its `grants`"#), "{refused}");
    });
}

#[test]
fn apply_refuses_more_state_than_a_node_allows() {
    with_counter(async |_, client| {
        let greedy = format!("{PIPELINE}limits = {{ state_bytes = 100663297 }}");
        let refused = refused(client, &greedy).await;
        assert!(refused.contains("limits.state_bytes"), "{refused}");
    });
}

#[test]
fn state_limit_counts_used_bytes_and_not_partitions() {
    with_counter(async |_, client| {
        client.create_topic("wide", 64, &for_ever()).await.unwrap();
        let wide = PIPELINE
            .replace("\"t\"", "\"wide\"")
            .replace("\"count\"", "\"wide\"");
        client.apply_pipeline(&wide).await.unwrap();
        send_texts(client, &["1", "8", "2"]).await;
        assert_eq!(judge_records(client, "beside the wide topic").await, 3);
    });
}

#[test]
fn state_survives_a_change_of_the_configuration() {
    with_state(async |_, client| {
        let set = PIPELINE.replace("grants", r#"config = { mark = "x" }, grants"#);
        client.apply_pipeline(&set).await.unwrap();
        send_texts(client, &["15", "22"]).await;
        assert_eq!(judge_records(client, "after the change").await, 5);
    });
}

#[test]
fn plan_shows_the_change_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("set.toml");
    with_state(async |node, client| {
        let set = PIPELINE.replace("grants", r#"config = { mark = "x" }, grants"#);
        std::fs::write(&file, &set).unwrap();
        let plan = || cli::run(node, &["pipeline", "plan", file.to_str().unwrap()]);
        assert_eq!(
            plan(),
            "pipeline count: revision 1 -> 2\n+ stages[1].config.mark = \"x\"\n"
        );
        assert_eq!(plan(), plan(), "a plan changes nothing");
        client.apply_pipeline(&set).await.unwrap();
        assert_eq!(plan(), "pipeline count: nothing would change\n");
        let stageless = "name = \"new\"\nsource = \"none\"\nstages = []";
        let refused = client.plan_pipeline(stageless).await.unwrap_err().to_string();
        assert!(refused.contains("1 to 16 stages"), "{refused}");
    });
}

#[test]
fn apply_refuses_another_module_on_existing_state() {
    with_state(async |_, client| {
        let refused = refused(client, OTHER).await;
        let planned = client.plan_pipeline(OTHER).await.unwrap_err().to_string();
        assert_eq!(planned, refused);
        assert!(
            refused.contains("module `counter`, version 1") && refused.contains("weir pipeline reset count"),
            "{refused}"
        );
    });
}

#[test]
fn reset_forgets_the_state_and_admits_another_module() {
    with_state(async |node, client| {
        let described = cli::run(node, &["pipeline", "describe", "count", "-o", "json"]);
        assert!(described.contains(r#""state_rows":3"#), "{described}");
        let said = cli::run(node, &["pipeline", "reset", "count"]);
        assert!(said.contains("has forgotten everything, and is paused"), "{said}");
        client.apply_pipeline(OTHER).await.unwrap();
        client.apply_pipeline(PIPELINE).await.unwrap();
        cli::run(node, &["pipeline", "resume", "count"]);
        send_texts(client, &["1"]).await;
        assert_eq!(last_count(client).await, "1 1 1 1");
    });
}

#[test]
fn remove_forgets_the_state() {
    with_state(async |node, client| {
        cli::run(node, &["pipeline", "remove", "count"]);
        client.apply_pipeline(PIPELINE).await.unwrap();
        send_texts(client, &["8"]).await;
        assert_eq!(last_count(client).await, "8 1 1 8");
    });
}
