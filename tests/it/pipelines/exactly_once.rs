//! Every record counts exactly once in the state and in the outputs of a pipeline, whatever stops its node.
//! Few rounds in CI; by hand `WEIR_KILL_ROUNDS=100`, `WEIR_POWER_CUTS=50`, `WEIR_SITE_KILLS=50`,
//! `WEIR_STOP_ROUNDS=1000`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use weir_client::Client;
use weir_tests::counting::{At, Counting, Output, caught_up, outbox_empty};
use weir_tests::disk::Disk;
use weir_tests::load::{Load, loaded, more_than, under_load, wait_for};
use weir_tests::records::send_texts;
use weir_tests::replica_groups::in_place;
use weir_tests::site::Site;
use weir_tests::{Node, block_on, cli, rounds};

/// Faults that stop the pipeline, again and again.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The node is killed under load.
    Kill,
    /// The node loses its power under load.
    PowerCut,
    /// The leader is killed or moved; another node continues.
    Failover,
    /// Topics are in replica groups of their own, given with their replicas; each node is killed in turn.
    GroupFailover(Spread),
    /// The node is killed between two steps of a record.
    Failpoint(Outputs),
    /// The node loses its power between two steps of a record.
    FailpointPowerCut(Outputs),
}

/// Topics with the number of their replicas.
type Spread = &'static [(&'static str, &'static str)];
/// Outputs in replica groups of their own.
const OUTPUTS_SPREAD: Spread = &[("counts", "1"), ("echo", "3")];
/// Source and outputs in replica groups of their own.
const ALL_SPREAD: Spread = &[("t", "3"), ("counts", "3"), ("echo", "1")];

/// Replica group of the output topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outputs {
    /// The same as of the source.
    Local,
    /// Another than of the source.
    Remote,
}

/// Makes a test of each row: name, place of the pipeline, its output, fault.
macro_rules! cases {
    ($($name:ident: $at:ident, $output:ident, $fault:expr;)*) => {$(
        #[test]
        fn $name() {
            let counting = Counting { at: At::$at, output: Output::$output };
            counts_each_record_once(stringify!($name), counting, $fault);
        }
    )*};
}

cases! {
    inline_records_after_kill: Inline, Records, Fault::Kill;
    inline_windows_after_kill: Inline, Windows, Fault::Kill;
    log_records_after_kill: Log, Records, Fault::Kill;
    log_windows_after_kill: Log, Windows, Fault::Kill;

    inline_records_after_power_cut: Inline, Records, Fault::PowerCut;
    inline_windows_after_power_cut: Inline, Windows, Fault::PowerCut;
    log_records_after_power_cut: Log, Records, Fault::PowerCut;
    log_windows_after_power_cut: Log, Windows, Fault::PowerCut;

    inline_records_after_failover: Inline, Records, Fault::Failover;
    inline_windows_after_failover: Inline, Windows, Fault::Failover;
    log_records_after_failover: Log, Records, Fault::Failover;
    log_windows_after_failover: Log, Windows, Fault::Failover;

    inline_records_after_group_failover: Inline, Records, Fault::GroupFailover(OUTPUTS_SPREAD);
    inline_windows_after_group_failover: Inline, Windows, Fault::GroupFailover(OUTPUTS_SPREAD);
    log_records_after_group_failover: Log, Records, Fault::GroupFailover(ALL_SPREAD);
    log_windows_after_group_failover: Log, Windows, Fault::GroupFailover(ALL_SPREAD);

    inline_records_at_failpoints: Inline, Records, Fault::Failpoint(Outputs::Local);
    inline_windows_at_failpoints: Inline, Windows, Fault::Failpoint(Outputs::Remote);
    log_records_at_failpoints: Log, Records, Fault::Failpoint(Outputs::Remote);
    log_windows_at_failpoints: Log, Windows, Fault::Failpoint(Outputs::Local);
    inline_windows_at_failpoints_with_power_cut: Inline, Windows, Fault::FailpointPowerCut(Outputs::Local);
    log_records_at_failpoints_with_power_cut: Log, Records, Fault::FailpointPowerCut(Outputs::Remote);
}

fn counts_each_record_once(case: &str, counting: Counting, fault: Fault) {
    let dir = tempfile::tempdir().unwrap();
    let disk = match fault {
        Fault::PowerCut | Fault::FailpointPowerCut(_) => match Disk::make(dir.path(), 256) {
            Some(disk) => Some(Arc::new(disk)),
            None => {
                println!("SKIPPED: {case}: loop mounts are not permitted here, so no power can be cut");
                return;
            }
        },
        _ => None,
    };
    let place = Place {
        dir: dir.path(),
        disk,
    };
    match fault {
        Fault::Kill => after_stops(case, counting, &place, "WEIR_KILL_ROUNDS", 6),
        Fault::PowerCut => after_stops(case, counting, &place, "WEIR_POWER_CUTS", 4),
        Fault::Failover => after_failover(case, counting, place.dir),
        Fault::GroupFailover(spread) => after_group_failover(case, counting, place.dir, spread),
        Fault::Failpoint(outputs) | Fault::FailpointPowerCut(outputs) => {
            at_failpoints(case, counting, &place, outputs);
        }
    }
}

