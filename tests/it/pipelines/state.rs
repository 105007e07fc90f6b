//! State and time that go on: what is granted and kept, what fires when, and what the same log gives again.

use super::*;

#[test]
fn state_is_granted_kept_over_a_swap_and_forgotten_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let cli = |args: &[&str]| said(&node, args);
    block_on(async {
        let client = node.client().await.unwrap();
        counting(&client).await;
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
        send(&client, &["1", "8", "2"]).await;
        assert_eq!(judge(&client, "at first").await, 3);

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
        send(&client, &["15", "22"]).await;
        assert_eq!(judge(&client, "after a swap").await, 5);
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
        send(&client, &["1"]).await;
        let (counts, _) = read_all(&client, "counts", 0, 1 << 20).await.unwrap();
        assert_eq!(counts.last().unwrap().1.value.as_deref(), Some(&b"1 1 1 1"[..]));

        cli(&["pipeline", "remove", "count"]);
        client.apply_pipeline(PIPELINE).await.unwrap();
        send(&client, &["8"]).await;
        let (counts, _) = read_all(&client, "counts", 0, 1 << 20).await.unwrap();
        assert_eq!(counts.last().unwrap().1.value.as_deref(), Some(&b"8 1 1 8"[..]));
    });
    node.stop().unwrap();
}

/// What a gateway's clock and a sensor's may say, and what a module is told of it.
#[test]
fn records_are_dated_by_a_field_and_their_time_goes_on_without_them() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        IN_LINE[1].begin(&client).await;
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
        send(&client, &["7", "14", r#"{"at":0.06}"#]).await;
        // The values that are no JSON have their record's time, 0; what is in the value of the third ends their window.
        let counts = async || texts(&client, "counts").await;
        let begun = Instant::now();
        while counts().await.is_empty() {
            assert!(begun.elapsed() < DEADLINE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(counts().await, [(50, "50 0 2".to_owned())]);
        // Then nothing comes, and the window after it ends by itself.
        send(&client, &["8"]).await;
        let begun = Instant::now();
        while counts().await.len() < 2 {
            assert!(begun.elapsed() < DEADLINE, "{:?}", counts().await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (at, said) = counts().await.pop().unwrap();
        assert_eq!(said, format!("{at} 1 1"));
    });
    node.stop().unwrap();
}

/// A time that cannot be read is told, and nothing else stands in for it unless that was asked for.
#[test]
fn a_record_that_says_no_time_is_a_dead_letter_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        IN_LINE[1].begin(&client).await;
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
        send(&client, &[bad[0], good, bad[1], bad[2], bad[3], bad[4]]).await;
        let (dead, _) = read_all(&client, "t.dead", 0, 1 << 20).await.unwrap();
        let said: Vec<(String, String)> = dead
            .into_iter()
            .map(|(_, record)| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let error = record.headers.iter().find(|(name, _)| name == "weir.error");
                let error = error.and_then(|(_, value)| value.clone()).unwrap();
                (text(&record.value.unwrap()), text(&error))
            })
            // The module takes numbers alone, and says something else of the good one.
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
        let told: serde_json::Value = serde_json::from_slice(&client.pipelines().await.unwrap()).unwrap();
        assert_eq!(told[0]["bad_times"], 5, "{told}");
    });
    node.stop().unwrap();
}

