//! Replica groups: leaders of their own, replicas that move, nodes that go and come.

use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use weir_tests::http::http;
use weir_tests::load::{Load, more_than, under_load};
use weir_tests::records::stored;
use weir_tests::replica_groups::{groups, ids, in_place, leader_of};
use weir_tests::site::Site;
use weir_tests::{DEADLINE, block_on, eventually_async};

fn describe(site: &Site, topic: &str) -> Value {
    let said = site.cli(&["topic", "describe", topic, "-o", "json"]).unwrap();
    serde_json::from_str(&said).unwrap()
}

#[test]
fn replica_groups_survive_failover_drain_and_moves() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[]).unwrap();
    site.cli(&["topic", "create", "other"]).unwrap();
    let many = site
        .cli(&["topic", "create", "t", "--replication", "4"])
        .unwrap_err();
    assert!(
        many.to_string().contains("4 replicas need as many nodes"),
        "{many}"
    );
    let three = [
        "--partitions",
        "3",
        "--replication",
        "3",
        "--config",
        "retention.ms=-1",
    ];
    site.cli(&[&["topic", "create", "t"][..], &three].concat())
        .unwrap();
    let placed = site
        .until("three groups in place", |s| in_place(s) && groups(s).len() == 3)
        .unwrap();
    let leaders: BTreeSet<usize> = groups(&placed)
        .iter()
        .map(|g| g["leader"].as_u64().unwrap() as usize)
        .collect();
    assert_eq!(leaders, BTreeSet::from([1, 2, 3]), "they take turns: {placed}");

    // State is in the site's group, and in-line records are in another: apply refuses.
    let pipeline = dir.path().join("p.toml");
    std::fs::write(
        &pipeline,
        "name = \"p\"\nsource = \"t\"\n[[stages]]\nmodule = \"none\"\ngrants = [\"state\"]\n",
    )
    .unwrap();
    let refused = site
        .cli(&["pipeline", "apply", pipeline.to_str().unwrap()])
        .unwrap_err();
    assert!(
        refused.to_string().contains("without `--replication`"),
        "{refused}"
    );

    let topic = describe(&site, "t");
    let group = topic["partitions"][0]["group"].as_u64().unwrap();
    let mut load = block_on(async { Load::new(&site.client().await.unwrap(), "t").await });
    let (victim, _) = under_load(&site.seeds(), &mut load, |count| {
        block_on(more_than(count, 200));
        let victim = leader_of(&site.status().unwrap(), group);
        site.kill(victim).unwrap();
        let so_far = count.load(Ordering::Relaxed);
        block_on(more_than(count, so_far + 200));
        site.start(victim).unwrap();
        site.until("the first leads again", in_place).unwrap();
        let so_far = count.load(Ordering::Relaxed);
        block_on(more_than(count, so_far + 200));
        // A node leaves for good and another joins under load.
        site.cli(&["cluster", "drain", &victim.to_string()]).unwrap();
        let without = site.until("nothing on the one that went", in_place).unwrap();
        assert!(
            groups(&without)
                .iter()
                .all(|g| !ids(&g["members"]).contains(&(victim as u64)))
        );
        site.stop(victim).unwrap();
        let fourth = site.grow(&dir.path().join("4")).unwrap() as u64;
        site.until("three copies again", |s| {
            in_place(s) && groups(s).iter().all(|g| ids(&g["members"]).contains(&fourth))
        })
        .unwrap();
        site.cli(&["cluster", "rebalance"]).unwrap();
        let placed = site.until("leaders in turn", in_place).unwrap();
        let leads = groups(&placed).iter().filter(|g| g["leader"] == fourth).count();
        assert_eq!(leads, 1, "{placed}");
        let so_far = count.load(Ordering::Relaxed);
        block_on(more_than(count, so_far + 200));
        // To all nodes, and to groups again.
        for (wanted, groups_of) in [("all", 0..1), ("2", 1..33)] {
            site.cli(&["topic", "alter", "t", "--replication", wanted])
                .unwrap();
            site.until("nothing on its way", |s| {
                s["moves"].as_array().is_some_and(Vec::is_empty)
            })
            .unwrap();
            let there = describe(&site, "t")["partitions"].as_array().cloned().unwrap();
            assert!(
                there
                    .iter()
                    .all(|p| groups_of.contains(&p["group"].as_u64().unwrap())),
                "{there:?}"
            );
            let so_far = count.load(Ordering::Relaxed);
            block_on(more_than(count, so_far + 200));
        }
        let so_far = count.load(Ordering::Relaxed);
        block_on(more_than(count, so_far + 200));
        victim
    });
    assert_ne!(victim, 0);
    let wrong = block_on(async {
        let client = site.client().await.unwrap();
        load.judge(stored(&client, "t").await)
    });
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// A site whose topic `t` is in three groups, with the leader of each partition, and the module `threshold`.
fn spread(dir: &Path, made: &[&str]) -> (Site, Vec<usize>) {
    let site = Site::of_three(dir, &[]).unwrap();
    site.cli(&[&["topic", "create", "t"], made].concat()).unwrap();
    let placed = site
        .until("three groups in place", |s| in_place(s) && groups(s).len() == 3)
        .unwrap();
    let topic = describe(&site, "t");
    let partitions = topic["partitions"].as_array().unwrap();
    let leaders = partitions
        .iter()
        .map(|p| leader_of(&placed, p["group"].as_u64().unwrap()));
    let module = dir.join("threshold.wasm");
    std::fs::write(&module, weir_tests::module("threshold")).unwrap();
    let push = ["module", "push", module.to_str().unwrap()];
    site.cli(&[&push[..], &["--name", "threshold", "--version", "1"]].concat())
        .unwrap();
    (site, leaders.collect())
}