/// Directory of a node, on a disk whose power can be cut where there is a disk.
struct Place<'a> {
    dir: &'a Path,
    disk: Option<Arc<Disk>>,
}

impl Place<'_> {
    fn start(&self, env: &[(&str, &str)]) -> Node {
        let data = self
            .disk
            .as_ref()
            .map_or_else(|| self.dir.join("data"), |disk| disk.mount.join("data"));
        let reserve = self.disk.as_ref().map(|_| ("WEIR_DISK_RESERVE_BYTES", "1048576"));
        let env: Vec<_> = reserve.into_iter().chain(env.iter().copied()).collect();
        Node::start_at(self.dir, &data, &env).unwrap()
    }

    /// Mounts the disk again after a power cut.
    fn restore(&self) {
        if let Some(disk) = &self.disk {
            disk.detach();
            assert!(disk.attach(), "the file system does not mount after the cut");
        }
    }
}

/// Ends a node: by a power cut where there is a disk, by a kill otherwise.
fn end(node: Node, disk: Option<&Disk>) {
    if let Some(disk) = disk {
        node.freeze().unwrap();
        assert!(disk.cut(), "the ioctl is refused");
    }
    node.kill().unwrap();
}

/// Tells whether the output is checked before this round: of many rounds each fiftieth, since the output
/// grows. A wrong output stays wrong.
fn is_judged(round: u32) -> bool {
    round < 50 || round.is_multiple_of(50)
}

fn after_stops(case: &str, counting: Counting, place: &Place<'_>, variable: &str, few: u32) {
    let mut load = None;
    for round in 0..rounds(variable, few) {
        let node = place.start(&[]);
        block_on(async {
            let client = node.client().await.unwrap();
            match &load {
                None => {
                    counting.begin(&client).await;
                    load = Some(Load::new(&client, "t").await);
                }
                Some(_) if is_judged(round) => {
                    counting.judge(&client, &format!("{case}, round {round}")).await;
                }
                Some(_) => {}
            }
            let want = 50 + u64::from(round) * 137 % 900;
            let disk = place.disk.clone();
            let ends = move || end(node, disk.as_deref());
            load.as_mut().unwrap().run_until(&client, want, ends).await;
        });
        place.restore();
    }
    let node = place.start(&[]);
    block_on(async {
        let client = node.client().await.unwrap();
        assert!(counting.judge(&client, &format!("{case}, at the end")).await > 0);
        if counting.output == Output::Records {
            send_texts(&client, &["5", "12"]).await;
            counting
                .judge(&client, &format!("{case}, two records later"))
                .await;
        }
    });
    drop(node);
    if let Some(disk) = &place.disk {
        disk.detach();
    }
}

fn after_failover(case: &str, counting: Counting, dir: &Path) {
    let mut site = Site::of_three(dir, &[]).unwrap();
    let mut load = block_on(async {
        let client = site.client().await.unwrap();
        let load = loaded(&client).await;
        counting.begin(&client).await;
        load
    });
    for round in 0..rounds("WEIR_SITE_KILLS", 4) {
        let leader = site.leader().unwrap();
        let is_killed = round % 2 == 0;
        under_load(&site.seeds(), &mut load, |count| {
            let wanted = 150 + u64::from(round) * 90;
            block_on(more_than(count, wanted));
            if is_killed {
                site.kill(leader).unwrap();
            } else {
                // The leader follows for a while and leads again: its state in memory is older than the log.
                site.transfer(leader % 3 + 1).unwrap();
                block_on(more_than(count, wanted + 100));
                site.transfer(leader).unwrap();
            }
            block_on(more_than(count, wanted + 200));
        });
        if is_killed {
            site.start(leader).unwrap();
        }
        block_on(async {
            let client = site.client().await.unwrap();
            let when = format!("{case}, round {round}, node {leader} led");
            counting.judge(&client, &when).await
        });
    }
}

