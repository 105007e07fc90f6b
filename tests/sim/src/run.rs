//! A run: a site, its clients and its faults, all from a single seed.

use crate::entropy::{self, Dice};
use crate::invariants::Invariants;
use crate::load;
use crate::node::{Node, View, lock};
use crate::world::{GROUP_SIZE, Phase, World};
use anyhow::{Result, anyhow};
use serde::Serialize;
use std::hash::Hasher;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_checkers::{Event, Outcome};

/// Duration of the faults; in a run of eight, longer than all timeouts.
const FAULTS_FOR: Duration = Duration::from_secs(8);
const FAULTS_FOR_LONG: Duration = Duration::from_secs(25);
/// No run takes longer, in its own time.
const OVER_WITHIN: Duration = Duration::from_secs(180);

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
    let producers = 2 + dice.roll(3) as u32;
    let world = Arc::new(World::new(seed, nodes, producers, replicas));
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
    let mut violations = world.violations();
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
            if over || !self.world.violations().is_empty() {
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