/// The leader of the site does not see the records of partitions that others lead.
#[test]
fn guard_rolls_back_for_partitions_led_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let (site, leaders) = spread(dir.path(), &["--partitions", "3", "--replication", "3"]);
    let file = dir.path().join("p.toml");
    let file = file.to_str().unwrap();
    let said = |limit: u32| {
        format!(
            "name = \"p\"\nsource = \"t\"\n[[stages]]\nmodule = \"threshold\"\n\
             config = {{ field = \"n\", limit = {limit} }}\n[guard]\nmin_records = 5\noutput = [0.5, 1.0]\n"
        )
    };
    std::fs::write(file, said(0)).unwrap();
    site.cli(&["pipeline", "apply", file]).unwrap();
    for (number, how) in [(0_u32, "rolled back to revision 1"), (1, "is taken back")] {
        // As far as the guard can tell: on a partition that the site's leader does not lead.
        let away = (0..3).find(|p| leaders[*p as usize] != site.leader().unwrap());
        let away = away.unwrap();
        std::fs::write(file, said(1_000)).unwrap();
        match number {
            0 => site.cli(&["pipeline", "apply", file]).unwrap(),
            _ => site
                .cli(&["pipeline", "canary", file, "--partitions", &away.to_string()])
                .unwrap(),
        };
        block_on(async {
            let client = site.client().await.unwrap();
            let mut producer = client.producer().await.unwrap();
            let mut batch = weir_types::BatchBuilder::new(weir_types::Codec::None);
            for _ in 0..10 {
                batch.push(0, None, Some(b"{\"n\": 5}"), weir_types::Headers::NONE);
            }
            let batch = batch.build(weir_types::Offset::ZERO, None).unwrap();
            eventually_async(how, async || {
                // The revision may not have reached that node yet.
                if let Ok(sent) = producer.send("t", away, &batch).await {
                    let _ = sent.done().await;
                }
                let history = site.cli(&["pipeline", "history", "p"]).unwrap();
                if history.contains(how) {
                    Ok(())
                } else {
                    Err(history)
                }
            })
            .await;
        });
    }
}

