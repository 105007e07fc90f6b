//! Ensures that this process is the only process of its node, on the newest copy of the node's directory. The
//! node reports each start to the other members before it participates.

use crate::site::{self, Place};
use anyhow::{Result, bail};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use weir_broker::{Broker, Member, NodeId, Peers, Seen, Started, TELL_EVERY, Verdict};
use weir_log::{Log, Recovered};

/// Time that a starting node waits for the other members. Live members answer at once; without answers the
/// node continues, since a site starts all nodes together after a power failure.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// Further wait for the rest once a leader has answered: no member knows better, and others may know as much.
const REST_WITHIN: Duration = Duration::from_millis(100);
/// Time after which this process gives up because another process runs as this node. A killed process counts
/// as gone before that.
const TAKEN_FOR: Duration = Duration::from_secs(10);
/// Interval of repeated questions.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Counts this start in the directory if there are other members, and returns the report for them. On a full
/// disk the count is left out, since the next start would report the same count.
pub(crate) fn count(data: &Path, place: &mut Place, own: &Member, run: [u8; 16]) -> Started {
    let mut told = Started {
        node: place.node,
        count: place.started.unwrap_or(0),
        run,
        addr: own.quic.clone(),
        last: Vec::new(),
    };
    if place.members > 1
        && let Some(before) = place.started
    {
        told.count = keep(data, place, before + 1);
    }
    told
}

/// Stores the count in the directory; returns 0 on failure.
fn keep(data: &Path, place: &mut Place, count: u64) -> u64 {
    let before = place.started.replace(count);
    match site::save(data, place) {
        Ok(()) => count,
        Err(error) => {
            tracing::warn!(%error, "cannot count this start of the node");
            place.started = before;
            0
        }
    }
}

