//! The fault model: faults of a site, by a seed.
//!
//! | fault | effect |
//! | --- | --- |
//! | kill | a process ends; its writes stay |
//! | power cut | of a node, a minority or all: unsynced writes are lost, except for some of their beginning |
//! | power cut in a write | the write fails, and is there afterwards or not |
//! | partition | between two nodes, both ways or a single way; of a node from all; of the leader, inward or outward |
//! | hold | packets between two nodes wait, and then come all at once |
//! | loss, duplication | of a node's datagrams, up to a fifth; reordering is always there |
//! | slow disk | each write takes up to a second |
//! | full disk | a limited number of bytes can be written until there is room again; a node that stops for lack of space is started again and again |
//! | clock jump | an hour either way, a month behind, a year ahead, and as if the clock had never been set |
//! | bit rot | on a single node, once; of a header: the node finds the damage at its start, and rejoins under a new id; or of a batch: the node finds the damage when reading, and gets another replica's copy |
//! | change of members | a node is removed and its machine set up anew, under load |
//! | move | the topic's partitions go to replica groups, or back to all nodes |
//! | transfer, purge | the leadership is transferred; a log becomes shorter than the lag of others, who need a snapshot |
//!
//! Not in the model: a process that stands still while the world goes on (SIGSTOP on real nodes tests that).

use crate::entropy::Dice;
use crate::node::{Node, STOPPED, TOPIC, View};
use crate::world::{GROUP_SIZE, World};
use anyhow::Result;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use weir_broker::NodeId;

pub(crate) struct Faults {
    dice: Dice,
    world: Arc<World>,
    next: Duration,
    /// Hosts that are down, and until when.
    down: BTreeMap<u64, Duration>,
    told: Vec<String>,
    /// The node that is being replaced.
    replacing: Option<Replacing>,
    /// The last number that was given to a node.
    last_id: NodeId,
    rotten: bool,
}

/// A machine that is taken out of the site and set up anew as another node.
struct Replacing {
    host: u64,
    old: NodeId,
    /// Number of the new node, once set up.
    new: Option<NodeId>,
    /// When to look again.
    at: Duration,
}

/// Interval of checks on a change of members.
const TEND_EVERY: Duration = Duration::from_millis(200);

impl Faults {
    pub(crate) fn new(seed: u64, world: Arc<World>) -> Self {
        Self {
            dice: Dice::new(seed, 42),
            world,
            next: Duration::ZERO,
            down: BTreeMap::new(),
            told: Vec::new(),
            replacing: None,
            last_id: 0,
            rotten: false,
        }
    }

    pub(crate) fn told(self) -> Vec<String> {
        self.told
    }

    fn node(&self, host: u64) -> Arc<Node> {
        Arc::clone(&self.world.nodes[host as usize - 1])
    }

    fn leader(&self) -> Option<Arc<Node>> {
        self.world.nodes.iter().find(|n| n.view().serving).cloned()
    }

