//! Sites of several nodes: they grow, lose their leader, lose power, and nothing acknowledged is lost.
//!
//! Few rounds in CI; by hand `WEIR_SITE_KILLS=50`, `WEIR_SITE_CUTS=300`.

use rdkafka::Message;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use weir_client::{Client, KnownNodes};
use weir_tests::disk::Disk;
use weir_tests::load::{judged, loaded, more_than, under_load};
use weir_tests::records::stored;
use weir_tests::site::Site;
use weir_tests::{DEADLINE, Node, block_on, rounds};

#[test]
fn a_site_of_one_grows_to_three_while_producing() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::found(dir.path(), &[]).unwrap();
    let (mut load, client) = block_on(async {
        let client = site.client().await.unwrap();
        (loaded(&client).await, client)
    });
    drop(client);
    let pause = under_load(&site.seeds(), &mut load, |count| {
        block_on(more_than(count, 200));
        site.grow(&dir.path().join("2")).unwrap();
        site.grow(&dir.path().join("3")).unwrap();
        site.until_voters(3).unwrap();
        let so_far = count.load(Ordering::Relaxed);
        block_on(more_than(count, so_far + 200));
    })
    .1;
    site.until_in_step().unwrap();
    let wrong = judged(&site, &mut load, &[1, 2, 3]);
    assert!(wrong.is_empty(), "{wrong:?}");
    println!(
        "{} records acknowledged while a site of one grew to three; longest pause {pause:?}",
        load.acknowledged
    );
}

#[test]
fn leaders_are_killed_under_load_and_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[]).unwrap();
    let mut load = block_on(async { loaded(&site.client().await.unwrap()).await });
    let mut pauses = Vec::new();
    for round in 0..rounds("WEIR_SITE_KILLS", 3) {
        let (victim, pause) = under_load(&site.seeds(), &mut load, |count| {
            block_on(more_than(count, 100 + u64::from(round) * 37 % 300));
            let victim = site.leader().unwrap();
            site.kill(victim).unwrap();
            let so_far = count.load(Ordering::Relaxed);
            block_on(more_than(count, so_far + 100));
            victim
        });
        pauses.push(pause);
        site.start(victim).unwrap();
        site.until_in_step().unwrap();
    }
    let wrong = judged(&site, &mut load, &[1, 2, 3]);
    assert!(wrong.is_empty(), "{wrong:?}");
    println!(
        "{} leaders killed, {} records acknowledged, none lost, none doubled; pauses {pauses:?}",
        pauses.len(),
        load.acknowledged
    );
}

#[test]
fn a_short_pause_costs_no_election_and_a_long_one_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::of_three(dir.path(), &[]).unwrap();
    let mut load = block_on(async { loaded(&site.client().await.unwrap()).await });
    let before = site.status().unwrap();
    let leader = site.leader().unwrap();
    site.node(leader).unwrap().freeze().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    site.node(leader).unwrap().thaw().unwrap();
    let after = site.status().unwrap();
    assert_eq!(
        (&before["term"], &before["node"]),
        (&after["term"], &after["node"])
    );
    // Long enough that another leads; the old one finds out and has acknowledged nothing meanwhile.
    under_load(&site.seeds(), &mut load, |count| {
        block_on(more_than(count, 100));
        site.node(leader).unwrap().freeze().unwrap();
        let so_far = count.load(Ordering::Relaxed);
        block_on(more_than(count, so_far + 100));
        site.node(leader).unwrap().thaw().unwrap();
        let so_far = count.load(Ordering::Relaxed);
        block_on(more_than(count, so_far + 100));
    });
    site.until_in_step().unwrap();
    let wrong = judged(&site, &mut load, &[1, 2, 3]);
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Consensus takes nothing more in a term in which it was asked to hand over, also when nobody takes over.
#[test]
fn a_hand_over_to_one_that_does_not_answer_ends_and_the_site_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::of_three(dir.path(), &[]).unwrap();
    let mut load = block_on(async { loaded(&site.client().await.unwrap()).await });
    let leader = site.leader().unwrap();
    let frozen = leader % 3 + 1;
    site.node(frozen).unwrap().freeze().unwrap();
    under_load(&site.seeds(), &mut load, |count| {
        block_on(more_than(count, 100));
        // Said to be done as soon as it is asked for.
        let _ = site.cli(&["cluster", "transfer", &frozen.to_string()]);
        let so_far = count.load(Ordering::Relaxed);
        block_on(more_than(count, so_far + 100));
    });
    site.node(frozen).unwrap().thaw().unwrap();
    site.until_in_step().unwrap();
    let wrong = judged(&site, &mut load, &[1, 2, 3]);
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn what_counts_on_a_silent_node_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[]).unwrap();
    site.transfer(1).unwrap();
    site.kill(3).unwrap();
    let silent = |s: &serde_json::Value| s["members"][2]["heard_ms_ago"].as_u64() > Some(3_000);
    site.until("node 3 is silent", silent).unwrap();
    let refused = site.cli(&["cluster", "remove", "2"]).unwrap_err().to_string();
    assert!(refused.contains("node 3 is silent"), "{refused}");
    let refused = site.cli(&["cluster", "transfer", "3"]).unwrap_err().to_string();
    assert!(refused.contains("node 3 does not answer"), "{refused}");
    site.cli(&["cluster", "remove", "3"]).unwrap();
    // Two are left, and both answer.
    block_on(async {
        let client = site.client().await.unwrap();
        client.create_topic("t", 1, &[]).await.unwrap();
    });
}

