//! State migration between versions of a module.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use weir_tests::counting::{Counting, PIPELINE};
use weir_tests::records::{send_texts, text_batch};
use weir_tests::{Node, block_on, guest};

/// A module with another form of state migrates the state of the version before, atomically: all rows or
/// none.
#[test]
fn migration_takes_over_the_state_or_changes_nothing() {
    for counting in [Counting::INLINE_RECORDS, Counting::LOG_RECORDS] {
        takes_over(counting);
    }
}

fn takes_over(counting: Counting) {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let at = counting.header();
    let pipeline = |more: &str| format!("{at}{}", PIPELINE.replace("grants", &format!("{more}grants")));
    block_on(async {
        let client = node.client().await.unwrap();
        counting.begin(&client).await;
        send_texts(&client, &["1", "8", "2"]).await;
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
                "the state of its pipeline, on all partitions, has reached 65536",
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
        send_texts(&client, &["15"]).await;
        counting.judge(&client, "after what was refused").await;

        // While records come.
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, stops) = (node.client().await.unwrap(), Arc::clone(&stop));
        let sending = tokio::spawn(async move {
            let mut producer = sender.producer().await.unwrap();
            let mut sent = 0_u64;
            while !stops.load(Ordering::Relaxed) {
                let batch = text_batch(&[&sent.to_string()]);
                match producer.send("t", 0, &batch).await.unwrap().done().await {
                    Ok(_) => sent += 1,
                    // The pipeline stands still for a moment.
                    Err(e) => assert!(e.to_string().contains("being changed"), "{e}"),
                }
            }
            sent
        });
        let applied = client.apply_pipeline(&pipeline("")).await.unwrap();
        assert_eq!(applied.revision, 2);
        stop.store(true, Ordering::Relaxed);
        assert!(sending.await.unwrap() > 0);
        send_texts(&client, &["22", "3"]).await;
        let judged = counting.judge(&client, "by the second version").await;
        assert_ne!(digest(), first);

        // Not the other way round.
        let back = pipeline("").replace("\"counter\"", "\"counter@1\"");
        let refused = client.apply_pipeline(&back).await.unwrap_err().to_string();
        assert!(
            refused.contains("version 2 of its state, and would be"),
            "{refused}"
        );
        send_texts(&client, &["4"]).await;
        assert_eq!(counting.judge(&client, "still by the second").await, judged + 1);
    });
    node.stop().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        send_texts(&client, &["5"]).await;
        counting.judge(&client, "after a restart").await;
    });
    node.stop().unwrap();
}
