//! State of a run, shared by its nodes, its clients and its faults.

use crate::node::{Node, PARTITIONS, lock};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use weir_checkers::Event;
use weir_log::{StateKey, StateKind};
use weir_types::{GroupId, Offset, PartitionId};

/// Nodes of a replica group.
pub(crate) const GROUP_SIZE: u32 = 3;
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
    told_ends: [AtomicU64; PARTITIONS as usize],
}

impl World {
    /// Returns the state before the site is formed.
    pub(crate) fn new(seed: u64, nodes: Arc<Vec<Arc<Node>>>, producers: u32, replicas: Option<u32>) -> Self {
        Self {
            seed,
            nodes,
            producers,
            replicas,
            history: Mutex::default(),
            wrong: Mutex::default(),
            phase: AtomicU8::new(Phase::Forming as u8),
            changing: AtomicBool::new(false),
            moves: AtomicBool::new(false),
            rotten: AtomicBool::new(false),
            told_ends: Default::default(),
        }
    }

    /// Returns the violations so far.
    pub(crate) fn violations(&self) -> Vec<String> {
        lock(&self.wrong).clone()
    }

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