/// A group with a single replica stands still while its node is down: its records wait in an outbox.
fn after_group_failover(case: &str, counting: Counting, dir: &Path, spread: &[(&str, &str)]) {
    let mut site = Site::of_three(dir, &[]).unwrap();
    for (topic, replicas) in spread {
        let create = ["topic", "create", topic, "--replication", replicas];
        site.cli(&[&create[..], &["--config", "retention.ms=-1"]].concat())
            .unwrap();
    }
    site.until("replica groups in place", in_place).unwrap();
    let mut load = block_on(async {
        let client = site.client().await.unwrap();
        counting.begin(&client).await;
        Load::new(&client, "t").await
    });
    for round in 0..rounds("WEIR_SITE_KILLS", 3) {
        let victim = round as usize % 3 + 1;
        under_load(&site.seeds(), &mut load, |count| {
            let wanted = 150 + u64::from(round) * 90;
            block_on(more_than(count, wanted));
            site.kill(victim).unwrap();
            block_on(more_than(count, wanted + 200));
        });
        site.start(victim).unwrap();
        site.until("replica groups in place", in_place).unwrap();
        if counting.at == At::Log {
            block_on(async { caught_up(&site.client().await.unwrap()).await });
        }
        site.until("outputs have arrived in their replica groups", |status| {
            status["outbox"]
                .as_array()
                .is_some_and(|all| all.iter().all(|waiting| waiting["records"] == 0))
        })
        .unwrap();
        block_on(async {
            let client = site.client().await.unwrap();
            let when = format!("{case}, round {round}, node {victim} was killed");
            assert!(counting.judge(&client, &when).await > 0);
        });
    }
}

/// Failpoints of a record on its way; `weir_log::Stop` describes each.
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
/// Failpoints of an output for another replica group.
const OUTBOX_STOPS: [&str; 3] = ["sending", "sent", "trimming"];

/// Ends the node at a failpoint that follows from the number of the round.
fn at_failpoints(case: &str, counting: Counting, place: &Place<'_>, outputs: Outputs) {
    let is_remote = outputs == Outputs::Remote;
    let mut stops = STOPS.to_vec();
    stops.extend(is_remote.then_some(OUTBOX_STOPS).into_iter().flatten());
    let armed = place.dir.join("armed");
    let (mut load, mut reached) = (None, BTreeMap::<&str, u32>::new());
    let settled = async |node: &Node, client: &Client, when: &str| {
        if is_remote {
            outbox_empty(node).await;
        }
        counting.judge(client, when).await
    };
    let all = rounds("WEIR_STOP_ROUNDS", stops.len() as u32);
    for round in 0..all {
        let stop = stops[round as usize % stops.len()];
        // The outbox is trimmed once a second.
        let times = if stop == "trimming" { 1 } else { 31 };
        let nth = 1 + u64::from(round) * 7_919 % times;
        let at = format!("{stop}:{nth}:{}", armed.display());
        let reserve = ("WEIR_DISK_RESERVE_BYTES", "1048576");
        let node = place.start(&[reserve, ("WEIR_STOP_AT", &at)]);
        let has_stopped = block_on(async {
            let client = node.client().await.unwrap();
            match &load {
                None => {
                    if is_remote {
                        let create = ["topic", "create", "counts", "--replication", "1"];
                        cli::run(&node, &[&create[..], &["--config", "retention.ms=-1"]].concat());
                    }
                    counting.begin(&client).await;
                    load = Some(Load::new(&client, "t").await);
                }
                Some(_) if is_judged(round) => {
                    settled(&node, &client, &format!("{case}, round {round}, after `{stop}`")).await;
                }
                // Timers of the node's clock fire at the end of the log: the pipeline must reach the end now
                // and then.
                Some(_) if counting.at == At::Log => caught_up(&client).await,
                Some(_) => {}
            }
            std::fs::write(&armed, "").unwrap();
            run_to_failpoint(load.as_mut().unwrap(), client, node, place.disk.clone()).await
        });
        *reached.entry(stop).or_default() += u32::from(has_stopped);
        std::fs::remove_file(&armed).unwrap();
        place.restore();
    }
    println!("{case}: reached {reached:?} in {all} rounds");
    let sum: u32 = reached.values().sum();
    assert!(
        sum * 3 >= all * 2,
        "{case}: few failpoints are reached: {reached:?}"
    );
    let node = place.start(&[]);
    block_on(async {
        let client = node.client().await.unwrap();
        assert!(settled(&node, &client, &format!("{case}, at the end")).await > 0);
    });
    drop(node);
    if let Some(disk) = &place.disk {
        disk.detach();
    }
}

/// Runs the load until the node stands at its failpoint, and ends the node; false when the node does not
/// reach the failpoint so often.
async fn run_to_failpoint(load: &mut Load, client: Client, node: Node, disk: Option<Arc<Disk>>) -> bool {
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (ended, stops, counted) = (client.clone(), Arc::clone(&stop), Arc::clone(&count));
    let ending = std::thread::spawn(move || {
        let begun = Instant::now();
        let is_enough =
            || counted.load(Ordering::Relaxed) > 3_000 && begun.elapsed() > Duration::from_secs(2);
        wait_for(|| node.is_frozen().unwrap() || is_enough());
        let has_stopped = node.is_frozen().unwrap();
        end(node, disk.as_deref());
        stops.store(true, Ordering::Relaxed);
        ended.disconnect();
        has_stopped
    });
    load.run(&client, &stop, &count).await;
    ending.join().unwrap()
}
