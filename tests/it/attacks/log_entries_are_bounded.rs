//! A batch whose log entry no follower would accept is refused before any computation, or is split into
//! several entries. The site has two nodes, since its quorum needs the leader.

use weir_client::{Client, Codec};
use weir_tests::records::{batch, send, still_serves};
use weir_tests::site::Site;
use weir_tests::{block_on, eventually_async, for_ever, guest, read_all};
use weir_types::Batch;

/// A batch of 12.8 MB of readings that differ, which gzip makes a quarter of.
fn large_when_inflated() -> Batch {
    let mut state = 7u64;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 20
    };
    let values = (0..100_000).map(|i| {
        let (a, b, pad) = (draw(), draw(), "reading ".repeat(9));
        format!("{{\"n\":{i:06},\"a\":\"{a:011x}\",\"b\":\"{b:011x}\",\"{pad}\":0}}").into_bytes()
    });
    batch(Codec::Gzip, values)
}

fn pipeline(name: &str, mode: &str, more: &str) -> String {
    format!(
        "name = \"{name}\"\nsource = \"{name}\"\nlimits = {{ deadline_ms = 20000, memory_bytes = 134217728 }}\n\
         on_error = {{ policy = \"dead-letter\" }}\n{more}\n\
         [[stages]]\nmodule = \"hostile\"\ngrants = [\"state\", \"timers\"]\nconfig = {{ mode = \"{mode}\" }}\n"
    )
}

async fn piped(client: &Client, name: &str, mode: &str, more: &str) {
    client.create_topic(name, 1, &for_ever()).await.unwrap();
    client.apply_pipeline(&pipeline(name, mode, more)).await.unwrap();
}

async fn count(client: &Client, topic: &str) -> usize {
    read_all(client, topic, 0, 4 << 20).await.unwrap().0.len()
}

#[test]
fn oversized_entries_never_stop_a_site() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::found(dir.path(), &[]).unwrap();
    site.grow(&dir.path().join("2")).unwrap();
    site.until_voters(2).unwrap();
    block_on(async {
        let client = site.client().await.unwrap();
        for topic in ["plain", "a", "b", "c"] {
            client.create_topic(topic, 1, &for_ever()).await.unwrap();
        }
        client
            .push_module("hostile", "1", &guest("hostile"))
            .await
            .unwrap();

        // An honest fan-out of a batch that compresses well: three outputs of 12.8 MB.
        let large = large_when_inflated();
        assert!(large.bytes().len() > 2 << 20, "{}", large.bytes().len());
        piped(
            &client,
            "fan",
            "fan-out",
            "outputs = { a = \"a\", b = \"b\", c = \"c\" }",
        )
        .await;
        send(&client, "fan", &large).await.unwrap();
        for topic in ["fan", "a", "b", "c"] {
            assert_eq!(count(&client, topic).await, 100_000, "{topic}");
        }
        still_serves(&client, "fan").await;

        // More than an entry may hold: the producer gets an error, and may send smaller batches.
        piped(&client, "six", "six-times", "").await;
        let refused = send(&client, "six", &large).await.unwrap_err();
        assert!(
            refused.contains("pipeline `six` makes") && refused.contains("send fewer"),
            "{refused}"
        );
        assert_eq!(count(&client, "six").await, 0);
        send(&client, "six", &batch(Codec::None, [b"few".to_vec()]))
            .await
            .unwrap();
        assert_eq!(count(&client, "six").await, 6);

        // A record whose output exceeds the limit is a dead letter, however the module produces that output.
        for mode in ["copies", "more-copies"] {
            piped(&client, mode, mode, "").await;
            send(&client, mode, &batch(Codec::None, [vec![b'x'; 500]]))
                .await
                .unwrap();
            assert_eq!(count(&client, mode).await, 0, "{mode}");
            assert_eq!(count(&client, &format!("{mode}.dead")).await, 1, "{mode}");
        }

        // Behind the log the same batch is looked at in pieces.
        client.create_topic("stored", 1, &for_ever()).await.unwrap();
        client.create_topic("out", 1, &for_ever()).await.unwrap();
        send(&client, "stored", &large).await.unwrap();
        let behind = pipeline(
            "behind",
            "six-times",
            "at = \"log\"\noutputs = { main = \"out\" }",
        );
        let behind = behind.replace("source = \"behind\"", "source = \"stored\"");
        client.apply_pipeline(&behind).await.unwrap();
        eventually_async("600,000 records arrive", async || {
            match count(&client, "out").await {
                arrived if arrived < 600_000 => Err(arrived),
                _ => Ok(()),
            }
        })
        .await;
        assert_eq!(count(&client, "out").await, 600_000);

        // Texts.
        let refused = client
            .push_module("boaster", "1", &guest("boaster"))
            .await
            .unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("`about` of the module is too long: 7900000"),
            "{refused}"
        );
        let quotes = "'".repeat(400_000);
        let long = pipeline(
            "plain",
            "none",
            &format!("event_time = {{ field = \"{quotes}\" }}"),
        );
        let refused = client.apply_pipeline(&long).await.unwrap_err();
        assert!(refused.to_string().contains("at most 262144"), "{refused}");
        still_serves(&client, "plain").await;
    });
    site.until_in_step().unwrap();
    // None of these shows after a restart.
    for number in [1, 2] {
        site.kill(number).unwrap();
    }
    for number in [1, 2] {
        site.start(number).unwrap();
    }
    site.until_in_step().unwrap();
    block_on(async { still_serves(&site.client().await.unwrap(), "plain").await });
}
