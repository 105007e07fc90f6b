//! Shadow runs of a candidate beside the deployed revision.

use std::time::Duration;
use weir_client::{BatchBuilder, Codec, Offset};
use weir_tests::counting::{WINDOWS, caught_up};
use weir_tests::records::send_texts;
use weir_tests::{Node, block_on, cli, guest};

/// A candidate looks at what is stored, beside the one that works; its differences are told, and nothing is written.
#[test]
fn a_shadow_tells_what_would_be_different_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let cli = |args: &[&str]| cli::run(&node, args);
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let threshold = |limit: u32| {
        format!(
            "name = \"hot\"\nat = \"log\"\nsource = \"t\"\noutputs = {{ main = \"counts\" }}\n\
             stages = [{{ module = \"threshold\", config = {{ field = \"v\", limit = {limit} }} }}]\n"
        )
    };
    block_on(async {
        let client = node.client().await.unwrap();
        for topic in ["t", "n", "counts", "echo"] {
            let forever = weir_tests::for_ever();
            client.create_topic(topic, 1, &forever).await.unwrap();
        }
        for name in ["threshold"] {
            let module = weir_tests::module(name);
            client.push_module(name, "0.1.0", &module).await.unwrap();
        }
        client
            .push_module("windowed", "1", &guest("windowed"))
            .await
            .unwrap();
        let values: Vec<String> = (0..100).map(|n| format!("{{\"v\":{n}}}")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        send_texts(&client, &values).await;

        let (one, other) = (
            file("one.toml", &threshold(50)),
            file("other.toml", &threshold(60)),
        );
        let alone = cli(&["pipeline", "shadow", &one]);
        assert!(
            alone.contains("100 records in") && alone.contains("CANDIDATE"),
            "{alone}"
        );
        assert!(!alone.contains("REVISION"), "there is none that works: {alone}");
        client.apply_pipeline(&threshold(50)).await.unwrap();
        caught_up(&client).await;
        let same = cli(&["pipeline", "shadow", &one]);
        assert!(same.contains("no difference"), "{same}");
        let told = cli(&["pipeline", "shadow", &other]);
        assert!(
            told.contains("10 records of which something else is made"),
            "{told}"
        );
        assert!(
            told.contains("t/0 at 51\n  - main: as it came\n  + nothing"),
            "{told}"
        );
        let few = cli(&["pipeline", "shadow", &other, "--from", "58", "-o", "json"]);
        let few: serde_json::Value = serde_json::from_str(&few).unwrap();
        assert_eq!(
            (&few["differences"], &few["candidate"]["records"]),
            (&3.into(), &42.into())
        );

        // What comes meanwhile.
        let (sender, waits) = (
            client.clone(),
            std::thread::spawn({
                let (toml, client) = (threshold(60), client.clone());
                move || block_on(client.shadow_pipeline(&toml, "end", Duration::from_secs(2), |_| {}))
            }),
        );
        while !waits.is_finished() {
            send_texts(&sender, &["{\"v\":55}"]).await;
        }
        let told: serde_json::Value = serde_json::from_slice(&waits.join().unwrap().unwrap()).unwrap();
        let records = told["candidate"]["records"].as_u64().unwrap();
        assert!(
            records > 0 && told["differences"].as_u64().unwrap() >= records - 1,
            "{told}"
        );

        // With state and timers; each side with its own.
        let mut producer = client.producer().await.unwrap();
        let mut builder = BatchBuilder::new(Codec::None);
        for n in 0..500_i64 {
            let number = n.to_string();
            builder.push(n * 3, None, Some(number.as_bytes()), weir_types::Headers::NONE);
        }
        let numbers = builder.build(Offset::ZERO, None).unwrap();
        let sent = producer.send("n", 0, &numbers).await.unwrap();
        sent.done().await.unwrap();
        let windowed = WINDOWS
            .replace("name", "at = \"log\"\nname")
            .replace("source = \"t\"", "source = \"n\"");
        client.apply_pipeline(&windowed).await.unwrap();
        caught_up(&client).await;
        let before = (
            cli(&["pipeline", "state", "windows", "--digest"]),
            cli(&["topic", "list"]),
        );
        let same = cli(&["pipeline", "shadow", &file("windows.toml", &windowed)]);
        assert!(
            same.contains("no difference\n") && same.contains("timers_fired  7"),
            "{same}"
        );
        let after = (
            cli(&["pipeline", "state", "windows", "--digest"]),
            cli(&["topic", "list"]),
        );
        assert_eq!(before, after, "something was written");
        let refused = node
            .cli(&["pipeline", "shadow", &one, "--from", "100000"], "")
            .unwrap();
        assert!(String::from_utf8_lossy(&refused.stderr).contains("beyond the end"));
    });
    node.stop().unwrap();
}