#[test]
fn power_cuts_of_all_nodes_at_once_lose_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut disks = Vec::new();
    for number in 1..=3 {
        let dir = dir.path().join(number.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let Some(disk) = Disk::make(&dir, 256) else {
            println!("SKIPPED: loop mounts are not permitted here, so no power can be cut");
            return;
        };
        disks.push(disk);
    }
    let dirs: Vec<_> = disks.iter().map(|d| d.mount.clone()).collect();
    let env = [("WEIR_DISK_RESERVE_BYTES", "1048576")];
    let mut site = Site::found_at(&dirs[0], &env).unwrap();
    site.grow(&dirs[1]).unwrap();
    site.grow(&dirs[2]).unwrap();
    site.until_voters(3).unwrap();
    let mut load = block_on(async { loaded(&site.client().await.unwrap()).await });
    let cuts = rounds("WEIR_SITE_CUTS", 3);
    let mut back = Vec::new();
    for round in 0..cuts {
        let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
        let seeds = site.seeds();
        std::thread::scope(|scope| {
            let (stop, count, load) = (&stop, &count, &mut load);
            let running = scope.spawn(move || {
                block_on(async {
                    let client = Client::connect_any(&seeds, &KnownNodes::forgetful(), "load")
                        .await
                        .unwrap();
                    let ended = async {
                        while !stop.load(Ordering::Relaxed) {
                            tokio::time::sleep(Duration::from_millis(2)).await;
                        }
                        // Nobody is left to ask.
                        client.disconnect();
                    };
                    tokio::join!(load.run(&client, stop, count), ended);
                })
            });
            block_on(more_than(count, 100 + u64::from(round) * 71 % 500));
            for number in 1..=3 {
                site.node(number).unwrap().freeze().unwrap();
            }
            for (number, disk) in disks.iter().enumerate() {
                assert!(disk.cut(), "the ioctl is refused");
                site.kill(number + 1).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
            running.join().unwrap();
        });
        for disk in &disks {
            disk.detach();
            assert!(disk.attach(), "the file system does not mount after the cut");
        }
        let begun = Instant::now();
        for number in 1..=3 {
            site.start(number).unwrap();
        }
        site.status().unwrap();
        back.push(begun.elapsed());
        let records = block_on(async { stored(&site.client().await.unwrap(), "t").await });
        let wrong = load.judge(records);
        assert!(wrong.is_empty(), "round {round}: {wrong:?}\n{}", site.said());
    }
    site.until_in_step().unwrap();
    let wrong = judged(&site, &mut load, &[1, 2, 3]);
    assert!(wrong.is_empty(), "{wrong:?}");
    println!(
        "{cuts} power cuts of all nodes: 0 of {} records lost; back after {back:?}",
        load.acknowledged
    );
    for number in 1..=3 {
        site.stop(number).unwrap();
    }
}

/// Writes to the last byte of the disk: what has no room ends it.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    std::io::copy(&mut std::io::repeat(1), &mut file).unwrap_err();
}