    /// Advances the replacement of a node; returns a description of the step.
    pub(crate) fn tend(&mut self, sim: &mut turmoil::Sim<'_>, now: Duration) -> Result<Option<String>> {
        for node in self.world.nodes.clone().iter() {
            // The process ends, and its supervisor starts the node again.
            let ended = |why: String| why.contains(STOPPED) || why.contains(&no_room());
            if node.failed().is_some_and(ended) {
                node.looked_after();
                self.kill(sim, node.host, now);
            }
        }
        let damaged = self.world.nodes.iter().any(|n| n.is_damaged());
        let changing = damaged || self.replacing.is_some();
        self.world.changing.store(changing, Ordering::Relaxed);
        let Some(replacing) = self.replacing.as_mut().filter(|r| now >= r.at) else {
            return Ok(None);
        };
        replacing.at = now + TEND_EVERY;
        let (at, old, new) = (replacing.host, replacing.old, replacing.new);
        let Some(leader) = self.leader() else {
            return Ok(None);
        };
        let members = leader.view().members;
        match new {
            None if !members.contains(&old) => {
                // The site gives out numbers, too, to those that lost something.
                let given = self.world.nodes.iter().map(|n| n.id()).max().unwrap_or_default();
                self.last_id = self.last_id.max(given) + 1;
                sim.crash(host(at));
                self.node(at).gone();
                self.node(at).set_up_anew(self.last_id)?;
                if let Some(replacing) = &mut self.replacing {
                    replacing.new = Some(self.last_id);
                }
                self.start(sim, at);
                Ok(Some(format!(
                    "node {old} is out; host {at} is node {} now",
                    self.last_id
                )))
            }
            None => {
                leader.tell_to(move |broker| async move {
                    // As the real node does when asked to leave.
                    match broker.successor().filter(|_| broker.group().node() == old) {
                        Some(to) => drop(broker.hand_over(to).await),
                        None if broker.vacate(old).await.is_ok() => drop(broker.group().remove(old).await),
                        None => {}
                    }
                });
                Ok(None)
            }
            Some(new) if !members.contains(&new) => {
                let node = self.node(at);
                leader.tell_to(move |broker| async move {
                    if let Ok(member) = node.member() {
                        drop(broker.group().add_learner(new, member).await);
                    }
                });
                Ok(None)
            }
            // Until then, another loss may be too many. A witness that missed the replacement of both others
            // would know nobody any more.
            Some(new) if self.all_vote(&leader, new) && self.world.groups_are_whole() => {
                self.replacing = None;
                Ok(Some(format!("node {new} votes")))
            }
            Some(_) => Ok(None),
        }
    }

    fn all_vote(&self, leader: &Node, new: NodeId) -> bool {
        let view = leader.view();
        let has_witness = self.world.nodes.iter().any(|n| n.witness);
        view.voters.contains(&new) && (!has_witness || view.voters == view.members)
    }

    fn replace(&mut self, host: u64, old: NodeId, at: Duration) {
        self.replacing = Some(Replacing {
            host,
            old,
            new: None,
            at,
        });
    }

    /// Ends a node whose power was cut in a write.
    pub(crate) fn power(&mut self, sim: &mut turmoil::Sim<'_>) {
        for node in self.world.nodes.clone().iter() {
            if node.disk.is_dark() {
                self.cut(sim, node.host, sim.elapsed());
            }
        }
    }

    /// Injects the next fault, if any is due.
    pub(crate) fn step(&mut self, sim: &mut turmoil::Sim<'_>, now: Duration) -> Option<String> {
        if let Some(back) = self.revive(sim, now) {
            return Some(back);
        }
        if now < self.next {
            return None;
        }
        self.next = now + Duration::from_millis(30 + self.dice.roll(700));
        let what = self.happen(sim, now);
        self.told.push(what.clone());
        Some(what)
    }

    /// Starts a node that was down for long enough.
    pub(crate) fn revive(&mut self, sim: &mut turmoil::Sim<'_>, now: Duration) -> Option<String> {
        let is_due = |(_, until): &(&u64, &Duration)| now >= **until;
        let id = self.down.iter().find(is_due).map(|(id, _)| *id)?;
        self.start(sim, id);
        Some(format!("node {id} starts"))
    }

