//! Starts of nodes: a single process speaks for a node, with everything that the node acknowledged.
//!
//! A directory that was copied, or restored from a backup, is consistent in itself: only other nodes can tell
//! that it is outdated. So a node counts its starts. It tells the other nodes of each start before taking
//! part, and every few seconds after that. The others know of later starts, of another process for the same
//! node, and, if they lead, of acknowledged entries.

use crate::types::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::MutexGuard;
use std::time::Duration;
use tokio::time::Instant;
use weir_log::EntryId;
use weir_types::GroupId;
use weir_types::limits::MEMBERS_MAX;
use weir_types::sync::Mutex;

/// Interval at which a node repeats its start to the others.
pub const TELL_EVERY: Duration = Duration::from_secs(2);
/// Silence after which a process is taken for gone: two missed notices.
const GONE_AFTER: Duration = Duration::from_secs(5);

/// A process's notice of its start to the other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Node of the process.
    pub node: NodeId,
    /// Number of starts of the node's directory; 0 when unknown.
    pub count: u64,
    /// Random number of the process.
    pub run: [u8; 16],
    /// `HOST:PORT` at which others reach it.
    pub addr: String,
    /// Last entry of each group.
    pub last: Vec<(GroupId, EntryId)>,
}

/// Another node's answer to a start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The answering node leads: nobody knows better.
    pub leads: bool,
    /// The two nodes are the only voters: then the answering node has everything that the other ever
    /// acknowledged.
    pub is_pair: bool,
    /// Highest number of starts known for the node; `None` for an unknown node.
    pub count: Option<u64>,
    /// Verdict on the process.
    pub verdict: Verdict,
}

/// Verdict on a process that speaks for another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Nothing speaks against the process.
    Sound,
    /// The node has been started since: the directory is outdated.
    Older,
    /// Another process speaks for the node, at this address.
    Taken(String),
    /// The node acknowledged this entry of a group, but the process lacks it.
    Behind(GroupId, EntryId),
    /// The node was taken out of the site.
    Removed,
}

/// The last known start of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastStart {
    /// Number of starts.
    pub count: u64,
    /// Random number of the process; `None` for releases that did not count.
    pub run: Option<[u8; 16]>,
}

/// Known starts of the other nodes.
#[derive(Default)]
pub struct Starts(Mutex<BTreeMap<NodeId, Heard>>);

#[derive(Clone)]
struct Heard {
    count: u64,
    /// Random number of the last start; `None` for releases that did not count.
    run: Option<[u8; 16]>,
    /// `None` for notices from before this node's own start.
    process: Option<Process>,
}

/// A process that spoke for a node.
#[derive(Clone)]
struct Process {
    run: [u8; 16],
    /// The announced address, and the sender's: a copied machine announces the same.
    addr: String,
    from: IpAddr,
    /// Time of the last notice.
    at: Instant,
}

impl Starts {
    /// Returns the number and the random number of each node's last start.
    pub fn last(&self) -> BTreeMap<NodeId, LastStart> {
        let heard = self.lock();
        let last = |heard: &Heard| LastStart {
            count: heard.count,
            run: heard.run,
        };
        heard.iter().map(|(node, heard)| (*node, last(heard))).collect()
    }

    /// Restores the starts that [`Starts::last`] returned before this node's own start.
    pub fn remember(&self, last: &BTreeMap<NodeId, LastStart>) {
        let mut heard = self.lock();
        for (node, last) in last.iter().take(MEMBERS_MAX) {
            let (LastStart { count, run }, process) = (*last, None);
            let known = heard.entry(*node).or_insert(Heard { count, run, process });
            if known.count < count {
                (known.count, known.run) = (count, run);
            }
        }
    }

    /// Removes nodes that are no longer members.
    pub fn retain(&self, is_member: impl Fn(NodeId) -> bool) {
        self.lock().retain(|node, _| is_member(*node));
    }