#[test]
fn a_node_with_a_full_disk_says_so_stops_nobody_and_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::make(dir.path(), 256) else {
        println!("SKIPPED: loop mounts are not permitted here, so no disk can be filled");
        return;
    };
    let env = [("WEIR_DISK_RESERVE_BYTES", "16777216")];
    let mut site = Site::found(dir.path(), &env).unwrap();
    let second = dir.path().join("second");
    site.grow(&second).unwrap();
    let third = site.grow(&disk.mount).unwrap();
    site.until_voters(3).unwrap();
    site.until_in_step().unwrap();
    let mut load = block_on(async { loaded(&site.client().await.unwrap()).await });
    let filler = disk.mount.join("filler");
    fill(&filler);
    under_load(&site.seeds(), &mut load, |count| {
        block_on(more_than(count, 100));
        site.until("the leader knows why a node lags", |s| {
            let members = s["members"].as_array().unwrap();
            let full = members.iter().find(|m| m["id"] == third).unwrap();
            full["lag"].as_u64() > Some(0)
                && full["refuses"]
                    .as_str()
                    .is_some_and(|w| w.contains("disk is nearly full"))
        })
        .unwrap();
        let table = site.cli(&["cluster", "status"]).unwrap();
        assert!(table.contains("takes nothing: disk is nearly full"), "{table}");
        assert!(table.contains("no further loss: 1 of 3 lost"), "{table}");
        assert!(
            site.node(third)
                .unwrap()
                .said()
                .contains("this node falls behind")
        );
        let so_far = count.load(Ordering::Relaxed);
        block_on(more_than(count, so_far + 100));
    });
    std::fs::remove_file(&filler).unwrap();
    site.until_in_step().unwrap();
    let table = site.cli(&["cluster", "status"]).unwrap();
    assert!(table.contains("the loss of 1 of 3"), "{table}");
    let wrong = judged(&site, &mut load, &[1, 2, 3]);
    assert!(wrong.is_empty(), "{wrong:?}");
    for number in 1..=3 {
        site.stop(number).unwrap();
    }
    disk.detach();
}

#[test]
fn tokens_let_one_node_in_and_a_node_that_leaves_is_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::found(dir.path(), &[]).unwrap();
    let addr = site.seeds()[0].to_string();
    let join = |name: &str, token: &str| {
        let dir = dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Node::start_with(&dir, &["--join", &addr, "--token", token], &[])
    };
    let refused = |name: &str, token: &str| format!("{:#}", join(name, token).err().unwrap());
    assert!(refused("a", "weir-12").contains("that is no token"));
    let never = format!("weir-{}", "0".repeat(32));
    assert!(
        refused("a", &never).contains("not known here"),
        "{}",
        refused("a", &never)
    );
    let token = site.cli(&["cluster", "invite", "--valid", "1h"]).unwrap();
    let second = join("b", token.trim()).unwrap();
    assert!(refused("c", token.trim()).contains("it was used"));
    let short = site.cli(&["cluster", "invite", "--valid", "0s"]).unwrap();
    assert!(refused("c", short.trim()).contains("expired"));
    site.until_voters(2).unwrap();
    let table = site.cli(&["cluster", "status"]).unwrap();
    assert!(
        table.contains("with two there is no majority without the other"),
        "{table}"
    );
    // A directory with records of its own does not join.
    let own = dir.path().join("own");
    std::fs::create_dir_all(&own).unwrap();
    Node::start_with(&own, &[], &[]).unwrap().stop().unwrap();
    let token = site.cli(&["cluster", "invite"]).unwrap();
    let kept = Node::start_with(&own, &["--join", &addr, "--token", token.trim()], &[]).unwrap();
    // It is a site already, and stays what it is.
    let status = kept.cli(&["cluster", "status", "-o", "json"], "").unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["members"].as_array().unwrap().len(), 1);
    // The second leaves; the site goes on alone, and its number is not given again.
    site.cli(&["cluster", "drain", "2"]).unwrap();
    second.stop().unwrap();
    site.until_voters(1).unwrap();
    let again = site.cli(&["cluster", "remove", "1"]).unwrap_err();
    assert!(
        format!("{again:#}").contains("nobody to hand over to"),
        "{again:#}"
    );
    let token = site.cli(&["cluster", "invite"]).unwrap();
    let third = join("d", token.trim()).unwrap();
    site.until_voters(2).unwrap();
    let members = site.status().unwrap()["members"].clone();
    let ids: Vec<u64> = members
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, [1, 3]);
    drop(third);
    site.stop(1).unwrap();
}

