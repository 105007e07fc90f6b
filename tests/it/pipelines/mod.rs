//! What modules remember: it is what their records make of it, whatever happens to the node.

mod revisions;
mod sandbox;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use weir_client::{BatchBuilder, Client, Codec, Offset};
use weir_tests::disk::Disk;
use weir_tests::load::{Load, loaded, more_than, under_load};
use weir_tests::site::Site;
use weir_tests::{DEADLINE, Node, block_on, guest, read_all, rounds};

const PIPELINE: &str = r#"
name = "count"
source = "t"
outputs = { counts = "counts" }
stages = [{ module = "counter", grants = ["state"] }]
"#;

/// By timers, of the time in the records and of the node's.
const WINDOWS: &str = r#"
name = "windows"
source = "t"
outputs = { counts = "counts", echo = "echo" }
stages = [{ module = "windowed", grants = ["state", "timers"] }]
"#;

/// What counts what goes into `t`.
#[derive(Clone, Copy)]
struct Counting {
    what: What,
    /// It reads what is stored.
    behind: bool,
}

#[derive(Clone, Copy)]
enum What {
    /// A module that says of each record how many there have been.
    Records,
    /// One that says of each window how many there were, when it is over.
    Windows,
}

/// In-line, and behind the log.
const IN_LINE: [Counting; 2] = [
    Counting {
        what: What::Records,
        behind: false,
    },
    Counting {
        what: What::Windows,
        behind: false,
    },
];
const BEHIND: [Counting; 2] = [
    Counting {
        what: What::Records,
        behind: true,
    },
    Counting {
        what: What::Windows,
        behind: true,
    },
];

impl Counting {
    /// Makes the topics and the pipeline.
    async fn begin(self, client: &Client) {
        let (module, pipeline) = match self.what {
            What::Records => ("counter", PIPELINE),
            What::Windows => ("windowed", WINDOWS),
        };
        let at = if self.behind { "at = \"log\"\n" } else { "" };
        client.push_module(module, "1", &guest(module)).await.unwrap();
        for topic in ["t", "counts", "echo"] {
            // The load's helper has made one of them.
            let _ = client.create_topic(topic, 1, &weir_tests::for_ever()).await;
        }
        let pipeline = format!("{at}{pipeline}");
        client.apply_pipeline(&pipeline).await.unwrap();
    }

    /// What the module must have said of what is in `t` is what is in `counts`, byte for byte.
    async fn judge(self, client: &Client, when: &str) -> usize {
        if self.behind {
            caught_up(client).await;
        }
        match self.what {
            What::Records => judge(client, when).await,
            What::Windows => judge_windows(client, when).await,
        }
    }
}

