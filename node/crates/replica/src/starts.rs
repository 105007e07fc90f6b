//! One process speaks for a node, and it has all that the node acknowledged.
//!
//! A directory that was copied, or put back from a backup, is sound in itself: only the others can tell that it is not
//! the newest. So a node counts its starts, and tells the others of each before it takes part, and every few seconds
//! from then on: they know of later starts, of another process that speaks for the same node, and, if they lead, of
//! entries that it had.

use crate::types::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use weir_log::EntryId;
use weir_types::GroupId;
use weir_types::limits::MEMBERS_MAX;

/// How often a node tells the others of its start.
pub const TELL_EVERY: Duration = Duration::from_secs(2);
/// A process that has not told of itself for so long is taken for gone: two times missed.
const GONE_AFTER: Duration = Duration::from_secs(5);

/// What a process says of itself to the other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The node that it speaks for.
    pub node: NodeId,
    /// How many starts the node's directory has seen; 0 when it does not say.
    pub count: u64,
    /// Drawn at random when the process started.
    pub run: [u8; 16],
    /// `HOST:PORT` at which others reach it.
    pub addr: String,
    /// The last entry that it has of each group.
    pub last: Vec<(GroupId, EntryId)>,
}

/// What another node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Whether it leads: nobody knows better.
    pub leads: bool,
    /// Whether it and the one that started are the only voters: then it has all that the other ever acknowledged.
    pub is_pair: bool,
    /// The most starts of the node that it has heard of; none of a node that it does not know.
    pub count: Option<u64>,
    /// What it thinks of the process.
    pub verdict: Verdict,
}

/// What a node thinks of a process that speaks for another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It knows of nothing that speaks against it.
    Sound,
    /// The node has been started since: this is an older directory.
    Older,
    /// Another process speaks for the node, at this address.
    Taken(String),
    /// The node acknowledged this entry of a group, and has it no more.
    Behind(GroupId, EntryId),
    /// The node was taken out of the site.
    Removed,
}

/// The last start of a node that another has heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastStart {
    /// How many there were.
    pub count: u64,
    /// What its process drew; none where that did not count.
    pub run: Option<[u8; 16]>,
}

/// The starts of other nodes that a node has heard of.
#[derive(Default)]
pub struct Starts(Mutex<BTreeMap<NodeId, Heard>>);

#[derive(Clone)]
struct Heard {
    count: u64,
    /// Of the last start; none where that did not count.
    run: Option<[u8; 16]>,
    /// None from before this node's own start.
    process: Option<Process>,
}

/// A process that spoke for a node.
#[derive(Clone)]
struct Process {
    run: [u8; 16],
    /// Where it says it is reached, and whence it spoke: a machine that was copied says the same.
    addr: String,
    from: IpAddr,
    /// When it last told.
    at: Instant,
}

impl Starts {
    /// How many starts of each node were heard of, and what the last drew.
    pub fn last(&self) -> BTreeMap<NodeId, LastStart> {
        let heard = self.lock();
        let last = |heard: &Heard| LastStart {
            count: heard.count,
            run: heard.run,
        };
        heard.iter().map(|(node, heard)| (*node, last(heard))).collect()
    }

    /// Remembers what [`Starts::last`] gave before this node's own start.
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

    /// Forgets nodes that are no members any more.
    pub fn retain(&self, is_member: impl Fn(NodeId) -> bool) {
        self.lock().retain(|node, _| is_member(*node));
    }

    /// What is known of a process that speaks `from` somewhere for a member: how many starts, and whether there was a later one,
    /// or another that goes on. If not, it is remembered.
    pub(crate) fn judge(&self, started: &Started, from: IpAddr, now: Instant) -> (u64, Verdict) {
        let mut all = self.lock();
        let known = all.entry(started.node).or_insert(Heard {
            count: started.count,
            run: None,
            process: None,
        });
        let other = known.process.as_ref().filter(|known| known.run != started.run);
        if let Some(other) = other {
            // One at the same address of the same machine has taken the other's place: both cannot be there.
            let is_elsewhere = other.addr != started.addr || other.from != from;
            if is_elsewhere && now.duration_since(other.at) < GONE_AFTER {
                return (known.count, Verdict::Taken(other.addr.clone()));
            }
        }
        // Another process counts its own start, and keeps that before it tells.
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        // Killed and started again at its address.
        assert_eq!(starts.judge(&started(5, 2, 7), HERE, now), (5, Verdict::Sound));
        // The one that it was, and a copy of it, at the same address; a copy of now at another.
        assert_eq!(starts.judge(&started(4, 1, 7), HERE, now).1, Verdict::Older);
        assert_eq!(starts.judge(&started(5, 3, 7), HERE, now).1, Verdict::Older);
        let taken = Verdict::Taken("10.0.0.2:7".to_owned());
        assert_eq!(starts.judge(&started(6, 4, 8), HERE, now), (5, taken.clone()));
        // And a machine that was copied with all its settings.
        let there = IpAddr::from([10, 0, 0, 3]);
        assert_eq!(starts.judge(&started(6, 4, 7), there, now).1, taken);
        let now = now + (GONE_AFTER - Duration::from_millis(1));
        assert_eq!(starts.judge(&started(6, 4, 8), HERE, now).1, taken);
        // Nothing was heard of the first for long enough.
        let now = now + Duration::from_millis(1);
        assert_eq!(starts.judge(&started(6, 4, 8), HERE, now), (6, Verdict::Sound));
        let older = Starts::default();
        older.remember(&starts.last());
        assert_eq!(older.judge(&started(5, 9, 7), HERE, now), (6, Verdict::Older));
        // A copy from just before the last start counts to the same.
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
