//! A run: a site, its clients and its faults, all from a single seed.

use crate::entropy::{self, Dice};
use crate::invariants::Invariants;
use crate::load;
use crate::node::{Node, View, lock};
use anyhow::{Result, anyhow};
use serde::Serialize;
use std::hash::Hasher;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use weir_checkers::{Event, Outcome};
use weir_log::{StateKey, StateKind};
use weir_types::{GroupId, Offset, PartitionId};

/// Nodes of a replica group.
pub(crate) const GROUP_SIZE: u32 = 3;
/// Duration of the faults; in a run of eight, longer than all timeouts.
const FAULTS_FOR: Duration = Duration::from_secs(8);
const FAULTS_FOR_LONG: Duration = Duration::from_secs(25);
/// No run takes longer, in its own time.
const OVER_WITHIN: Duration = Duration::from_secs(180);

/// Phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    Forming,
    Faults,
    /// Everybody is up and reaches everybody.
    Heal,
    /// Nothing is under way any more.
    Rest,
    Over,
}

/// Shared by hosts, clients and the driver.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) nodes: Arc<Vec<Arc<Node>>>,
    pub(crate) producers: u32,
    /// Nodes that each partition is on, in replica groups; all of the site's if none.
    pub(crate) replicas: Option<u32>,
    pub(crate) history: Mutex<Vec<Event>>,
    wrong: Mutex<Vec<String>>,
    phase: AtomicU8,
    /// A node is being replaced, or must be.
    pub(crate) changing: AtomicBool,
    /// The topic was asked to be elsewhere.
    pub(crate) moves: AtomicBool,
    /// A bit was flipped on some disk.
    pub(crate) rotten: AtomicBool,
    told_ends: [AtomicU64; load::PARTITIONS as usize],
}

/// Result of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) faults: Vec<String>,
    pub(crate) acknowledged: usize,
    pub(crate) unknown: usize,
    pub(crate) entries: u64,
    pub(crate) virtual_ms: u64,
    pub(crate) took_ms: u64,
    /// A hash over all that was observed: two runs of a seed have the same.
    pub(crate) trace: String,
    pub(crate) violations: Vec<String>,
}

impl World {
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Forming,
            1 => Phase::Faults,
            2 => Phase::Heal,
            3 => Phase::Rest,
            _ => Phase::Over,
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(crate) fn wrong(&self, what: String) {
        let mut wrong = lock(&self.wrong);
        if wrong.len() < 20 {
            wrong.push(what);
        }
    }

    /// Up to where somebody was told that his records are there.
    pub(crate) fn told_end(&self, partition: u32) -> u64 {
        self.told_ends[partition as usize].load(Ordering::Relaxed)
    }

    /// A client has been told so.
    pub(crate) fn told(&self, partition: u32, end: u64) {
        self.told_ends[partition as usize].fetch_max(end, Ordering::Relaxed);
    }

    /// A client may be told so now: the batch must be on the disks of most, whatever happens next; of a
    /// witness, its entry.
    pub(crate) fn acknowledged(&self, partition: PartitionId, base: Offset, span: u64) {
        let key = [&partition.0.to_be_bytes()[..], &base.get().to_be_bytes()].concat();
        // A leader that was away may tell of a batch after others have learned that all of the partition went
        // elsewhere.
        let position = StateKey::new(StateKind::Position, &partition.0.to_be_bytes());
        let went = |n: &Node| self.moves.load(Ordering::Relaxed) && n.disk.durable_state(&position).is_none();
        let has = |n: &Node| match n.witness {
            true => n.disk.knows_of(partition, base),
            false => n.disk.durable(1, &key).is_some() || went(n),
        };
        let have: Vec<_> = self.nodes.iter().filter(|n| has(n)).map(|n| n.id()).collect();
        // While a node of two is being removed, the other continues alone: the witness votes no more.
        let alone = self.changing.load(Ordering::Relaxed) && self.nodes.iter().any(|n| n.witness);
        let all = match partition.group() {
            _ if alone => 1,
            GroupId::SITE => self.nodes.len(),
            _ => GROUP_SIZE as usize,
        };
        if have.len() <= all / 2 {
            self.wrong(format!(
                "[{base}, +{span}) of partition {partition} is acknowledged and on the disks of {have:?} alone"
            ));
        }
    }
}

/// FNV-1a, over everything that is observed.
struct Trace(u64);

impl Trace {
    fn add(&mut self, what: &str) {
        self.write(what.as_bytes());
    }
}

impl Hasher for Trace {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
}

