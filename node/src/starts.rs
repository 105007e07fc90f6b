//! That this process is the only one that speaks for its node, and stands on the newest directory of it: the other nodes
//! of the site are told of each start, before this one takes part.

use crate::site::{self, Place};
use anyhow::{Result, bail};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use weir_broker::{Broker, Member, NodeId, Peers, Seen, Started, TELL_EVERY, Verdict};
use weir_log::{Log, Recovered};

/// How long a node that starts waits for the others: those that are up answer at once, and without them it goes on as
/// it is, since a site that lost its power starts all at once.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// How long it asks again while another process speaks for it: one that was killed counts as gone before that.
const TAKEN_FOR: Duration = Duration::from_secs(10);
/// How often it asks again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// A start of this node, as others are told of it.
pub(crate) fn started(place: &Place, own: &Member, run: [u8; 32], recovered: &Recovered) -> Started {
    let groups = recovered.groups.iter();
    let run = *run.first_chunk().unwrap_or(&[0; 16]);
    Started {
        node: place.node,
        count: place.started.unwrap_or(0),
        run,
        addr: own.quic.clone(),
        last: groups.map(|(id, state)| (*id, state.last)).collect(),
    }
}

/// Counts this start in the directory, if there are others to tell. On a disk that is full it is not told.
pub(crate) fn count(data: &Path, place: &mut Place) {
    if place.members <= 1 {
        return;
    }
    let before = place.started;
    place.started = before.map(|count| count + 1);
    if let Err(error) = site::save(data, place) {
        tracing::warn!(%error, "this start of the node is not counted");
        place.started = None;
    }
}

/// The log that `opened` found, if the others of the site know of nothing that this node had beyond it. If they do, that
/// is noted in `place`, and there is none.
///
/// # Errors
/// When another process speaks for this node.
pub(crate) async fn confirm(
    data: &Path,
    place: &mut Place,
    peers: &Peers,
    told: &mut Started,
    opened: (Log, Recovered),
) -> Result<Option<(Log, Recovered)>> {
    let begun = Instant::now();
    let verdict = loop {
        let seen = ask(peers, &place.others, told).await;
        // What they counted while this directory was run by a release that did not.
        let counted = seen.iter().map(|(_, seen)| seen.count).max();
        let verdicts = || seen.iter().map(|(node, seen)| (*node, &seen.verdict));
        let taken = verdicts().find_map(|(node, verdict)| match verdict {
            Verdict::Taken(addr) => Some((node, addr.clone())),
            _ => None,
        });
        if let Some((by, addr)) = taken {
            if begun.elapsed() < TAKEN_FOR {
                tokio::time::sleep(ASK_AGAIN).await;
                continue;
            }
            opened.0.close();
            bail!(
                "node {} runs already, at {addr}, as node {by} says: `{}` is a copy of its directory. A node has one \
                 directory and one process; to add a node, start it with an empty directory and `--join`",
                place.node,
                data.display()
            );
        }
        if told.count == 0
            && let Some(counted) = counted
        {
            place.started = Some(counted + 1);
            if site::save(data, place).is_ok() {
                told.count = counted + 1;
            }
        }
        let worst = verdicts().find(|(_, verdict)| **verdict != Verdict::Sound);
        break worst.map(|(node, verdict)| (node, verdict.clone()));
    };
    let what = match verdict {
        None | Some((_, Verdict::Sound | Verdict::Taken(_))) => return Ok(Some(opened)),
        Some((by, Verdict::Older)) => {
            format!("node {by} has seen it started since this directory was: this is an older copy of it")
        }
        Some((by, Verdict::Behind(group, had))) => format!(
            "node {by} had its word for entry {} of group {group}, which is not in this directory: this is an older copy \
             of it, or part of it is lost",
            had.index
        ),
    };
    if place.members <= 2 {
        // Both must agree to all, so the other has it all, and nobody can be elected without it.
        tracing::error!(
            node = place.node,
            what,
            "this node lost what it had; the other one sends it again"
        );
        (place.started, told.count) = (None, 0);
        return Ok(Some(opened));
    }
    site::has_lost(data, place, &what)?;
    opened.0.close();
    Ok(None)
}

/// What the others say, until one that leads has spoken.
async fn ask(peers: &Peers, others: &BTreeMap<NodeId, Member>, told: &Started) -> Vec<(NodeId, Seen)> {
    let mut asked: FuturesUnordered<_> = others
        .iter()
        .map(|(id, member)| async move { (*id, peers.tell_started(*id, member, told).await) })
        .collect();
    let mut seen = Vec::new();
    let answers = async {
        while let Some((node, answer)) = asked.next().await {
            let Ok(answer) = answer else { continue };
            let leads = answer.leads;
            seen.push((node, answer));
            if leads {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(ANSWERS_WITHIN, answers).await;
    seen
}

/// Tells the others every few seconds that this process goes on; returns when another one speaks for this node, with what
/// was said.
pub(crate) async fn keep_telling(broker: &Broker, peers: &Peers, mut told: Started) -> String {
    loop {
        tokio::time::sleep(TELL_EVERY).await;
        let group = broker.group();
        let mut others = group.members();
        others.remove(&group.node());
        // What is missing is sent again; this is about who speaks.
        told.last.clear();
        for (node, seen) in ask(peers, &others, &told).await {
            match seen.verdict {
                Verdict::Taken(addr) => {
                    return format!(
                        "node {node} hears another process, at {addr}, speak for node {}",
                        told.node
                    );
                }
                Verdict::Older => {
                    return format!(
                        "node {node} has heard of a later start of node {} than this one",
                        told.node
                    );
                }
                Verdict::Sound | Verdict::Behind(..) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_counted_where_there_are_others() {
        let dir = tempfile::tempdir().unwrap();
        let mut place = site::found(dir.path(), "s".to_owned(), "", &BTreeMap::new()).unwrap();
        count(dir.path(), &mut place);
        assert_eq!(site::load(dir.path()).unwrap().unwrap().started, Some(0));
        place.members = 3;
        count(dir.path(), &mut place);
        count(dir.path(), &mut place);
        assert_eq!(site::load(dir.path()).unwrap().unwrap().started, Some(2));
        // A directory of a release that did not count says nothing.
        place.started = None;
        count(dir.path(), &mut place);
        assert_eq!(place.started, None);
    }
}