#[test]
fn modules_and_pipelines_are_on_every_node_and_run_where_it_leads() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[]).unwrap();
    let count_of = |topic: &str| {
        block_on(async {
            let client = site.client().await.unwrap();
            weir_tests::read_all(&client, topic, 0, 1 << 20)
                .await
                .unwrap()
                .0
                .len()
        })
    };
    block_on(async {
        let client = site.client().await.unwrap();
        client
            .create_topic("t", 1, &weir_tests::for_ever())
            .await
            .unwrap();
        client
            .push_module("threshold", "1.0", &weir_tests::module("threshold"))
            .await
            .unwrap();
        let toml = r#"
            name = "hot"
            source = "t"
            [[stages]]
            module = "threshold"
            config = { field = "v", is = ">", limit = 50 }
        "#;
        client.apply_pipeline(toml).await.unwrap();
    });
    // Before it was applied.
    let is_ready = |number: &usize| {
        let told = std::fs::read_to_string(dir.path().join(number.to_string()).join("node.log"));
        told.unwrap().contains("ready for a revision")
    };
    let leads = site.leader().unwrap();
    let ready: Vec<usize> = (1..=3).filter(is_ready).collect();
    assert_eq!(
        ready,
        (1..=3).filter(|n| *n != leads).collect::<Vec<_>>(),
        "the others have it compiled"
    );
    let produce = |n: usize| {
        block_on(async {
            let client = site.client().await.unwrap();
            let mut producer = client.producer().await.unwrap();
            for i in 0..n {
                let mut builder = weir_client::BatchBuilder::new(weir_client::Codec::None);
                let value = format!("{{\"v\":{}}}", if i % 2 == 0 { 10 } else { 90 });
                builder.push(0, None, Some(value.as_bytes()), weir_types::Headers::NONE);
                let batch = builder.build(weir_client::Offset::ZERO, None).unwrap();
                let begun = Instant::now();
                // Until the next leader has the module ready it says so, and nothing passes unfiltered.
                while producer.send("t", 0, &batch).await.unwrap().done().await.is_err() {
                    assert!(begun.elapsed() < DEADLINE, "{}", site.said());
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        })
    };
    produce(10);
    assert_eq!(count_of("t"), 5);
    let leader = site.leader().unwrap();
    let next = leader % 3 + 1;
    site.transfer(next).unwrap();
    produce(10);
    assert_eq!(count_of("t"), 10);
    // A node that joins later has it too.
    let _ = (count_of, produce);
    let fourth = site.grow(&dir.path().join("4")).unwrap();
    site.until_voters(4).unwrap();
    site.transfer(fourth).unwrap();
    let read = block_on(async {
        let client = site.client().await.unwrap();
        String::from_utf8(client.pipelines().await.unwrap().to_vec()).unwrap()
    });
    assert!(
        read.contains("\"state\":\"running\"") || read.contains("running"),
        "{read}"
    );
}

/// librdkafka knows the three brokers, and finds the next leader as it does with Kafka.
#[test]
fn a_kafka_client_goes_on_with_the_next_leader() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[]).unwrap();
    let brokers: Vec<String> = (1..=3).map(|n| site.node(n).unwrap().kafka.to_string()).collect();
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", brokers.join(","));
    block_on(async {
        let client = site.client().await.unwrap();
        client
            .create_topic("k", 1, &weir_tests::for_ever())
            .await
            .unwrap();
        let producer: FutureProducer = config
            .clone()
            .set("enable.idempotence", "true")
            .set("topic.metadata.refresh.interval.ms", "1000")
            .create()
            .unwrap();
        for n in 0..300 {
            if n == 100 {
                let leader = site.leader().unwrap();
                site.kill(leader).unwrap();
            }
            let value = n.to_string();
            let record = FutureRecord::<(), str>::to("k").payload(&value);
            let placed = producer.send(record, DEADLINE).await.unwrap();
            assert_eq!((placed.partition, placed.offset), (0, n));
        }
        let consumer: StreamConsumer = config
            .set("group.id", "g")
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        consumer.subscribe(&["k"]).unwrap();
        for n in 0..300 {
            if n == 150 {
                consumer
                    .commit_consumer_state(rdkafka::consumer::CommitMode::Sync)
                    .unwrap();
            }
            let read = async {
                loop {
                    // It also tells of the broker that is gone.
                    if let Ok(read) = consumer.recv().await {
                        return read;
                    }
                }
            };
            let read = tokio::time::timeout(DEADLINE, read).await.unwrap();
            assert_eq!(read.payload(), Some(n.to_string().as_bytes()));
        }
    });
}

#[test]
fn a_node_that_comes_up_at_another_address_is_found_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[]).unwrap();
    site.transfer(1).unwrap();
    site.kill(2).unwrap();
    site.start_elsewhere(2).unwrap();
    let at = site.seeds()[1].to_string();
    let moved = |s: &serde_json::Value| {
        let members = s["members"].as_array().cloned().unwrap_or_default();
        members
            .iter()
            .any(|m| m["id"] == 2 && m["quic"] == at.as_str() && m["lag"] == 0)
    };
    site.until("the new address", moved).unwrap();
    // And it serves there.
    site.transfer(2).unwrap();
    block_on(async {
        let client = site.client().await.unwrap();
        client.create_topic("t", 1, &[]).await.unwrap();
    });
}

#[test]
fn the_three_gateways_of_the_example_lose_nothing() {
    let path = format!(
        "{}:{}",
        weir_tests::weir().parent().unwrap().display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let output = std::process::Command::new("bash")
        .arg(weir_tests::root().join("examples/three-gateways/run.sh"))
        .env("PATH", path)
        .env("WEIR_DISK_RESERVE_BYTES", weir_tests::RESERVE_BYTES)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{error}");
    assert!(
        said.contains("10000 of 10000") && error.contains("killed gateway 1"),
        "{said}\n{error}"
    );
}
