//! The event time of records: fields, idle partitions and unreadable times.

use weir_tests::counting::{Counting, WINDOWS};
use weir_tests::records::{send_texts, texts};
use weir_tests::{Node, block_on, eventually_async, read_all};

/// Times of a gateway's clock and of a sensor's, as a module gets them.
#[test]
fn event_time_comes_from_a_field_and_advances_when_idle() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        Counting::INLINE_WINDOWS.begin(&client).await;
        let with = "field = \"at\", unit = \"s\", idle_ms = 100, on_bad_time = \"record\"";
        let dated = format!("{WINDOWS}event_time = {{ {with} }}\n");
        client.apply_pipeline(&dated).await.unwrap();
        // No number of its own: rejected, and dated all the same.
        let refused = client
            .apply_pipeline(&format!("{WINDOWS}event_time = {{ unit = \"m\" }}\n"))
            .await
            .unwrap_err()
            .to_string();
        assert!(refused.contains("unit"), "{refused}");
        send_texts(&client, &["7", "14", r#"{"at":0.06}"#]).await;
        // Values that are not JSON have the time of their record, 0; the time in the third value ends their
        // window.
        let counts = async || texts(&client, "counts").await;
        eventually_async("the first window ends", async || !counts().await.is_empty()).await;
        assert_eq!(counts().await, [(50, "50 0 2".to_owned())]);
        // Without further records, the next window ends by itself.
        send_texts(&client, &["8"]).await;
        eventually_async("the second window ends", async || counts().await.len() >= 2).await;
        let (at, said) = counts().await.pop().unwrap();
        assert_eq!(said, format!("{at} 1 1"));
    });
    node.stop().unwrap();
}

/// An unreadable time is reported; no other time replaces it unless the pipeline says so.
#[test]
fn records_without_a_readable_time_are_dead_letters() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        Counting::INLINE_WINDOWS.begin(&client).await;
        let dated = format!("{WINDOWS}event_time = {{ field = \"at\" }}\n");
        client.apply_pipeline(&dated).await.unwrap();
        let good = r#"{"at":"2026-01-31T14:00:10.5+02:00"}"#;
        let bad = [
            r#"{"at":"soon"}"#,
            r#"{"at":1769860810}"#,
            "{}",
            "no json",
            r#"{"at":1769860810000,"at":1769860811000}"#,
        ];
        send_texts(&client, &[bad[0], good, bad[1], bad[2], bad[3], bad[4]]).await;
        let (dead, _) = read_all(&client, "t.dead", 0, 1 << 20).await.unwrap();
        let said: Vec<(String, String)> = dead
            .into_iter()
            .map(|(_, record)| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let error = record.headers.iter().find(|(name, _)| name == "weir.error");
                let error = error.and_then(|(_, value)| value.clone()).unwrap();
                (text(&record.value.unwrap()), text(&error))
            })
            // The module accepts numbers only, and reports another error for the good time.
            .filter(|(value, _): &(String, String)| value != good)
            .collect();
        assert_eq!(
            said.iter().map(|(value, _)| value.as_str()).collect::<Vec<_>>(),
            bad
        );
        for ((_, error), why) in said.iter().zip([
            "`soon` is no time",
            "what unit",
            "nothing at `at`",
            "not JSON",
            "`at` twice",
        ]) {
            assert!(error.contains("its time") && error.contains(why), "{error}");
        }
        let told: serde_json::Value = serde_json::to_value(client.pipelines().await.unwrap()).unwrap();
        assert_eq!(told[0]["bad_times"], 5, "{told}");
    });
    node.stop().unwrap();
}
