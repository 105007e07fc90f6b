//! Shadow runs of a candidate beside the deployed revision: differences are reported, and nothing is written.

use std::path::PathBuf;
use std::time::Duration;
use weir_client::{BatchBuilder, Client, Codec, Offset};
use weir_tests::counting::{WINDOWS, caught_up};
use weir_tests::records::send_texts;
use weir_tests::{Node, block_on, cli, for_ever, guest, module};

/// Keeps readings above `limit`.
fn threshold(limit: u32) -> String {
    format!(
        "name = \"hot\"\nat = \"log\"\nsource = \"t\"\noutputs = {{ main = \"counts\" }}\n\
         stages = [{{ module = \"threshold\", config = {{ field = \"v\", limit = {limit} }} }}]\n"
    )
}

/// A node with the readings 0 to 99 in topic `t`.
struct Shadow {
    node: Node,
    client: Client,
    dir: tempfile::TempDir,
}

impl Shadow {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::start(dir.path(), &[]).unwrap();
        let client = node.client().await.unwrap();
        for topic in ["t", "n", "counts", "echo"] {
            client.create_topic(topic, 1, &for_ever()).await.unwrap();
        }
        let threshold = module("threshold");
        client
            .push_module("threshold", "0.1.0", &threshold)
            .await
            .unwrap();
        let values: Vec<String> = (0..100).map(|n| format!("{{\"v\":{n}}}")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        send_texts(&client, &values).await;
        Self { node, client, dir }
    }

    /// As [`Shadow::new`], with a deployed pipeline of limit 50.
    async fn deployed() -> Self {
        let shadow = Self::new().await;
        shadow.client.apply_pipeline(&threshold(50)).await.unwrap();
        caught_up(&shadow.client).await;
        shadow
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join("candidate.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Runs `weir pipeline shadow` of a candidate.
    fn run(&self, candidate: &str, args: &[&str]) -> std::process::Output {
        let file = self.file(candidate);
        let shadow = ["pipeline", "shadow", file.to_str().unwrap()];
        self.node.cli(&[&shadow, args].concat(), "").unwrap()
    }
}

#[test]
fn shadow_runs_without_a_deployed_revision() {
    block_on(async {
        let shadow = Shadow::new().await;
        let alone = cli::text(&shadow.run(&threshold(50), &[]));
        assert!(
            alone.contains("100 records in") && alone.contains("CANDIDATE"),
            "{alone}"
        );
        assert!(!alone.contains("REVISION"), "no revision is deployed: {alone}");
    });
}

#[test]
fn shadow_reports_the_records_that_differ() {
    block_on(async {
        let shadow = Shadow::deployed().await;
        let same = cli::text(&shadow.run(&threshold(50), &[]));
        assert!(same.contains("no difference"), "{same}");
        let told = cli::text(&shadow.run(&threshold(60), &[]));
        assert!(
            told.contains("10 records of which something else is made"),
            "{told}"
        );
        assert!(
            told.contains("t/0 at 51\n  - main: as it came\n  + nothing"),
            "{told}"
        );
    });
}

#[test]
fn shadow_begins_at_the_given_offset() {
    block_on(async {
        let shadow = Shadow::deployed().await;
        let few = cli::objects(&shadow.run(&threshold(60), &["--from", "58", "-o", "json"])).remove(0);
        assert_eq!(
            (&few["differences"], &few["candidate"]["records"]),
            (&3.into(), &42.into())
        );
        let refused = cli::refusal(&shadow.run(&threshold(50), &["--from", "100000"]));
        assert!(refused.contains("beyond the end"), "{refused}");
    });
}

#[test]
fn shadow_sees_records_that_arrive_meanwhile() {
    block_on(async {
        let shadow = Shadow::deployed().await;
        let client = shadow.client.clone();
        let running = std::thread::spawn(move || {
            let lasts = Duration::from_secs(2);
            block_on(client.shadow_pipeline(&threshold(60), "end", lasts, |_| {}))
        });
        while !running.is_finished() {
            send_texts(&shadow.client, &["{\"v\":55}"]).await;
        }
        let told: serde_json::Value = serde_json::to_value(running.join().unwrap().unwrap()).unwrap();
        let records = told["candidate"]["records"].as_u64().unwrap();
        assert!(
            records > 0 && told["differences"].as_u64().unwrap() >= records - 1,
            "{told}"
        );
    });
}

#[test]
fn shadow_has_state_and_timers_of_its_own() {
    block_on(async {
        let shadow = Shadow::new().await;
        let client = &shadow.client;
        client
            .push_module("windowed", "1", &guest("windowed"))
            .await
            .unwrap();
        let mut builder = BatchBuilder::new(Codec::None);
        for n in 0..500_i64 {
            let number = n.to_string();
            builder.push(n * 3, None, Some(number.as_bytes()), weir_types::Headers::NONE);
        }
        let numbers = builder.build(Offset::ZERO, None).unwrap();
        let mut producer = client.producer().await.unwrap();
        producer
            .send("n", 0, &numbers)
            .await
            .unwrap()
            .done()
            .await
            .unwrap();
        let windowed = WINDOWS
            .replace("name", "at = \"log\"\nname")
            .replace("source = \"t\"", "source = \"n\"");
        client.apply_pipeline(&windowed).await.unwrap();
        caught_up(client).await;
        let written = || {
            (
                cli::run(&shadow.node, &["pipeline", "state", "windows", "--digest"]),
                cli::run(&shadow.node, &["topic", "list"]),
            )
        };
        let before = written();
        let same = cli::text(&shadow.run(&windowed, &[]));
        assert!(
            same.contains("no difference\n") && same.contains("timers_fired  7"),
            "{same}"
        );
        assert_eq!(before, written(), "the shadow wrote something");
    });
}