/// More partitions have timers than are in memory at once: each fires all the same, and once.
#[test]
fn timers_of_partitions_that_were_put_aside_fire() {
    const PARTITIONS: u32 = 70;
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .push_module("absence", "1", &weir_tests::module("absence"))
            .await
            .unwrap();
        client
            .create_topic("wide", PARTITIONS, &weir_tests::for_ever())
            .await
            .unwrap();
        client
            .create_topic("absent", 1, &weir_tests::for_ever())
            .await
            .unwrap();
        let pipeline = r#"
            name = "absence"
            source = "wide"
            outputs = { absent = "absent" }
            stages = [{ module = "absence", config = { silence_ms = 400 }, grants = ["state", "timers"] }]
        "#;
        client.apply_pipeline(pipeline).await.unwrap();
        let mut producer = client.producer().await.unwrap();
        for partition in 0..PARTITIONS {
            let mut builder = BatchBuilder::new(Codec::None);
            let key = format!("{partition:02}");
            builder.push(0, Some(key.as_bytes()), Some(b"x"), weir_types::Headers::NONE);
            let batch = builder.build(Offset::ZERO, None).unwrap();
            let sent = producer.send("wide", partition, &batch).await.unwrap();
            sent.done().await.unwrap();
        }
        let begun = Instant::now();
        let keys = async || {
            let (records, _) = read_all(&client, "absent", 0, 1 << 20).await.unwrap();
            let keys = records
                .into_iter()
                .map(|(_, r)| String::from_utf8(r.key.unwrap().to_vec()).unwrap());
            let mut keys: Vec<_> = keys.collect();
            keys.sort();
            keys
        };
        let wanted: Vec<_> = (0..PARTITIONS).map(|p| format!("{p:02}")).collect();
        while keys().await != wanted {
            assert!(begun.elapsed() < DEADLINE, "{:?}", keys().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    node.stop().unwrap();
}

/// Whatever a pipeline behind the log makes of a topic, it makes again: on as many threads as may be, and from its start as well
/// as bit by bit.
#[test]
fn the_same_log_read_again_gives_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let cli = |args: &[&str]| said(&node, args);
    let pipeline = |name: &str, more: &str| {
        format!(
            "name = \"{name}\"\nat = \"log\"\nsource = \"s\"\n{more}\n\
             outputs = {{ counts = \"counts-{name}\", echo = \"echo-{name}\" }}\n\
             stages = [{{ module = \"windowed\", grants = [\"state\", \"timers\"] }}]\n"
        )
    };
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .push_module("windowed", "1", &guest("windowed"))
            .await
            .unwrap();
        let topics = ["s"].map(str::to_owned).into_iter().chain(
            ["live", "one", "four"]
                .iter()
                .flat_map(|name| [format!("counts-{name}"), format!("echo-{name}")]),
        );
        for topic in topics {
            client
                .create_topic(&topic, 4, &weir_tests::for_ever())
                .await
                .unwrap();
        }
        client
            .apply_pipeline(&pipeline("live", "threads = 3"))
            .await
            .unwrap();
        // Times that go on, with stragglers, on each partition at a pace of its own.
        let mut producer = client.producer().await.unwrap();
        let mut count = 0_usize;
        for n in 0..60_i64 {
            for partition in 0..4_u32 {
                let mut builder = BatchBuilder::new(Codec::None);
                for k in 0..=(n % 7) {
                    let at = 1_000 + n * 17 * i64::from(partition + 1) - (k % 3) * 30;
                    // So that each result tells which partition it is of.
                    let value = (count as u64 * 7 + u64::from(partition)).to_string();
                    builder.push(at, None, Some(value.as_bytes()), weir_types::Headers::NONE);
                    count += 1;
                }
                let batch = builder.build(Offset::ZERO, None).unwrap();
                producer
                    .send("s", partition, &batch)
                    .await
                    .unwrap()
                    .done()
                    .await
                    .unwrap();
            }
        }
        caught_up(&client).await;
        client
            .apply_pipeline(&pipeline("one", "threads = 1"))
            .await
            .unwrap();
        client
            .apply_pipeline(&pipeline("four", "threads = 4"))
            .await
            .unwrap();
        caught_up(&client).await;
        // Values and times in order, of each partition of the topic and of its source: those of several of the source come in any
        // order.
        let said = async |topic: &str, name: &str| {
            let (mut said, topic) = (BTreeMap::<_, Vec<_>>::new(), format!("{topic}-{name}"));
            for partition in 0..4 {
                for (_, record) in read_all(&client, &topic, partition, 1 << 20).await.unwrap().0 {
                    let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                    let words: Vec<u64> = value.split(' ').map(|w| w.parse().unwrap()).collect();
                    let source = words.get(1).copied().unwrap_or(words[0] % 7);
                    let of = said.entry((partition, source)).or_default();
                    of.push((record.timestamp, value));
                }
            }
            said
        };
        let sum = |said: &BTreeMap<_, Vec<_>>| said.values().map(Vec::len).sum::<usize>();
        // The last timers of the node's clock are due in a moment.
        let begun = Instant::now();
        for name in ["live", "one", "four"] {
            while sum(&said("echo", name).await) < count {
                assert!(begun.elapsed() < DEADLINE);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let one = said("counts", "one").await;
        assert!(sum(&one) > 200, "{}", sum(&one));
        assert!(one == said("counts", "four").await, "one thread and four");
        assert!(one == said("counts", "live").await, "as it came, and all at once");
        assert!(said("echo", "one").await == said("echo", "four").await);
        let digest = |name: &str| cli(&["pipeline", "state", name, "--digest"]);
        let (one_digest, four_digest) = (digest("one"), digest("four"));
        assert_eq!(one_digest.trim().len(), 64);
        assert_eq!(one_digest, four_digest);
        let rows = cli(&["pipeline", "state", "one"]);
        assert!(
            rows.contains("due at") && rows.contains("of event time"),
            "{rows}"
        );
        assert!(cli(&["pipeline", "state", "one", "--partition", "9"]).is_empty());

        // Again, by the same one.
        cli(&["pipeline", "rewind", "one", "--to", "start"]);
        caught_up(&client).await;
        let begun = Instant::now();
        let again = loop {
            let said = said("counts", "one").await;
            if sum(&said) == 2 * sum(&one) && digest("one") == one_digest {
                break said;
            }
            assert!(begun.elapsed() < DEADLINE, "{} of {}", sum(&said), 2 * sum(&one));
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        for (of, first) in &one {
            assert!(again[of][first.len()..] == first[..], "{of:?}");
        }
        let refused = node
            .cli(&["pipeline", "rewind", "one", "--to", "100000"], "")
            .unwrap();
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(error.contains("offset 100000 is beyond the end"), "{error}");
    });
    node.stop().unwrap();
}

/// A candidate looks at what is stored, beside the one that works; its differences are told, and nothing is written.
#[test]
fn a_shadow_tells_what_would_be_different_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let cli = |args: &[&str]| said(&node, args);
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
        send(&client, &values).await;

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
            send(&sender, &["{\"v\":55}"]).await;
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

/// Each ready-made module that remembers something, on a topic of 64 partitions and with nothing set that it does not need, all on one
/// node.
#[test]
fn ready_made_modules_remember_on_sixty_four_partitions_as_they_come() {
    const PARTITIONS: u32 = 64;
    let modules = [
        ("absence", "{ silence_ms = 60000 }"),
        ("anomaly", r#"{ field = "v" }"#),
        ("compact", r#"{ field = "v", deviation = 0.5 }"#),
        ("deadband", r#"{ field = "v", band = 0.5 }"#),
        ("dedupe", "{ horizon_ms = 60000 }"),
        ("downsample", r#"{ field = "v", every_ms = 60000 }"#),
        ("geofence", "{ fences = { a = [[1, 1], [1, 2], [2, 2]] } }"),
        ("rate-of-change", r#"{ field = "v", per_second = 1 }"#),
        (
            "sequence",
            r#"{ within_ms = 1000, steps = [{ field = "v", than = 1 }, { field = "v", than = 2 }] }"#,
        ),
    ];
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        for topic in ["out", "other"] {
            client
                .create_topic(topic, PARTITIONS, &weir_tests::for_ever())
                .await
                .unwrap();
        }
        for (module, config) in modules {
            client
                .create_topic(module, PARTITIONS, &weir_tests::for_ever())
                .await
                .unwrap();
            client
                .push_module(module, "1", &weir_tests::module(module))
                .await
                .unwrap();
            let pipeline = |outputs: &str| {
                format!(
                    "name = \"{module}\"\nsource = \"{module}\"\n{outputs}\nstages = [{{ module = \"{module}\", config = {config}, grants = [\"state\", \"timers\"] }}]"
                )
            };
            let mut applied = client.apply_pipeline(&pipeline("")).await.map(|_| ());
            if let Err(told) = &applied {
                // Which output a module has it says itself.
                let told = told.to_string();
                let output = told.split('`').nth(1).unwrap_or_default();
                let outputs = format!("outputs = {{ {output} = \"out\" }}");
                applied = client.apply_pipeline(&pipeline(&outputs)).await.map(|_| ());
            }
            applied.unwrap_or_else(|e| panic!("{module}: {e}"));
        }
        let joins = weir_tests::module("join");
        client.push_module("join", "1", &joins).await.unwrap();
        let join = r#"
            name = "join"
            source = ["out", "other"]
            at = "log"
            outputs = { main = "joined" }
            stages = [{ module = "join", config = { within_ms = 1000 }, grants = ["state", "timers"] }]
        "#;
        client
            .create_topic("joined", PARTITIONS, &weir_tests::for_ever())
            .await
            .unwrap();
        client.apply_pipeline(join).await.unwrap();
        let mut producer = client.producer().await.unwrap();
        let value = br#"{"v":1,"lat":1.5,"lon":1.5}"#;
        for (module, _) in modules {
            for partition in 0..PARTITIONS {
                let mut builder = BatchBuilder::new(Codec::None);
                builder.push(
                    1_700_000_000_000,
                    Some(b"k"),
                    Some(value),
                    weir_types::Headers::NONE,
                );
                let batch = builder.build(Offset::ZERO, None).unwrap();
                let sent = producer.send(module, partition, &batch).await.unwrap();
                sent.done()
                    .await
                    .unwrap_or_else(|e| panic!("{module}, {partition}: {e}"));
            }
        }
        let told: serde_json::Value = serde_json::from_slice(&client.pipelines().await.unwrap()).unwrap();
        for pipeline in told.as_array().unwrap() {
            assert_eq!(pipeline["state"], "running", "{pipeline}");
        }
    });
    node.stop().unwrap();
}
