//! What modules remember: it is what their records make of it, whatever happens to the node.

use crate::cluster::{loaded, more_than, under_load};
use crate::crash::Load;
use crate::power::Disk;
use crate::{block_on, rounds};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use weir_client::{BatchBuilder, Client, Codec, Offset};
use weir_tests::site::Site;
use weir_tests::{DEADLINE, Node, guest, read_all};

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
        let refused = client.apply_pipeline(&wide).await.unwrap_err().to_string();
        assert!(
            refused.contains("remember 536870912 bytes") && refused.contains("92274688 are left"),
            "{refused}"
        );
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
        let dated = format!("{WINDOWS}event_time = {{ field = \"at\", unit = \"s\", idle_ms = 100 }}\n");
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
            limits = { state_bytes = 65536 }
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

/// A module that keeps its state in another form takes over what the version before it wrote, all at once, or nothing has happened.
#[test]
fn a_later_version_takes_over_what_the_one_before_it_remembers() {
    for counting in [IN_LINE[0], BEHIND[0]] {
        takes_over(counting);
    }
}

fn takes_over(counting: Counting) {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let at = if counting.behind { "at = \"log\"\n" } else { "" };
    let pipeline = |more: &str| format!("{at}{}", PIPELINE.replace("grants", &format!("{more}grants")));
    block_on(async {
        let client = node.client().await.unwrap();
        counting.begin(&client).await;
        send(&client, &["1", "8", "2"]).await;
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
            ("hoard", "its state has reached"),
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
        send(&client, &["15"]).await;
        counting.judge(&client, "after what was refused").await;

        // While records come.
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, stops) = (node.client().await.unwrap(), Arc::clone(&stop));
        let sending = tokio::spawn(async move {
            let mut producer = sender.producer().await.unwrap();
            let mut sent = 0_u64;
            while !stops.load(Ordering::Relaxed) {
                let batch = batch(&[&sent.to_string()]);
                match producer.send("t", 0, &batch).await.unwrap().done().await {
                    Ok(_) => sent += 1,
                    // It stands still for a moment.
                    Err(e) => assert!(e.to_string().contains("being changed"), "{e}"),
                }
            }
            sent
        });
        let applied = client.apply_pipeline(&pipeline("")).await.unwrap();
        let applied: serde_json::Value = serde_json::from_slice(&applied).unwrap();
        assert_eq!(applied["revision"], 2);
        stop.store(true, Ordering::Relaxed);
        assert!(sending.await.unwrap() > 0);
        send(&client, &["22", "3"]).await;
        let judged = counting.judge(&client, "by the second version").await;
        assert_ne!(digest(), first);

        // Not the other way round.
        let back = pipeline("").replace("\"counter\"", "\"counter@1\"");
        let refused = client.apply_pipeline(&back).await.unwrap_err().to_string();
        assert!(
            refused.contains("version 2 of its state, and would be"),
            "{refused}"
        );
        send(&client, &["4"]).await;
        assert_eq!(counting.judge(&client, "still by the second").await, judged + 1);
    });
    node.stop().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    block_on(async {
        let client = node.client().await.unwrap();
        send(&client, &["5"]).await;
        counting.judge(&client, "after a restart").await;
    });
    node.stop().unwrap();
}

/// A revision that leaves its bounds goes by itself; one that an operator does not like goes when told.
#[test]
fn what_a_pipeline_was_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    let cli = |args: &[&str]| said(&node, args);
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
            send(&client, &values).await;
            // Of no record is there a number under that name.
            client.apply_pipeline(&hot(at, "w", GUARD)).await.unwrap();
            let begun = Instant::now();
            loop {
                send(&client, &values).await;
                let rolled = cli(&["pipeline", "history", "hot", "-o", "json"]);
                if rolled.lines().count() == 3 {
                    break;
                }
                assert!(begun.elapsed() < DEADLINE, "{rolled}");
            }
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

            // By hand, to what is no better, which then stays: it was asked for.
            let said = cli(&["pipeline", "rollback", "hot", "--to", "2"]);
            assert!(said.contains("pipeline hot is as it was, revision 4"), "{said}");
            send(&client, &values).await;
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
    site.until("replica groups in place", crate::groups::in_place)
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
        site.until("replica groups in place", crate::groups::in_place)
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

#[test]
fn a_canary_works_on_its_partitions_until_it_is_promoted_or_leaves_its_bounds() {
    for at in ["ingest", "log"] {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::start(dir.path(), &[]).unwrap();
        canaries(&node, dir.path(), at);
        node.stop().unwrap();
    }
}

