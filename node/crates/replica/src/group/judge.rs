//! Judging the starts of other members.

use crate::group::Group;
use crate::starts::{Seen, Started, Starts, Verdict};
use crate::types::entry_id;
use openraft::async_runtime::watch::WatchReceiver;
use std::collections::BTreeSet;
use std::net::IpAddr;

impl Group {
    /// Judges a process that speaks from the address `from` for the member with the key `key`, by `starts`
    /// and `groups`. Called on the site's group.
    pub fn judge(
        &self,
        started: &Started,
        key: &str,
        from: IpAddr,
        starts: &Starts,
        groups: &[Group],
    ) -> Seen {
        let members = self.members();
        starts.retain(|node| members.contains_key(&node));
        let leads = self.is_serving();
        // As a pair, the other cannot lead alone.
        let is_pair = self.voters() == BTreeSet::from([self.node(), started.node]);
        if members.get(&started.node).is_none_or(|m| m.key != key) {
            // The node has rejoined under another id, or this node has not heard of its member yet.
            let verdict = match members.values().any(|m| m.key == key) {
                true => Verdict::Older,
                false if leads => Verdict::Removed,
                false => Verdict::Sound,
            };
            let count = None;
            return Seen {
                leads,
                is_pair,
                count,
                verdict,
            };
        }
        let (count, verdict) = starts.judge(started, from, tokio::time::Instant::now());
        let behind = || groups.iter().find_map(|group| group.is_lacked_by(started));
        let verdict = match verdict {
            Verdict::Sound => behind().unwrap_or(Verdict::Sound),
            other => other,
        };
        let count = Some(count);
        Seen {
            leads,
            is_pair,
            count,
            verdict,
        }
    }

    /// Returns the acknowledged entry of this group that a started process lacks, if this node surely leads.
    fn is_lacked_by(&self, started: &Started) -> Option<Verdict> {
        if started.last.is_empty() || !self.is_serving() {
            return None;
        }
        let metrics = self.raft().metrics().borrow_watched().clone();
        let matched = metrics.replication?.get(&started.node).copied()??;
        let acknowledged = entry_id(&matched);
        let mut last = started.last.iter().filter(|(id, _)| *id == self.id());
        let last = last.next().map(|(_, last)| *last).unwrap_or_default();
        (last < acknowledged).then_some(Verdict::Behind(self.id(), acknowledged))
    }
}