/// Waits until nothing is stored that a pipeline behind the log has not come to.
async fn caught_up(client: &Client) {
    let begun = Instant::now();
    loop {
        let pipelines: serde_json::Value =
            serde_json::from_slice(&client.pipelines().await.unwrap()).unwrap();
        let lags = |p: &serde_json::Value| p["lag"] != 0;
        assert!(
            pipelines
                .as_array()
                .unwrap()
                .iter()
                .all(|p| p["state"] == "running"),
            "{pipelines}"
        );
        if !pipelines.as_array().unwrap().iter().any(lags) {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "it lags: {pipelines}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A client to a node that counts.
async fn counting(client: &Client) {
    IN_LINE[0].begin(client).await;
}

async fn texts(client: &Client, topic: &str) -> Vec<(i64, String)> {
    let (records, _) = read_all(client, topic, 0, 1 << 20).await.unwrap();
    let text = |(_, record): (u64, weir_types::Record)| {
        let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
        (record.timestamp, value)
    };
    records.into_iter().map(text).collect()
}

async fn judge(client: &Client, when: &str) -> usize {
    let records = texts(client, "t").await;
    let said: Vec<String> = texts(client, "counts").await.into_iter().map(|r| r.1).collect();
    let (mut counts, mut sum) = (BTreeMap::<u64, u64>::new(), 0u64);
    let wanted: Vec<String> = records
        .into_iter()
        .map(|(_, value)| {
            let number: u64 = value.split(':').next().unwrap().parse().unwrap();
            let count = counts.entry(number % 7).or_default();
            *count += 1;
            sum = sum.wrapping_add(number);
            format!("{number} {} {count} {sum}", number % 7)
        })
        .collect();
    let first = wanted.iter().zip(&said).position(|(w, s)| w != s);
    assert_eq!(
        (wanted.len(), first.map(|i| (&wanted[i], &said[i]))),
        (said.len(), None),
        "{when}: what was counted is not what is there"
    );
    wanted.len()
}

/// Timers that were due when the node went fire when it is back, without a record: what they say is waited for, and must
/// then be right.
async fn judge_windows(client: &Client, when: &str) -> usize {
    let records = texts(client, "t").await;
    let mut windows = BTreeMap::<(i64, u64), u64>::new();
    let mut numbers = Vec::new();
    for (timestamp, value) in &records {
        let number: u64 = value.split(':').next().unwrap().parse().unwrap();
        *windows
            .entry(((timestamp / 50 + 1) * 50, number % 7))
            .or_default() += 1;
        numbers.push(number);
    }
    let latest = records.last().map_or(i64::MIN, |(t, _)| *t);
    let over = windows.iter().filter(|((end, _), _)| *end <= latest);
    let wanted: Vec<_> = over
        .map(|((end, bucket), n)| (*end, format!("{end} {bucket} {n}")))
        .collect();
    let begun = Instant::now();
    loop {
        let said = texts(client, "counts").await;
        let mut echo: Vec<u64> = texts(client, "echo")
            .await
            .iter()
            .map(|(_, n)| n.parse().unwrap())
            .collect();
        echo.sort_unstable();
        if said == wanted && echo == numbers {
            return wanted.len();
        }
        let first = wanted.iter().zip(&said).position(|(w, s)| w != s);
        let odd = numbers.iter().zip(&echo).position(|(w, s)| w != s);
        // What is missing may still come; what is wrong stays so.
        let wrong = first.is_some() || said.len() > wanted.len() || echo.len() > numbers.len();
        assert!(
            !wrong && begun.elapsed() < DEADLINE,
            "{when}: windows {} of {}, first difference {:?}; numbers {} of {}, first difference {:?}",
            said.len(),
            wanted.len(),
            first.map(|i| (&wanted[i], &said[i])),
            echo.len(),
            numbers.len(),
            odd.map(|i| (numbers[i], echo[i])),
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a command line says that must be done.
fn said(node: &Node, args: &[&str]) -> String {
    let output = node.cli(args, "").unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn batch(values: &[&str]) -> weir_client::Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    for value in values {
        builder.push(0, None, Some(value.as_bytes()), weir_types::Headers::NONE);
    }
    builder.build(Offset::ZERO, None).unwrap()
}

async fn send(client: &Client, values: &[&str]) {
    let mut producer = client.producer().await.unwrap();
    let sent = producer.send("t", 0, &batch(values)).await.unwrap();
    sent.done().await.unwrap();
}

/// Runs the load on the node until so many are acknowledged, and then `ends` it.
async fn until(client: &Client, load: &mut Load, want: u64, ends: impl FnOnce() + Send + 'static) {
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (ended, stops, counted) = (client.clone(), Arc::clone(&stop), Arc::clone(&count));
    let ending = std::thread::spawn(move || {
        let begun = Instant::now();
        while counted.load(Ordering::Relaxed) < want && begun.elapsed() < DEADLINE {
            std::thread::sleep(Duration::from_micros(300));
        }
        ends();
        stops.store(true, Ordering::Relaxed);
        // The node is gone without a word; the test need not wait until the connection notices.
        ended.disconnect();
    });
    load.run(client, &stop, &count).await;
    ending.join().unwrap();
    assert!(count.load(Ordering::Relaxed) >= want, "the load ended too early");
}

#[test]
fn what_a_module_remembers_is_what_is_stored_after_kill_9() {
    kill_9(IN_LINE[0]);
}

#[test]
fn timers_fire_once_whatever_kill_9_does() {
    kill_9(IN_LINE[1]);
}

#[test]
fn behind_the_log_each_record_counts_once_whatever_kill_9_does() {
    BEHIND.into_iter().for_each(kill_9);
}

/// Whether all there is is looked at before this round: of many rounds each fiftieth, since there is more each time. What is wrong stays
/// so.
fn is_judged(round: u32) -> bool {
    round < 50 || round.is_multiple_of(50)
}

fn kill_9(counting: Counting) {
    let dir = tempfile::tempdir().unwrap();
    let mut load = None;
    for round in 0..rounds("WEIR_KILL_ROUNDS", 6) {
        let node = Node::start(dir.path(), &[]).unwrap();
        block_on(async {
            let client = node.client().await.unwrap();
            match &load {
                None => {
                    counting.begin(&client).await;
                    load = Some(Load::new(&client, "t").await);
                }
                Some(_) if is_judged(round) => {
                    counting.judge(&client, &format!("round {round}")).await;
                }
                Some(_) => {}
            }
            let want = 50 + u64::from(round) * 137 % 900;
            until(&client, load.as_mut().unwrap(), want, || node.kill().unwrap()).await;
        });
    }
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        assert!(counting.judge(&client, "at the end").await > 0);
        if matches!(counting.what, What::Records) {
            send(&client, &["5", "12"]).await;
            counting.judge(&client, "and after it").await;
        }
    });
}

#[test]
fn what_a_module_remembers_is_what_is_stored_after_power_cuts() {
    power_cuts(IN_LINE[0]);
}

#[test]
fn timers_fire_once_whatever_power_cuts_do() {
    power_cuts(IN_LINE[1]);
}

#[test]
fn behind_the_log_each_record_counts_once_whatever_power_cuts_do() {
    BEHIND.into_iter().for_each(power_cuts);
}

fn power_cuts(counting: Counting) {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::make(dir.path(), 256) else {
        println!("SKIPPED: loop mounts are not permitted here, so no power can be cut");
        return;
    };
    let disk = Arc::new(disk);
    let mut load = None;
    let reserve = [("WEIR_DISK_RESERVE_BYTES", "1048576")];
    for round in 0..rounds("WEIR_POWER_CUTS", 4) {
        let node = Node::start_at(dir.path(), &disk.mount.join("data"), &reserve).unwrap();
        block_on(async {
            let client = node.client().await.unwrap();
            match &load {
                None => {
                    counting.begin(&client).await;
                    load = Some(Load::new(&client, "t").await);
                }
                Some(_) if is_judged(round) => {
                    counting.judge(&client, &format!("cut {round}")).await;
                }
                Some(_) => {}
            }
            let want = 60 + u64::from(round) * 211 % 700;
            let power = Arc::clone(&disk);
            let cut = move || {
                node.freeze().unwrap();
                assert!(power.cut(), "the ioctl is refused");
                node.kill().unwrap();
            };
            until(&client, load.as_mut().unwrap(), want, cut).await;
        });
        disk.detach();
        assert!(disk.attach());
    }
    let node = Node::start_at(dir.path(), &disk.mount.join("data"), &reserve).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        assert!(counting.judge(&client, "at the end").await > 0);
    });
    drop(node);
    disk.detach();
}

#[test]
fn the_next_leader_goes_on_with_what_a_module_remembers() {
    leaders(IN_LINE[0]);
}

#[test]
fn the_next_leader_goes_on_with_the_timers() {
    leaders(IN_LINE[1]);
}

#[test]
fn behind_the_log_each_record_counts_once_whoever_leads() {
    BEHIND.into_iter().for_each(leaders);
}

fn leaders(counting: Counting) {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[]).unwrap();
    let mut load = block_on(async {
        let client = site.client().await.unwrap();
        let load = loaded(&client).await;
        counting.begin(&client).await;
        load
    });
    for round in 0..rounds("WEIR_SITE_KILLS", 4) {
        let leader = site.leader().unwrap();
        let seeds = site.seeds();
        under_load(&seeds, &mut load, |count| {
            let wanted = 150 + u64::from(round) * 90;
            block_on(more_than(count, wanted));
            if round % 2 == 0 {
                site.kill(leader).unwrap();
            } else {
                // The one that led follows for a while, and leads again: what it had in memory is not what there is.
                site.transfer(leader % 3 + 1).unwrap();
                block_on(more_than(count, wanted + 100));
                site.transfer(leader).unwrap();
            }
            block_on(more_than(count, wanted + 200));
        });
        if round % 2 == 0 {
            site.start(leader).unwrap();
        }
        block_on(async {
            let client = site.client().await.unwrap();
            counting
                .judge(&client, &format!("round {round}, node {leader} led"))
                .await
        });
    }
}

/// What is read is in one replica group, what is made in others, and what is remembered in the site's: each record counts once
/// all the same, whoever of them is killed.
#[test]
fn behind_the_log_each_record_counts_once_whichever_groups_have_the_topics() {
    BEHIND
        .into_iter()
        .for_each(|counting| across_groups(counting, &[("t", "3"), ("counts", "3"), ("echo", "1")]));
}

#[test]
fn in_line_each_record_counts_once_whichever_groups_have_the_outputs() {
    IN_LINE
        .into_iter()
        .for_each(|counting| across_groups(counting, &[("counts", "1"), ("echo", "3")]));
}

/// A group of one stands still while its node is away: what is for it waits.
fn across_groups(counting: Counting, spread: &[(&str, &str)]) {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::of_three(dir.path(), &[]).unwrap();
    for (topic, replicas) in spread {
        let made = [
            "topic",
            "create",
            topic,
            "--replication",
            replicas,
            "--config",
            "retention.ms=-1",
        ];
        site.cli(&made).unwrap();
    }
    site.until("replica groups in place", weir_tests::replica_groups::in_place)
        .unwrap();
    let mut load = block_on(async {
        let client = site.client().await.unwrap();
        counting.begin(&client).await;
        Load::new(&client, "t").await
    });
    for round in 0..rounds("WEIR_SITE_KILLS", 3) {
        let victim = round as usize % 3 + 1;
        let seeds = site.seeds();
        under_load(&seeds, &mut load, |count| {
            let wanted = 150 + u64::from(round) * 90;
            block_on(more_than(count, wanted));
            site.kill(victim).unwrap();
            block_on(more_than(count, wanted + 200));
        });
        site.start(victim).unwrap();
        site.until("replica groups in place", weir_tests::replica_groups::in_place)
            .unwrap();
        block_on(async {
            let client = site.client().await.unwrap();
            if counting.behind {
                caught_up(&client).await;
            }
        });
        site.until("nothing waits for other groups", |status| {
            status["outbox"]
                .as_array()
                .is_some_and(|all| all.iter().all(|waiting| waiting["records"] == 0))
        })
        .unwrap();
        block_on(async {
            let client = site.client().await.unwrap();
            let when = format!("round {round}, node {victim} was killed");
            assert!(counting.judge(&client, &when).await > 0);
        });
    }
}

/// Between which steps the node is stopped: `weir_log::Stop` says what they are.
const STOPS: [&str; 9] = [
    "read",
    "computed",
    "proposing",
    "proposed",
    "writing",
    "written",
    "applying",
    "applied",
    "answering",
];
/// And of what is for another replica group.
const OUTBOX_STOPS: [&str; 3] = ["sending", "sent", "trimming"];

#[test]
fn in_line_each_record_counts_once_whatever_it_was_at_when_it_was_killed() {
    stops(IN_LINE[0], false, false);
    stops(IN_LINE[1], false, true);
}

#[test]
fn in_line_each_record_counts_once_whatever_it_was_at_when_its_power_was_cut() {
    stops(IN_LINE[1], true, false);
}

#[test]
fn behind_the_log_each_record_counts_once_whatever_it_was_at_when_it_was_killed() {
    stops(BEHIND[1], false, false);
    stops(BEHIND[0], false, true);
}

#[test]
fn behind_the_log_each_record_counts_once_whatever_it_was_at_when_its_power_was_cut() {
    stops(BEHIND[0], true, true);
}

/// Stops the node between two steps, by the round's number, and kills it there or cuts its power. With `spread`, outputs are in
/// another replica group. By hand `WEIR_STOP_ROUNDS=1000`.
fn stops(counting: Counting, power: bool, spread: bool) {
    let dir = tempfile::tempdir().unwrap();
    let disk = if power {
        let Some(disk) = Disk::make(dir.path(), 256) else {
            println!("SKIPPED: loop mounts are not permitted here, so no power can be cut");
            return;
        };
        Some(Arc::new(disk))
    } else {
        None
    };
    let data = disk
        .as_ref()
        .map_or_else(|| dir.path().join("data"), |disk| disk.mount.join("data"));
    let reserve = ("WEIR_DISK_RESERVE_BYTES", "1048576");
    let mut places = STOPS.to_vec();
    places.extend(spread.then_some(OUTBOX_STOPS).into_iter().flatten());
    let armed = dir.path().join("armed");
    let (mut load, mut stopped) = (None, BTreeMap::<&str, u32>::new());
    let settled = async |node: &Node, client: &Client, when: &str| {
        if spread {
            nothing_waits(node).await;
        }
        counting.judge(client, when).await
    };
    let all = rounds("WEIR_STOP_ROUNDS", places.len() as u32);
    for round in 0..all {
        let place = places[round as usize % places.len()];
        // Once a second, where all has arrived.
        let times = if place == "trimming" { 1 } else { 31 };
        let at = format!(
            "{place}:{}:{}",
            1 + u64::from(round) * 7_919 % times,
            armed.display()
        );
        let node = Node::start_at(dir.path(), &data, &[reserve, ("WEIR_STOP_AT", &at)]).unwrap();
        let cut = disk.clone();
        let has_stopped = block_on(async {
            let client = node.client().await.unwrap();
            match &load {
                None => {
                    if spread {
                        said(
                            &node,
                            &[
                                "topic",
                                "create",
                                "counts",
                                "--replication",
                                "1",
                                "--config",
                                "retention.ms=-1",
                            ],
                        );
                    }
                    counting.begin(&client).await;
                    load = Some(Load::new(&client, "t").await);
                }
                Some(_) if is_judged(round) => {
                    settled(&node, &client, &format!("round {round}, after `{place}`")).await;
                }
                // Timers of the node's time fire at the end of the log: it has to come there now and then.
                Some(_) if counting.behind => caught_up(&client).await,
                Some(_) => {}
            }
            std::fs::write(&armed, "").unwrap();
            let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
            let (ended, stops, counted) = (client.clone(), Arc::clone(&stop), Arc::clone(&count));
            let ending = std::thread::spawn(move || {
                let begun = Instant::now();
                // It may be that it does not come there so often.
                let is_enough =
                    || counted.load(Ordering::Relaxed) > 3_000 && begun.elapsed() > Duration::from_secs(2);
                while !node.is_frozen().unwrap() && !is_enough() && begun.elapsed() < DEADLINE {
                    std::thread::sleep(Duration::from_micros(300));
                }
                let has_stopped = node.is_frozen().unwrap();
                if let Some(disk) = cut {
                    node.freeze().unwrap();
                    assert!(disk.cut(), "the ioctl is refused");
                }
                node.kill().unwrap();
                stops.store(true, Ordering::Relaxed);
                ended.disconnect();
                has_stopped
            });
            load.as_mut().unwrap().run(&client, &stop, &count).await;
            ending.join().unwrap()
        });
        *stopped.entry(place).or_default() += u32::from(has_stopped);
        std::fs::remove_file(&armed).unwrap();
        if let Some(disk) = &disk {
            disk.detach();
            assert!(disk.attach());
        }
    }
    println!("stopped at {stopped:?} of {all} rounds");
    let reached: u32 = stopped.values().sum();
    assert!(
        reached * 3 >= all * 2,
        "it hardly stops where it should: {stopped:?}"
    );
    let node = Node::start_at(dir.path(), &data, &[reserve]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        assert!(settled(&node, &client, "at the end").await > 0);
    });
    drop(node);
    if let Some(disk) = disk {
        disk.detach();
    }
}

/// Waits until what was made for other groups is there.
async fn nothing_waits(node: &Node) {
    let begun = Instant::now();
    loop {
        let status = said(node, &["cluster", "status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let outbox = status["outbox"].as_array().unwrap();
        if outbox.iter().all(|waiting| waiting["records"] == 0) {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "it does not arrive: {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