fn canaries(node: &Node, dir: &Path, at: &str) {
    let cli = |args: &[&str]| said(node, args);
    let file = dir.join("count.toml");
    let written = |pipeline: &str| {
        std::fs::write(&file, format!("at = \"{at}\"\n{pipeline}")).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let refused = |args: &[&str]| {
        let output = node.cli(args, "").unwrap();
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    block_on(async {
        let client = node.client().await.unwrap();
        client
            .push_module("counter", "1", &guest("counter"))
            .await
            .unwrap();
        client
            .create_topic("t", 4, &weir_tests::for_ever())
            .await
            .unwrap();
        for topic in ["counts", "tried"] {
            client
                .create_topic(topic, 1, &weir_tests::for_ever())
                .await
                .unwrap();
        }
        let mut producer = client.producer().await.unwrap();
        // Seven on each partition, each of the number 0.
        let mut round = async || {
            for partition in 0..4 {
                let sent = producer.send("t", partition, &batch(&["0"; 7])).await.unwrap();
                sent.done().await.unwrap();
            }
            if at == "log" {
                caught_up(&client).await;
            }
        };
        // How many there have been on its partition, of those that came to a topic, sorted.
        let counts = async |topic: &str| {
            let count = |text: &String| text.split(' ').nth(2).unwrap().parse::<u64>().unwrap();
            let mut counts: Vec<u64> = texts(&client, topic)
                .await
                .iter()
                .map(|(_, text)| count(text))
                .collect();
            counts.sort_unstable();
            counts
        };
        let times = |n: u64, partitions: usize| -> Vec<u64> {
            (1..=n).flat_map(|n| std::iter::repeat_n(n, partitions)).collect()
        };
        client
            .apply_pipeline(&std::fs::read_to_string(written(PIPELINE)).unwrap())
            .await
            .unwrap();
        round().await;
        assert_eq!(counts("counts").await, times(7, 4));
        let tried = PIPELINE.replace(r#""counts" }"#, r#""tried" }"#);
        for (partitions, why) in [("4", "there is no partition 4"), ("0,1,2,3", "not all")] {
            let told = refused(&["pipeline", "canary", &written(&tried), "--partitions", partitions]);
            assert!(told.contains(why), "{told}");
        }
        assert!(refused(&["pipeline", "promote", "count"]).contains("there is no canary"));
        cli(&["pipeline", "canary", &written(&tried), "--partitions", "1,3"]);
        assert!(
            refused(&["pipeline", "canary", &file.to_string_lossy(), "--partitions", "1"])
                .contains("at work already")
        );
        round().await;
        let listed = cli(&["pipeline", "list"]);
        assert!(listed.contains("count (tried on 1, 3)"), "{listed}");
        // Each goes on with what was remembered.
        let second: Vec<u64> = (8..=14).flat_map(|n| [n, n]).collect();
        assert_eq!(counts("tried").await, second);
        assert_eq!(counts("counts").await, [times(7, 4), second].concat());
        cli(&["pipeline", "promote", "count"]);
        round().await;
        assert_eq!(counts("counts").await.len(), 28 + 14);
        let third: Vec<u64> = (15..=21).flat_map(|n| [n; 4]).collect();
        assert_eq!(counts("tried").await[14..], third);
        // One that does not do what it says it would.
        let bad = format!("{PIPELINE}\n[guard]\nmin_records = 1\noutput = [5.0, 6.0]\n");
        cli(&["pipeline", "canary", &written(&bad), "--partitions", "0"]);
        round().await;
        let begun = Instant::now();
        let history = loop {
            let history = cli(&["pipeline", "history", "count"]);
            if history.contains("is taken back") {
                break history;
            }
            assert!(begun.elapsed() < DEADLINE, "{history}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert!(history.contains("tried on partitions 0"), "{history}");
        assert!(
            history.contains("promoted, after it was tried as revision 2"),
            "{history}"
        );
        let before = counts("counts").await.len();
        round().await;
        assert_eq!(
            counts("counts").await.len(),
            before,
            "what was promoted works on all again"
        );
        // And one is taken back by hand.
        cli(&["pipeline", "canary", &written(PIPELINE), "--partitions", "2"]);
        cli(&["pipeline", "rollback", "count"]);
        round().await;
        assert_eq!(counts("counts").await.len(), before);
        let all = counts("tried").await.len() + before;
        assert_eq!(all, 6 * 28, "each record counted once");
        // Back once more: to what worked on all before, not to what was only tried.
        cli(&["pipeline", "rollback", "count"]);
        let history = cli(&["pipeline", "history", "count"]);
        assert!(history.contains("rolled back to revision 1"), "{history}");
    });
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
