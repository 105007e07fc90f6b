//! Sites of three and five nodes within a process, on real logs: links are cut, both ways and in a single
//! direction, nodes are isolated, restarted and given the leadership, by a seed. Clients note their calls and
//! reads; the checkers judge them.
//!
//! Not a simulation: threads and time are real, so a seed gives the same faults and not the same run. A few
//! seeds in CI; `WEIR_CHAOS_SEEDS=200` by hand.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use weir_broker::{Broker, Fetch, Framing, GroupConfig, Member, NodeId, Options, Piece, Principal, Timing};
use weir_checkers::{Event, Outcome, Place, Seen, numbered};
use weir_log::Log;
use weir_replica::memory::Hub;
use weir_tests::{DEADLINE, block_on, eventually_async, rounds};
use weir_types::{ErrorKind, GroupId, Offset, SystemClock};

/// Duration of the faults.
const FAULTS_FOR: Duration = Duration::from_secs(6);
const PRODUCERS: u32 = 3;

/// xorshift64*: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

struct Site {
    dir: PathBuf,
    hub: Hub,
    nodes: Mutex<Vec<Option<Broker>>>,
}

impl Site {
    async fn of(dir: &Path, count: u64) -> Arc<Self> {
        let site = Arc::new(Self {
            dir: dir.to_owned(),
            hub: Hub::default(),
            nodes: Mutex::new(vec![None; count as usize]),
        });
        for node in 1..=count {
            site.open(node).await;
        }
        let first = site.node(1).unwrap();
        assert!(first.serving_within(DEADLINE).await);
        for node in 2..=count {
            first.group().add_learner(node, Member::default()).await.unwrap();
            eventually_async("the learner has caught up", async || {
                first.group().lag(node) == Some(0)
            })
            .await;
            first.group().promote(node).await.unwrap();
        }
        site
    }