    fn happen(&mut self, sim: &mut turmoil::Sim<'_>, now: Duration) -> String {
        let count = self.world.nodes.len() as u64;
        let (a, b) = (1 + self.dice.roll(count), 1 + self.dice.roll(count));
        let leader = self.leader().map(|n| n.host);
        let victim = if self.dice.once_in(2) {
            leader.unwrap_or(a)
        } else {
            a
        };
        match self.dice.roll(20) {
            0 | 1 => {
                self.kill(sim, victim, now);
                format!("kill {victim}")
            }
            2 => {
                self.cut(sim, victim, now);
                format!("power cut of {victim}")
            }
            3 => {
                let writes = self.dice.roll(20) as u32;
                self.node(victim).disk.cut_power_in(writes);
                format!("power cut of {victim} in {writes} writes")
            }
            4 => {
                (1..=count).for_each(|id| self.cut(sim, id, now));
                "power cut of all".to_owned()
            }
            5 => {
                let few = 1 + self.dice.roll(count.div_ceil(2) - 1);
                (0..few).for_each(|i| self.cut(sim, 1 + (a + i) % count, now));
                format!("power cut of {few} from {a} on")
            }
            6 if a != b => {
                sim.partition(host(a), host(b));
                format!("partition of {a} and {b}")
            }
            7 if a != b => {
                sim.partition_oneway(host(a), host(b));
                format!("partition from {a} to {b}")
            }
            8 => {
                let others = (1..=count).filter(|id| *id != victim);
                others.for_each(|id| sim.partition(host(victim), host(id)));
                format!("partition of {victim} from all")
            }
            9 => {
                let inward = self.dice.once_in(2);
                for id in (1..=count).filter(|id| *id != victim) {
                    match inward {
                        true => sim.partition_oneway(host(id), host(victim)),
                        false => sim.partition_oneway(host(victim), host(id)),
                    }
                }
                format!(
                    "partition of {victim}, {}",
                    if inward { "inward" } else { "outward" }
                )
            }
            10 if a != b => {
                sim.hold(host(a), host(b));
                format!("hold between {a} and {b}")
            }
            11 => {
                let (lost, twice) = (self.dice.roll(200) as u32, self.dice.roll(200) as u32);
                let knobs = &self.node(a).knobs;
                knobs.lost_permille.store(lost, Ordering::Relaxed);
                knobs.twice_permille.store(twice, Ordering::Relaxed);
                format!("of what {a} sends, {lost} of a thousand are lost and {twice} come twice")
            }
            12 => {
                let ms = [0, 50, 300, 1_000][self.dice.roll(4) as usize];
                self.node(a).knobs.slow_disk_ms.store(ms, Ordering::Relaxed);
                format!("disk of {a} takes {ms} ms")
            }
            13 => {
                // An hour, a month behind, a year ahead, and as if the clock had never been set.
                let hours = [0, 1, -1, -30 * 24, 365 * 24, -500_000][self.dice.roll(6) as usize];
                self.node(a)
                    .knobs
                    .skew_ms
                    .store(hours * 3_600_000, Ordering::Relaxed);
                format!("clock of {a} is off by {hours} h")
            }
            14 => {
                self.ask(b, a);
                format!("{a} is to lead, or its log to be purged")
            }
            15 if self.replacing.is_none() && !self.rotten => {
                let node = self.node(victim);
                self.replace(victim, node.id(), now);
                format!("{victim} is replaced")
            }
            // With a witness, new records may have a single copy.
            16 if !self.rotten && self.replacing.is_none() && self.may_rot(victim) => {
                self.rotten = true;
                self.world.rotten.store(true, Ordering::Relaxed);
                self.kill(sim, victim, now);
                let (nth, bit) = (self.dice.roll(1 << 20) as usize, self.dice.roll(1 << 20) as usize);
                let batches = self.dice.once_in(2);
                let flipped = self.node(victim).disk.rot(batches, nth, bit);
                let what = if batches { "a batch" } else { "a header" };
                format!("bit rot of {what} on {victim}: {flipped}")
            }
            17 => {
                let replicas = self.dice.once_in(2).then_some(GROUP_SIZE);
                self.move_topic(replicas);
                format!("the topic is to be on {replicas:?} nodes")
            }
            18 => {
                let left = [None, Some(0), Some(20_000), Some(70_000), Some(300_000)];
                let left = left[self.dice.roll(left.len() as u64) as usize];
                let node = self.node(victim);
                node.knobs.was_full.fetch_or(left.is_some(), Ordering::Relaxed);
                node.disk.leave(left);
                format!("disk of {victim} has room for {left:?} bytes")
            }
            _ => {
                self.mend(sim);
                "the network is whole".to_owned()
            }
        }
    }