/// A frozen node answers nothing, and each request costs its whole timeout.
#[test]
fn partitions_of_a_frozen_node_do_not_block_others() {
    let dir = tempfile::tempdir().unwrap();
    let for_ever = ["--config", "retention.ms=-1"];
    let made = ["--partitions", "6", "--replication", "1"];
    let (site, leaders) = spread(dir.path(), &[&made[..], &for_ever].concat());
    site.cli(&[&["topic", "create", "out"][..], &for_ever].concat())
        .unwrap();
    let file = dir.path().join("p.toml");
    let text = "name = \"p\"\nat = \"log\"\nsource = \"t\"\noutputs = { main = \"out\" }\n[[stages]]\n\
                module = \"threshold\"\nconfig = { field = \"n\", limit = 0 }\n";
    std::fs::write(&file, text).unwrap();
    site.cli(&["pipeline", "apply", file.to_str().unwrap()]).unwrap();
    let frozen = (1..=3).find(|n| *n != site.leader().unwrap()).unwrap();
    block_on(async {
        let client = site.client().await.unwrap();
        let mut producer = client.producer().await.unwrap();
        let mut batch = weir_types::BatchBuilder::new(weir_types::Codec::None);
        batch.push(0, None, Some(b"{\"n\": 5}"), weir_types::Headers::NONE);
        let batch = batch.build(weir_types::Offset::ZERO, None).unwrap();
        let arrived = async |wanted: usize| {
            eventually_async(&format!("{wanted} records arrive"), async || {
                let (records, _) = weir_tests::read_all(&client, "out", 0, 1 << 20).await.unwrap();
                assert!(
                    records.len() <= wanted,
                    "{} of {wanted}: each once",
                    records.len()
                );
                if records.len() == wanted {
                    Ok(())
                } else {
                    Err(records.len())
                }
            })
            .await;
        };
        let mut wanted = 0;
        let mut send = async |partition: usize| {
            let sent = producer.send("t", partition as u32, &batch).await.unwrap();
            sent.done().await.unwrap();
        };
        for partition in 0..6 {
            send(partition).await;
        }
        wanted += 6;
        arrived(wanted).await;
        // The frozen node has records to read.
        let theirs: Vec<usize> = (0..6).filter(|p| leaders[*p] == frozen).collect();
        site.cli(&["pipeline", "pause", "p"]).unwrap();
        for partition in &theirs {
            send(*partition).await;
        }
        site.node(frozen).unwrap().freeze().unwrap();
        site.cli(&["pipeline", "resume", "p"]).unwrap();
        let begun = std::time::Instant::now();
        let others: Vec<usize> = (0..6).filter(|p| leaders[*p] != frozen).collect();
        assert_eq!(others.len(), 4);
        // As many times five seconds would be several minutes.
        for _ in 0..60 {
            for partition in &others {
                send(*partition).await;
            }
            wanted += others.len();
            arrived(wanted).await;
            assert!(begun.elapsed() < DEADLINE, "the others are held up");
        }
        site.node(frozen).unwrap().thaw().unwrap();
        site.until("it leads again", in_place).unwrap();
        for partition in &theirs {
            send(*partition).await;
        }
        wanted += 2 * theirs.len();
        arrived(wanted).await;
    });
}

/// Whatever its protocol and its node, a client reaches the leader of each partition.
#[test]
fn every_protocol_reaches_the_partition_leaders() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::of_three(dir.path(), &[]).unwrap();
    // Two copies each: no node has all of them.
    let made = ["topic", "create", "t", "--partitions", "3", "--replication", "2"];
    site.cli(&made).unwrap();
    site.until("three groups in place", |s| in_place(s) && groups(s).len() == 3)
        .unwrap();
    let values = |out: &str| -> BTreeSet<String> { out.lines().map(ToOwned::to_owned).collect() };
    let mut sent = BTreeSet::new();
    // Kafka, by the address of a single node.
    let brokers = site.node(2).unwrap().kafka.to_string();
    let mut config = rdkafka::ClientConfig::new();
    let producer: FutureProducer = config
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .create()
        .unwrap();
    block_on(async {
        for n in 0..60 {
            let (key, value) = (n.to_string(), format!("kafka-{n}"));
            let record = FutureRecord::to("t").key(&key).payload(&value);
            producer.send(record, DEADLINE).await.unwrap();
            sent.insert(value);
        }
    });
    // HTTP, a request for all partitions at once, at each node.
    for number in 1..=3 {
        let records: Vec<Value> = (0..20)
            .map(|n| json!({ "key": n.to_string(), "value": format!("http-{number}-{n}") }))
            .collect();
        sent.extend((0..20).map(|n| format!("http-{number}-{n}")));
        let body = json!(records).to_string();
        let at = site.node(number).unwrap().http;
        let (status, answer) = http(
            at,
            "POST",
            "/v1/topics/t/records",
            "application/json",
            body.as_bytes(),
        );
        assert_eq!(status, 200, "{answer}");
        let there = answer["partitions"].as_array().unwrap().len();
        assert!(there >= 2, "keys are spread: {answer}");
    }
    // The command line, and its client library.
    let input = dir.path().join("lines");
    let lines: Vec<String> = (0..100).map(|n| format!("cli-{n}")).collect();
    std::fs::write(&input, lines.join("\n")).unwrap();
    site.cli(&["produce", "t", "--file", input.to_str().unwrap()])
        .unwrap();
    sent.extend(lines);
    for number in 1..=3 {
        let one = site.seeds()[number - 1].to_string();
        let read = site
            .node(number)
            .unwrap()
            .cli(&["consume", "t", "--node", &one], "")
            .unwrap();
        let read = String::from_utf8(read.stdout).unwrap();
        assert_eq!(read.lines().count(), sent.len(), "none comes twice");
        assert_eq!(values(&read), sent, "from node {number}");
    }
    let topic = describe(&site, "t");
    let partitions = topic["partitions"].as_array().unwrap();
    let ends: u64 = partitions
        .iter()
        .map(|p| p["committed_end"].as_u64().unwrap())
        .sum();
    assert_eq!(ends, sent.len() as u64, "told by those that have it: {topic}");
    assert!(
        partitions.iter().all(|p| ids(&p["replicas"]).len() == 2),
        "{topic}"
    );
}
