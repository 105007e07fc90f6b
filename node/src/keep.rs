//! Background tasks of a running node: the site, and the node's membership in it.

use crate::site::{self, Place};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use weir_broker::{Broker, Group, Member, NodeId};

/// Exit code after the log has stopped: the supervisor restarts the node, which recovers.
pub(crate) const EXIT_POISONED: i32 = 70;
/// Interval at which the leader checks whether learners have caught up.
const PROMOTE_EVERY: Duration = Duration::from_millis(500);
/// Time without a leader that is worth a log line: many elections.
const LEADERLESS_FOR: Duration = Duration::from_secs(10);
/// Interval of name resolution, so that reassigned addresses are used soon.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// Timeout of name resolution.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
/// Maximum addresses per name: a gateway has a few.
const ADDRESSES_OF_NAME_MAX: usize = 8;
/// Silence of a node, in milliseconds, that is worth a log line: several elections.
pub(crate) const SILENT_MS: u64 = 3_000;

/// Maintains the site as far as its leader must: assigns the site's name, updates this node's address, and
/// promotes learners that have caught up to voters.
pub(crate) async fn keep(broker: Broker, data: PathBuf, mut place: Place, own: Member) {
    let mut silent = BTreeSet::new();
    let mut leaderless = Leaderless::default();
    let mut is_news = false;
    let mut resolved: Option<(BTreeMap<NodeId, Member>, Instant)> = None;
    // The only quarantined log is from an earlier start.
    let mut has_aside = data.join(site::ASIDE).exists();
    loop {
        if let Some(reason) = broker.groups().iter().find_map(Group::stopped) {
            hint!("error: consensus stopped: {reason}; restart to recover");
            std::process::exit(EXIT_POISONED);
        }
        if broker.is_serving() && broker.site().is_none() {
            let _ = broker.name_site(place.site.clone()).await;
        }
        broker.raise_level().await;
        broker.note_absent().await;
        let others_started = broker.starts().last();
        let (members, level) = (broker.group().members(), broker.level());
        if !members.is_empty() {
            is_news |= place.note(members);
            is_news |= !std::mem::replace(&mut place.active, true);
            is_news |= std::mem::replace(&mut place.level, level) != level;
            is_news |= place.others_started != others_started;
            place.others_started = others_started;
        }
        if is_news {
            match site::save(&data, &place) {
                Ok(()) => is_news = false,
                // A warning every half second would be too much.
                Err(error) => tracing::debug!(%error, "cannot save the member list"),
            }
        }
        let group = broker.group();
        let known = group.members().get(&group.node()).cloned();
        if known.is_some_and(|k| k != own)
            && let Err(error) = group.announce(own.clone()).await
        {
            tracing::debug!(%error, "the leader does not know this node's address yet");
        }
        let members = broker.group().members();
        let is_fresh =
            |(of, at): &(BTreeMap<NodeId, Member>, Instant)| *of == members && at.elapsed() < RESOLVE_EVERY;
        if !resolved.as_ref().is_some_and(is_fresh) {
            let names = members.values().map(|member| member.quic.clone()).collect();
            tokio::spawn(resolve(broker.clone(), names));
            resolved = Some((members, Instant::now()));
        }
        if has_aside && broker.is_in_place() {
            let dir = data.clone();
            // The directory may be large; removal takes as long as the disk does.
            let removed = tokio::task::spawn_blocking(move || site::forget_aside(&dir)).await;
            has_aside = !matches!(removed, Ok(true));
        }
        broker.promote_learners().await;
        tell_of_silent(&broker, &mut silent);
        tell_of_no_leader(&broker, &mut leaderless);
        tokio::time::sleep(PROMOTE_EVERY).await;
    }
}

/// Resolves the names under which nodes advertise themselves.
async fn resolve(broker: Broker, names: Vec<String>) {
    let mut found = BTreeSet::new();
    for name in names {
        if let Ok(Ok(addresses)) = tokio::time::timeout(RESOLVE_WITHIN, tokio::net::lookup_host(&name)).await
        {
            found.extend(addresses.take(ADDRESSES_OF_NAME_MAX));
        }
    }
    broker.nodes_are_at(found);
}

/// Start of the time without a leader, and a flag that it was logged.
#[derive(Default)]
struct Leaderless {
    since: Option<Instant>,
    is_told: bool,
}

/// Logs once that this node has had no leader for a while, with the nodes and addresses it tries to reach.
fn tell_of_no_leader(broker: &Broker, leaderless: &mut Leaderless) {
    let group = broker.group();
    if group.leader().is_some() {
        if leaderless.is_told {
            tracing::info!("the site has a leader again");
        }
        return *leaderless = Leaderless::default();
    }
    let since = leaderless.since.get_or_insert_with(Instant::now);
    if since.elapsed() < LEADERLESS_FOR || std::mem::replace(&mut leaderless.is_told, true) {
        return;
    }
    let others = group.members().into_iter().filter(|(id, _)| *id != group.node());
    let others: Vec<String> = others
        .map(|(id, member)| format!("node {id} at {}", member.quic))
        .collect();
    tracing::warn!(
        others = others.join(", "),
        "the site has no leader. A majority of the nodes must be running and reach each other at these addresses"
    );
}

/// Logs on the leader when another node falls silent, and when it returns.
fn tell_of_silent(broker: &Broker, silent: &mut BTreeSet<NodeId>) {
    if !broker.is_serving() {
        return silent.clear();
    }
    let status = broker.group().status();
    for member in status.members.iter().filter(|m| m.id != status.node) {
        let heard = member.heard_ms_ago.is_some_and(|ms| ms < SILENT_MS);
        if !heard && silent.insert(member.id) {
            tracing::warn!(node = member.id, addr = %member.member.quic, "a node of the site is silent");
        } else if heard && silent.remove(&member.id) {
            tracing::info!(node = member.id, "a node of the site is back");
        }
    }
}