    /// Judges a member's process that speaks from the address `from`. Returns the number of starts and the
    /// verdict. A sound process is remembered.
    pub(crate) fn judge(&self, started: &Started, from: IpAddr, now: Instant) -> (u64, Verdict) {
        let mut all = self.lock();
        let known = all.entry(started.node).or_insert(Heard {
            count: started.count,
            run: None,
            process: None,
        });
        let other = known.process.as_ref().filter(|known| known.run != started.run);
        if let Some(other) = other {
            // A process at the same address of the same machine has replaced the other: both cannot run.
            let is_elsewhere = other.addr != started.addr || other.from != from;
            if is_elsewhere && now.duration_since(other.at) < GONE_AFTER {
                return (known.count, Verdict::Taken(other.addr.clone()));
            }
        }
        // Another process counts its own start, and stores the count before the notice.
        let is_older = match known.run {
            Some(run) if run != started.run => started.count <= known.count,
            _ => started.count < known.count,
        };
        if is_older && started.count != 0 {
            return (known.count, Verdict::Older);
        }
        known.count = known.count.max(started.count);
        known.run = (started.count != 0).then_some(started.run).or(known.run);
        known.process = Some(Process {
            run: started.run,
            addr: started.addr.clone(),
            from,
            at: now,
        });
        (known.count, Verdict::Sound)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Heard>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn started(count: u64, run: u8, port: u16) -> Started {
        Started {
            node: 2,
            count,
            run: [run; 16],
            addr: format!("10.0.0.2:{port}"),
            last: Vec::new(),
        }
    }

    #[test]
    fn one_process_speaks_for_a_node_and_the_latest_start_of_it() {
        let (starts, now) = (Starts::default(), Instant::now());
        assert_eq!(starts.judge(&started(4, 1, 7), HERE, now).1, Verdict::Sound);
        assert_eq!(starts.judge(&started(4, 1, 7), HERE, now).1, Verdict::Sound);
        // Killed and started again at the same address.
        assert_eq!(starts.judge(&started(5, 2, 7), HERE, now), (5, Verdict::Sound));
        // The first process and an old copy at the same address; a new copy at another.
        assert_eq!(starts.judge(&started(4, 1, 7), HERE, now).1, Verdict::Older);
        assert_eq!(starts.judge(&started(5, 3, 7), HERE, now).1, Verdict::Older);
        let taken = Verdict::Taken("10.0.0.2:7".to_owned());
        assert_eq!(starts.judge(&started(6, 4, 8), HERE, now), (5, taken.clone()));
        // A copied machine with all its settings.
        let there = IpAddr::from([10, 0, 0, 3]);
        assert_eq!(starts.judge(&started(6, 4, 7), there, now).1, taken);
        let now = now + (GONE_AFTER - Duration::from_millis(1));
        assert_eq!(starts.judge(&started(6, 4, 8), HERE, now).1, taken);
        // The first process has been silent for long enough.
        let now = now + Duration::from_millis(1);
        assert_eq!(starts.judge(&started(6, 4, 8), HERE, now), (6, Verdict::Sound));
        let older = Starts::default();
        older.remember(&starts.last());
        assert_eq!(older.judge(&started(5, 9, 7), HERE, now), (6, Verdict::Older));
        // A copy from just before the last start reaches the same count.
        assert_eq!(older.judge(&started(6, 9, 7), HERE, now), (6, Verdict::Older));
        assert_eq!(older.judge(&started(6, 4, 8), HERE, now), (6, Verdict::Sound));
    }

    #[test]
    fn a_directory_that_does_not_count_is_told_where_to_go_on() {
        let (starts, now) = (Starts::default(), Instant::now());
        let run = None;
        starts.remember(&[(2, LastStart { count: 7, run })].into());
        assert_eq!(starts.judge(&started(0, 1, 7), HERE, now), (7, Verdict::Sound));
        assert_eq!(starts.judge(&started(8, 1, 7), HERE, now), (8, Verdict::Sound));
    }
}