    async fn open(&self, node: NodeId) {
        let dir = self.dir.join(node.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let options = weir_log::Options {
            disk_reserve_bytes: Some(0),
            value_log_from_bytes: 4_000,
            value_file_bytes: 64 << 10,
            ..weir_log::Options::default()
        };
        // Threads of the last run may still hold the log.
        let open = async || Log::open(&dir, &options);
        let (log, recovered) = eventually_async("the log opens", open).await;
        assert!(recovered.damage.is_none(), "{recovered:?}");
        let config = GroupConfig {
            id: GroupId(0),
            node,
            member: Member::default(),
            founders: (node == 1).then(|| (1, Member::default())).into_iter().collect(),
            timing: Timing::EDGE,
        };
        let (transport, clock) = (self.hub.transport(node), Arc::new(SystemClock));
        let broker = Broker::open(log, &recovered, config, transport, clock, Options::default());
        let broker = broker.await.unwrap();
        self.hub.add(node, broker.finds_groups());
        self.nodes.lock().unwrap()[node as usize - 1] = Some(broker);
    }

    async fn restart(&self, node: NodeId) {
        self.hub.remove(node);
        let broker = self.nodes.lock().unwrap()[node as usize - 1].take();
        if let Some(broker) = broker {
            tokio::task::block_in_place(|| broker.close());
        }
        self.open(node).await;
    }

    fn node(&self, node: NodeId) -> Option<Broker> {
        self.nodes.lock().unwrap()[node as usize - 1].clone()
    }

    fn all(&self) -> Vec<Broker> {
        self.nodes.lock().unwrap().iter().flatten().cloned().collect()
    }

    fn leader(&self) -> Option<Broker> {
        self.all().into_iter().find(Broker::is_serving)
    }

    /// Injects a fault; returns the time until the next.
    async fn fault(&self, dice: &mut Dice, count: u64) -> Duration {
        let (a, b) = (1 + dice.roll(count), 1 + dice.roll(count));
        let kind = dice.roll(8);
        if std::env::var_os("WEIR_CHAOS_SHOW").is_some() {
            eprintln!("fault {kind} of {a} and {b}");
        }
        match kind {
            0 => self.hub.cut(a, b),
            1 => self.hub.cut_one_way(a, b),
            2 => (1..=count).filter(|n| *n != a).for_each(|n| self.hub.cut(a, n)),
            3 => {
                // The leader, from all others, in a single direction.
                if let Some(leader) = self.leader().map(|l| l.group().node()) {
                    let inward = dice.roll(2) == 0;
                    for n in (1..=count).filter(|n| *n != leader) {
                        match inward {
                            true => self.hub.cut_one_way(n, leader),
                            false => self.hub.cut_one_way(leader, n),
                        }
                    }
                }
            }
            4 => {
                if let Some(leader) = self.leader() {
                    let _ = leader.group().transfer(a).await;
                }
            }
            5 => self.restart(a).await,
            6 => {
                // A log shorter than the lag of others: they need a snapshot.
                if let Some(broker) = self.node(a) {
                    let applied = broker.group().status().applied;
                    let _ = tokio::time::timeout(Duration::from_secs(1), broker.group().purge(applied)).await;
                }
            }
            _ => self.hub.heal(),
        }
        Duration::from_millis(50 + dice.roll(900))
    }
}

fn place() -> Place {
    Place {
        topic: "t".to_owned(),
        partition: 0,
    }
}

/// Sends numbered batches to the leader, each until its outcome is known.
async fn produce(site: Arc<Site>, client: u32, stop: Arc<AtomicBool>) -> Vec<Event> {
    let who = Principal::anonymous("chaos");
    let (mut history, mut sequence) = (Vec::new(), 0);
    let id = 1_000 + i64::from(client);
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let values: Vec<u64> = (0..1 + n % 4)
            .map(|i| u64::from(client) * 1_000_000 + n * 10 + i)
            .collect();
        n += 1;
        let batch = numbered::batch(id, sequence, &values).unwrap();
        let mut outcome = (Outcome::Unknown, None);
        // Beyond the end of the faults, so that little stays unknown.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            let Some(leader) = site.leader() else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let sent = leader.produce(&who, "t", 0, batch.clone(), Framing::AsSent).await;
            let done = match sent {
                Ok(producing) => producing.await,
                Err(e) => Err(e),
            };
            match done {
                Ok(produced) => {
                    outcome = (Outcome::Ok, Some(produced.base.get()));
                    break;
                }
                Err(e) if e.kind() == ErrorKind::Invalid => panic!("client {client}: {e}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        for (i, value) in values.iter().enumerate() {
            history.push(Event::Send {
                client,
                place: place(),
                value: *value,
                outcome: outcome.0,
                offset: outcome.1.map(|base| base + i as u64),
            });
        }
        if outcome.0 == Outcome::Unknown {
            break;
        }
        sequence += values.len() as i32;
    }
    history
}

/// Reads on and on, of whoever leads.
async fn consume(site: Arc<Site>, client: u32, stop: Arc<AtomicBool>) -> Vec<Event> {
    let (who, mut from, mut history) = (Principal::anonymous("chaos"), Offset::ZERO, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let Some(leader) = site.leader() else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let fetch = Fetch {
            topic: "t".to_owned(),
            partition: 0,
            from,
            max_bytes: 1 << 20,
            wait: Duration::from_millis(50),
        };
        let Ok(fetched) = leader.fetch(&who, fetch).await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let records = seen(&fetched.pieces, from);
        from = fetched.next;
        if !records.is_empty() {
            history.push(Event::Poll {
                client,
                place: place(),
                records,
            });
        }
    }
    history
}

fn seen(pieces: &[Piece], from: Offset) -> Vec<Seen> {
    let mut seen = Vec::new();
    for piece in pieces {
        let Piece::Batch(batch) = piece else {
            panic!("records are missing: {piece:?}")
        };
        seen.extend(numbered::seen(batch, from).unwrap());
    }
    seen
}

/// Returns all records of a node, leader or not.
fn stored(broker: &Broker) -> Vec<Seen> {
    let id = broker.topic("t").unwrap().partition(0).unwrap();
    let end = broker.log().marks(id).unwrap().committed_end();
    let (mut from, mut all) = (Offset::ZERO, Vec::new());
    while from < end {
        let (done, read) = std::sync::mpsc::channel();
        broker
            .log()
            .read(id, from, end, 1 << 20, move |r| drop(done.send(r)))
            .unwrap();
        let chunk = read.recv_timeout(DEADLINE).unwrap().unwrap();
        all.extend(seen(&chunk.pieces, from));
        from = chunk.next;
    }
    all
}

async fn run(seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice::new(seed);
    let count = [3, 3, 5][dice.roll(3) as usize];
    let site = Site::of(dir.path(), count).await;
    let who = Principal::anonymous("chaos");
    let first = site.leader().unwrap();
    let settings = [("retention.ms".to_owned(), "-1".to_owned())];
    first.create_topic(&who, "t", 1, &settings).await.unwrap();
    drop(first);
    let (stop, stop_reading) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut tasks = Vec::new();
    for client in 0..PRODUCERS {
        tasks.push(tokio::spawn(produce(
            Arc::clone(&site),
            client,
            Arc::clone(&stop),
        )));
    }
    let reading = tokio::spawn(consume(Arc::clone(&site), 100, Arc::clone(&stop_reading)));
    let begun = Instant::now();
    while begun.elapsed() < FAULTS_FOR {
        let pause = site.fault(&mut dice, count).await;
        tokio::time::sleep(pause).await;
    }
    site.hub.heal();
    stop.store(true, Ordering::Relaxed);
    let mut history = Vec::new();
    for task in tasks {
        history.extend(task.await.unwrap());
    }
    // The site comes to rest.
    eventually_async(
        &format!("seed {seed}: all nodes have applied the log"),
        async || {
            let applied: Vec<u64> = site.all().iter().map(|b| b.group().status().applied).collect();
            let last = site.leader().map(|l| l.group().status().last);
            let all_have = applied.iter().all(|a| Some(*a) == last);
            if all_have {
                Ok(())
            } else {
                Err(format!("{applied:?} of {last:?}"))
            }
        },
    )
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop_reading.store(true, Ordering::Relaxed);
    history.extend(reading.await.unwrap());
    for broker in site.all() {
        let records = tokio::task::block_in_place(|| stored(&broker));
        history.push(Event::Final {
            node: broker.group().node() as u32,
            place: place(),
            records,
        });
        let damaged = tokio::task::block_in_place(|| broker.log().scrub(|_, _| {}).unwrap()).damaged;
        assert_eq!(damaged, [], "seed {seed}");
    }
    let acknowledged = history
        .iter()
        .filter(|e| {
            matches!(
                e,
                Event::Send {
                    outcome: Outcome::Ok,
                    ..
                }
            )
        })
        .count();
    let wrong = weir_checkers::check(&history);
    if !wrong.is_empty()
        && let Some(dir) = std::env::var_os("WEIR_HISTORIES")
    {
        let path = Path::new(&dir).join(format!("chaos-{seed}.jsonl"));
        let mut file = std::fs::File::create(path).unwrap();
        weir_checkers::history::write(&history, &mut file).unwrap();
    }
    assert!(wrong.is_empty(), "seed {seed}: {wrong:?}");
    println!("seed {seed}: {count} nodes, {acknowledged} records acknowledged");
    for broker in site.all() {
        tokio::task::block_in_place(|| broker.close());
    }
}

#[test]
fn chaos_loses_and_duplicates_no_record() {
    let first: u64 = std::env::var("WEIR_CHAOS_FIRST")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(1);
    for seed in first..first + u64::from(rounds("WEIR_CHAOS_SEEDS", 4)) {
        block_on(run(seed));
    }
}