/// Waits until no other process runs as this node, and returns the members' answers.
///
/// # Errors
/// If another process continues to run as this node.
async fn untaken(data: &Path, place: &Place, peers: &Peers, told: &Started) -> Result<Vec<(NodeId, Seen)>> {
    let begun = Instant::now();
    loop {
        let seen = ask(peers, &place.others, told).await;
        let Some((by, addr)) = taken(&seen) else {
            return Ok(seen);
        };
        if begun.elapsed() >= TAKEN_FOR {
            bail!(
                "node {} runs already, at {addr}, as node {by} says: `{}` is a copy of its directory. A node has one \
                 directory and one process; to add a node, start it with an empty directory and `--join`",
                place.node,
                data.display()
            );
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn taken(seen: &[(NodeId, Seen)]) -> Option<(NodeId, String)> {
    seen.iter().find_map(|(node, seen)| match &seen.verdict {
        Verdict::Taken(addr) => Some((*node, addr.clone())),
        _ => None,
    })
}

/// Returns the opened log if no other member knows of acknowledged data beyond it. Otherwise records the loss
/// in `place` and returns `None`.
///
/// # Errors
/// If another process runs as this node.
pub(crate) async fn confirm(
    data: &Path,
    place: &mut Place,
    peers: &Peers,
    told: &mut Started,
    opened: Option<(Log, Recovered)>,
) -> Result<Option<(Log, Recovered)>> {
    if let Some((_, recovered)) = &opened {
        let groups = recovered.groups.iter();
        told.last = groups.map(|(id, state)| (*id, state.last)).collect();
    }
    let seen = untaken(data, place, peers, told).await;
    // Missing entries are sent again from here on; the rest is about the process.
    told.last.clear();
    let (seen, opened) = match (seen, opened) {
        (Ok(seen), Some(opened)) => (seen, opened),
        (Ok(_), None) => return Ok(None),
        (Err(e), opened) => {
            if let Some((log, _)) = opened {
                log.close();
            }
            return Err(e);
        }
    };
    // Starts counted by the others while a release without counting used this directory.
    let counted = seen.iter().filter_map(|(_, seen)| seen.count).max();
    if told.count == 0
        && place.started.is_none()
        && let Some(counted) = counted
    {
        told.count = keep(data, place, counted + 1);
    }
    // If two copies run apart, the site is the side that knows this node.
    let is_known = seen
        .iter()
        .any(|(_, seen)| seen.leads && seen.verdict == Verdict::Sound);
    let counts = |seen: &Seen| match seen.verdict {
        Verdict::Sound => false,
        Verdict::Removed => !is_known,
        _ => true,
    };
    let Some((by, seen)) = seen.iter().find(|(_, seen)| counts(seen)) else {
        return Ok(Some(opened));
    };
    if seen.verdict == Verdict::Removed {
        opened.0.close();
        bail!(
            "node {} is no member of its site any more, or not by this key, as node {by} says: to bring this machine back, set `{}` \
             aside, and join with a token and an empty directory",
            place.node,
            data.display()
        );
    }
    let what = match &seen.verdict {
        Verdict::Behind(group, had) => format!(
            "node {by} had its word for entry {} of group {group}, which is not in this directory: this is an older copy \
             of it, or part of it is lost",
            had.index
        ),
        _ => format!("node {by} has seen it started since this directory was: this is an older copy of it"),
    };
    if seen.is_pair {
        // A majority of two is both: the other node has every entry, and no leader is elected without it.
        tracing::error!(
            node = place.node,
            what,
            "this node lost data; the other node sends it again"
        );
        // Counts on from the number that the other member has seen.
        told.count = seen.count.map_or(0, |count| keep(data, place, count + 1));
        return Ok(Some(opened));
    }
    site::has_lost(data, place, &what)?;
    opened.0.close();
    Ok(None)
}

/// Returns the answers of the other members: all that arrive in time, or shortly after a leader's answer.
async fn ask(peers: &Peers, others: &BTreeMap<NodeId, Member>, told: &Started) -> Vec<(NodeId, Seen)> {
    let mut asked: FuturesUnordered<_> = others
        .iter()
        .map(|(id, member)| async move { (*id, peers.tell_started(*id, member, told).await) })
        .collect();
    let mut seen = Vec::new();
    let mut until = tokio::time::Instant::now() + ANSWERS_WITHIN;
    while let Ok(Some((node, answer))) = tokio::time::timeout_at(until, asked.next()).await {
        let Ok(answer) = answer else { continue };
        if answer.leads {
            until = until.min(tokio::time::Instant::now() + REST_WITHIN);
        }
        seen.push((node, answer));
    }
    seen
}

/// Reports to the other members every few seconds that this process runs. Returns a reason once another
/// process runs as this node and persists.
pub(crate) async fn keep_telling(broker: &Broker, peers: &Peers, told: Started) -> String {
    let mut taken_since: Option<(String, Instant)> = None;
    let mut is_told = false;
    // Immediately, and often at first: nodes that start together have not heard each other before.
    let mut every = ASK_AGAIN;
    loop {
        tokio::time::sleep(every).await;
        every = (2 * every).min(TELL_EVERY);
        let group = broker.group();
        let mut others = group.members();
        others.remove(&group.node());
        let seen = ask(peers, &others, &told).await;
        let removed = seen.iter().find(|(_, seen)| seen.verdict == Verdict::Removed);
        if let Some((by, _)) = removed.filter(|_| !std::mem::replace(&mut is_told, true)) {
            tracing::warn!(
                by,
                "this node was taken out of its site: it serves no requests, and can be stopped"
            );
        }
        if let Some((by, _)) = seen.iter().find(|(_, seen)| seen.verdict == Verdict::Older) {
            return format!(
                "node {by} has heard of a later start of node {} than this one",
                told.node
            );
        }
        let Some((by, addr)) = taken(&seen) else {
            taken_since = None;
            continue;
        };
        // The answer may be about this process before its restart.
        match &taken_since {
            Some((known, since)) if *known == addr => {
                if since.elapsed() >= TAKEN_FOR {
                    return format!(
                        "node {by} reports another process, at {addr}, that runs as node {}",
                        told.node
                    );
                }
            }
            _ => taken_since = Some((addr, Instant::now())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_counted_where_there_are_others() {
        let dir = tempfile::tempdir().unwrap();
        let own = Member::default();
        let (data, run) = (dir.path(), [1; 16]);
        let kept = || site::load(data).unwrap().unwrap().started;
        let mut place = site::found(data, "s".to_owned(), "", &BTreeMap::new()).unwrap();
        assert_eq!((count(data, &mut place, &own, run).count, kept()), (0, Some(0)));
        place.members = 3;
        assert_eq!(count(data, &mut place, &own, run).count, 1);
        assert_eq!((count(data, &mut place, &own, run).count, kept()), (2, Some(2)));
        // Without a stored count, none is reported, and the next start continues from the stored count.
        let nowhere = data.join("nowhere");
        assert_eq!(count(&nowhere, &mut place, &own, run).count, 0);
        assert_eq!(count(data, &mut place, &own, run).count, 3);
        // A directory from a release without counting says nothing.
        place.started = None;
        assert_eq!(count(data, &mut place, &own, run).count, 0);
    }
}