/// Runs `seed`. `show` prints the events meanwhile.
pub(crate) fn run(seed: u64, under: &Path, show: bool) -> Result<Report> {
    entropy::seed(seed);
    entropy::install();
    let begun = Instant::now();
    let mut dice = Dice::new(seed, 0);
    let count = [3, 3, 3, 5][dice.roll(4) as usize];
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(seed)
        .enable_random_order()
        .tick_duration(Duration::from_millis(1))
        .simulation_duration(OVER_WITHIN)
        .min_message_latency(Duration::ZERO)
        .max_message_latency(Duration::from_millis([2, 5, 20, 60][dice.roll(4) as usize]))
        .udp_capacity(1 << 16);
    let mut sim = builder.build();
    // A third of the sites of three have a witness.
    let witness = count == 3 && Dice::new(seed, 3).once_in(3);
    // And a third of the others have their partitions in replica groups.
    let replicas = (!witness && Dice::new(seed, 4).once_in(3)).then_some(GROUP_SIZE);
    let node = |id| Node::new(id, seed, witness && id == count, under);
    let nodes: Result<Vec<_>> = (1..=count).map(node).collect();
    let nodes = Arc::new(nodes?);
    for node in nodes.iter() {
        let (node, nodes) = (Arc::clone(node), Arc::clone(&nodes));
        sim.host(node.host(), move || Arc::clone(&node).run(Arc::clone(&nodes)));
    }
    let world = Arc::new(World {
        seed,
        nodes,
        producers: 2 + dice.roll(3) as u32,
        replicas,
        history: Mutex::default(),
        wrong: Mutex::default(),
        phase: AtomicU8::new(Phase::Forming as u8),
        changing: AtomicBool::new(false),
        moves: AtomicBool::new(false),
        rotten: AtomicBool::new(false),
        told_ends: Default::default(),
    });
    sim.client("load", load::run(Arc::clone(&world)));
    let mut driver = Driver {
        faults: crate::faults::Faults::new(seed, Arc::clone(&world)),
        invariants: Invariants::default(),
        trace: Trace(0xcbf2_9ce4_8422_2325),
        world: Arc::clone(&world),
        until: None,
        faults_for: match dice.once_in(8) {
            true => FAULTS_FOR_LONG,
            false => FAULTS_FOR,
        },
        show,
        seen: vec![View::default(); world.nodes.len()],
    };
    let ended = driver.drive(&mut sim);
    let virtual_ms = sim.elapsed().as_millis() as u64;
    let Driver { faults, trace, .. } = driver;
    let mut violations = lock(&world.wrong).clone();
    violations.extend(ended.err().map(|e| e.to_string()));
    let history = std::mem::take(&mut *lock(&world.history));
    if world.phase() == Phase::Over {
        violations.extend(weir_checkers::check(&history).iter().map(|v| v.to_string()));
    }
    // Records in the value log are recovered even without the database.
    for node in world.nodes.iter().filter(|node| !node.witness) {
        let came = weir_log::comes_back(&node.disk, &node.dir());
        violations.extend(came.err().map(|why| format!("{}: {why}", node.host())));
    }
    let sends = |of: Outcome| {
        let is = |e: &&Event| matches!(e, Event::Send { outcome, .. } if *outcome == of);
        history.iter().filter(is).count()
    };
    let mut trace = trace;
    history.iter().for_each(|e| trace.add(&format!("{e:?}")));
    Ok(Report {
        seed,
        nodes: world.nodes.len(),
        acknowledged: sends(Outcome::Ok),
        unknown: sends(Outcome::Unknown),
        entries: world
            .nodes
            .iter()
            .map(|n| n.view().applied)
            .max()
            .unwrap_or_default(),
        faults: faults.told(),
        virtual_ms,
        took_ms: begun.elapsed().as_millis() as u64,
        trace: format!("{:016x}", trace.finish()),
        violations,
    })
}

struct Driver {
    faults: crate::faults::Faults,
    invariants: Invariants,
    trace: Trace,
    world: Arc<World>,
    /// When faults end.
    until: Option<Duration>,
    faults_for: Duration,
    show: bool,
    seen: Vec<View>,
}

impl Driver {
    fn drive(&mut self, sim: &mut turmoil::Sim<'_>) -> Result<()> {
        loop {
            let over = sim.step().map_err(|e| anyhow!("{e}"))?;
            let now = sim.elapsed();
            self.faults.power(sim);
            if matches!(self.world.phase(), Phase::Faults | Phase::Heal)
                && let Some(what) = self.faults.tend(sim, now)?
            {
                self.say(now, &what);
            }
            // A node that stopped by itself after the end of the faults.
            if self.world.phase() == Phase::Heal
                && let Some(what) = self.faults.revive(sim, now)
            {
                self.say(now, &what);
            }
            if self.world.phase() == Phase::Faults {
                let until = *self.until.get_or_insert(now + self.faults_for);
                if now >= until {
                    self.faults.heal(sim);
                    self.world.enter(Phase::Heal);
                } else if let Some(what) = self.faults.step(sim, now) {
                    self.say(now, &what);
                }
            }
            self.look(now);
            if over || !lock(&self.world.wrong).is_empty() {
                return Ok(());
            }
        }
    }

    /// Checks the invariants, and adds the views to the trace.
    fn look(&mut self, now: Duration) {
        for (i, node) in self.world.nodes.iter().enumerate() {
            let view = node.view();
            if view == self.seen[i] {
                continue;
            }
            self.trace
                .add(&format!("{} {} {view:?}", now.as_millis(), node.id()));
            if self.show {
                eprintln!("{:>7} ms  node {}: {view:?}", now.as_millis(), node.id());
            }
            for wrong in self.invariants.check(node, &view, &self.seen[i]) {
                self.world.wrong(format!("at {} ms: {wrong}", now.as_millis()));
            }
            self.seen[i] = view;
        }
        let views = self.world.nodes.iter().map(|n| n.id()).zip(&self.seen);
        for wrong in self.invariants.serves_alone(now, &views.collect::<Vec<_>>()) {
            self.world.wrong(format!("at {} ms: {wrong}", now.as_millis()));
        }
    }

    fn say(&mut self, now: Duration, what: &str) {
        self.trace.add(what);
        if self.show {
            eprintln!("{:>7} ms  {what}", now.as_millis());
        }
    }
}