    /// Moves partitions, without waiting for the result. In a site with a witness, nothing moves: a group of
    /// both others could not continue without either.
    fn move_topic(&mut self, replicas: Option<u32>) {
        let Some(leader) = self
            .leader()
            .filter(|_| self.world.nodes.iter().all(|n| !n.witness))
        else {
            return;
        };
        self.world.moves.store(true, Ordering::Relaxed);
        leader.tell_to(move |broker| async move {
            let who = weir_broker::Principal::anonymous("sim");
            drop(broker.move_topic(&who, TOPIC, replicas).await);
        });
    }

    /// Not while the voters change: of two that become three, neither can be missed before the change is
    /// everywhere.
    fn may_rot(&self, host: u64) -> bool {
        let count = self.world.nodes.len();
        let settled = |view: View| {
            let groups = view.groups.values();
            view.voters.len() == count && !view.changing && groups.into_iter().all(|g| !g.changing)
        };
        if !self.world.nodes.iter().all(|n| settled(n.view())) {
            return false;
        }
        let has_witness = self.world.nodes.iter().any(|n| n.witness);
        !has_witness || self.node(host).witness
    }

    /// Transfers the leadership to `to`, or purges the log of `at`, without waiting for the result.
    fn ask(&mut self, at: u64, to: u64) {
        let purge = self.dice.once_in(2);
        let node = match self.leader().filter(|_| !purge) {
            Some(leader) => leader,
            None => self.node(at),
        };
        let to = self.node(to).id();
        node.tell_to(move |broker| async move {
            if purge {
                for group in broker.groups() {
                    let applied = group.status().applied;
                    group.purge(applied).await;
                }
            } else {
                drop(broker.group().transfer(to).await);
            }
        });
    }

    fn kill(&mut self, sim: &mut turmoil::Sim<'_>, id: u64, now: Duration) {
        if self.down(sim, id, now) {
            self.node(id).disk.kill();
        }
    }

    fn cut(&mut self, sim: &mut turmoil::Sim<'_>, id: u64, now: Duration) {
        if self.down(sim, id, now) {
            let keep = self.dice.roll(1_001) as u32;
            self.node(id).disk.cut_power(keep);
        }
    }

    /// Ends a node; false when the node is down already.
    fn down(&mut self, sim: &mut turmoil::Sim<'_>, id: u64, now: Duration) -> bool {
        if self.down.contains_key(&id) {
            return false;
        }
        sim.crash(host(id));
        self.node(id).gone();
        self.down
            .insert(id, now + Duration::from_millis(20 + self.dice.roll(2_500)));
        true
    }

    fn start(&mut self, sim: &mut turmoil::Sim<'_>, id: u64) {
        self.down.remove(&id);
        sim.bounce(host(id));
    }

    fn mend(&mut self, sim: &mut turmoil::Sim<'_>) {
        let count = self.world.nodes.len() as u64;
        for a in 1..=count {
            for b in a + 1..=count {
                sim.repair(host(a), host(b));
                sim.release(host(a), host(b));
            }
        }
    }

    /// Ends all faults: starts the nodes that are down, and heals the network.
    pub(crate) fn heal(&mut self, sim: &mut turmoil::Sim<'_>) {
        self.mend(sim);
        for node in self.world.nodes.clone().iter() {
            node.disk.keep_power();
            node.disk.leave(None);
            node.knobs.slow_disk_ms.store(0, Ordering::Relaxed);
            node.knobs.lost_permille.store(0, Ordering::Relaxed);
            node.knobs.twice_permille.store(0, Ordering::Relaxed);
        }
        let down: Vec<u64> = self.down.keys().copied().collect();
        down.into_iter().for_each(|id| self.start(sim, id));
    }
}

/// The error text of a full disk.
fn no_room() -> String {
    std::io::Error::from(rustix::io::Errno::NOSPC).to_string()
}

fn host(id: u64) -> String {
    format!("n{id}")
}
