//! Revisions of a pipeline: automatic rollback by a guard, and rollback by hand.

use weir_tests::records::send_texts;
use weir_tests::{Node, block_on, cli, eventually_async};

/// A revision outside the bounds of its guard is rolled back; an operator rolls back any other.
#[test]
fn rollback_restores_an_earlier_revision() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let cli = |args: &[&str]| cli::run(&node, args);
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
            send_texts(&client, &values).await;
            // Of no record is there a number under that name.
            client.apply_pipeline(&hot(at, "w", GUARD)).await.unwrap();
            eventually_async("the guard rolls the revision back", async || {
                send_texts(&client, &values).await;
                let rolled = cli(&["pipeline", "history", "hot", "-o", "json"]);
                let is_back = rolled.lines().count() == 3;
                if is_back { Ok(()) } else { Err(rolled) }
            })
            .await;
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

            // By hand, to the bad revision, which then stays: the operator asked for that revision.
            let said = cli(&["pipeline", "rollback", "hot", "--to", "2"]);
            assert!(said.contains("pipeline hot is as it was, revision 4"), "{said}");
            send_texts(&client, &values).await;
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
