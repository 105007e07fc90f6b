//! Clients that record their calls and reads, for the checkers to judge.

mod dated;
mod modules;

use crate::entropy::Dice;
use crate::node::{Node, PARTITIONS, TELL_EVERY, TOPIC, View, lock};
use crate::world::{GROUP_SIZE, Phase, World};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use weir_broker::{Broker, Fetch, Fetched, Framing, Piece, Principal};
use weir_checkers::{Event, Outcome, Place, Seen, numbered};
use weir_types::{Batch, ErrorKind, GroupId, Offset, PartitionId};

/// A client gives a request up after this.
const REQUEST_WITHIN: Duration = Duration::from_secs(1);
/// A batch whose fate is not known after this is left alone.
const BATCH_WITHIN: Duration = Duration::from_secs(40);
/// Time limit for forming the site, and for coming to rest: several elections with a slow disk, and a
/// snapshot, which shows no progress before its end. Seed 8746 takes 45 s for a megabyte, over a network that
/// reorders packets.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn place(partition: u32) -> Place {
    Place {
        topic: TOPIC.to_owned(),
        partition,
    }
}

fn who() -> Principal {
    Principal::anonymous("sim")
}

/// Forms the site, loads the site under faults, lets the site come to rest, and collects the records of each
/// node.
pub(crate) async fn run(world: Arc<World>) -> turmoil::Result {
    form(&world).await?;
    world.enter(Phase::Faults);
    let mut clients = Vec::new();
    for client in 0..world.producers {
        clients.push(tokio::spawn(produce(Arc::clone(&world), client)));
    }
    for client in 100..102 {
        clients.push(tokio::spawn(consume(Arc::clone(&world), client)));
    }
    let dated = tokio::spawn(dated::fill(Arc::clone(&world)));
    let counted = [2_000, 2_001].map(|client| tokio::spawn(modules::fill(Arc::clone(&world), client)));
    clients.push(tokio::spawn(dated::cut(Arc::clone(&world))));
    clients.push(tokio::spawn(dated::grow(Arc::clone(&world))));
    while world.phase() == Phase::Faults {
        sleep(Duration::from_millis(10)).await;
    }
    settle(&world).await?;
    world.enter(Phase::Rest);
    for client in clients {
        client.await?;
    }
    dated::look(&world, dated.await?).await?;
    let mut acknowledged = Vec::new();
    for client in counted {
        acknowledged.extend(client.await?);
    }
    modules::look(&world, &acknowledged).await?;
    last_word(&world).await?;
    settle(&world).await?;
    for node in world.nodes.iter().filter(|n| !n.witness) {
        let has = node.view().groups;
        // All records are read, and damaged records are fetched from other nodes.
        let there = Arc::clone(&world);
        let stored = node
            .ask(SETTLED_WITHIN, move |broker| async move {
                stored(&there, &broker).await
            })
            .await;
        let stored = stored.ok_or_else(|| format!("node {} does not tell what it has", node.id()))?;
        for (partition, (group, records)) in stored.into_iter().enumerate() {
            if group != GroupId::SITE && !has.contains_key(&group.0) {
                continue;
            }
            world.note(Event::Final {
                node: node.id() as u32,
                place: place(partition as u32),
                records,
            });
        }
    }
    world.enter(Phase::Over);
    Ok(())
}

async fn form(world: &World) -> turmoil::Result {
    let members: Result<Vec<_>, _> = world.nodes.iter().map(|n| n.member()).collect();
    let members = members?;
    let first = &world.nodes[0];
    wait(world, "the first node leads", || first.view().serving).await?;
    for (node, member) in world.nodes.iter().zip(members).skip(1) {
        let id = node.id();
        loop {
            let member = member.clone();
            let added = first.ask(REQUEST_WITHIN, move |broker| async move {
                broker.group().add_learner(id, member).await.is_ok()
            });
            if added.await == Some(true) {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    let count = world.nodes.len();
    wait(world, "everybody votes", || {
        world.nodes.iter().all(|n| n.view().voters.len() == count)
    })
    .await?;
    let settings = vec![("retention.ms".to_owned(), "-1".to_owned())];
    let replicas = world.replicas;
    let made = first.ask(REQUEST_WITHIN, move |broker| async move {
        broker
            .create_topic_on(&who(), TOPIC, PARTITIONS, replicas, &settings)
            .await
            .is_ok()
    });
    if made.await != Some(true) {
        return Err("the topic cannot be made".into());
    }
    dated::form(first).await?;
    modules::form(first).await?;
    wait(world, "everybody has the topic", || {
        let last = first.view().last;
        world
            .nodes
            .iter()
            .all(|n| n.view().applied == last && n.view().in_place)
    })
    .await
}

/// Tells whether no node is being replaced, and all nodes have applied the leader's log.
async fn settle(world: &World) -> turmoil::Result {
    // The last views of the nodes may be older than the last write.
    sleep(10 * TELL_EVERY).await;
    wait(world, "the site comes to rest", || {
        let views: Vec<_> = world.nodes.iter().map(|n| n.view()).collect();
        let Some(leader) = views.iter().find(|v| v.serving) else {
            return false;
        };
        !world.changing.load(Ordering::Relaxed)
            && views
                .iter()
                .all(|v| v.up && v.in_place && v.applied == leader.last && v.last == leader.last)
            && leader.voters.len() == views.len()
            && leader.moves == 0
            && groups_are_settled(&views)
    })
    .await
}

/// Tells whether each replica group is on its nodes and on no other, and all have applied the leader's log.
fn groups_are_settled(views: &[View]) -> bool {
    let ids: BTreeSet<u16> = views.iter().flat_map(|v| v.groups.keys().copied()).collect();
    ids.into_iter().all(|id| {
        let has: Vec<&View> = views.iter().filter_map(|v| v.groups.get(&id)).collect();
        let Some(leader) = has.iter().find(|v| v.serving) else {
            return false;
        };
        has.len() as u32 == GROUP_SIZE
            && leader.voters.len() == has.len()
            && leader.members.len() == has.len()
            && has
                .iter()
                .all(|v| v.applied == leader.last && v.last == leader.last)
    })
}

/// Entries of the site's log that its nodes have not applied, in all; the most there can be while nobody
/// leads.
fn behind(world: &World) -> u64 {
    let views: Vec<_> = world.nodes.iter().map(|n| n.view()).collect();
    let Some(leader) = views.iter().find(|v| v.serving) else {
        return u64::MAX;
    };
    views.iter().map(|v| leader.last.saturating_sub(v.applied)).sum()
}

/// Waits until `condition` holds. Catching up is slow on a network that reorders packets, which QUIC takes
/// for loss: the time limit begins anew with every progress.
async fn wait(world: &World, what: &str, is: impl Fn() -> bool) -> turmoil::Result {
    let (mut begun, mut least) = (Instant::now(), behind(world));
    while !is() {
        let left = behind(world);
        if left < least {
            (begun, least) = (Instant::now(), left);
        }
        if begun.elapsed() > SETTLED_WITHIN {
            let views: Vec<_> = world
                .nodes
                .iter()
                .map(|n| (n.id(), n.view(), n.failed()))
                .collect();
            return Err(format!("not within {SETTLED_WITHIN:?}: {what}; {views:?}").into());
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// A write that is acknowledged when all is well again.
async fn last_word(world: &Arc<World>) -> turmoil::Result {
    for partition in 0..PARTITIONS {
        let value = 9_000_000 + u64::from(partition);
        let begun = Instant::now();
        let base = loop {
            wait(world, "somebody leads", || world.leader_of(partition).is_some()).await?;
            let leader = world.leader_of(partition);
            let Some(leader) = leader else { continue };
            match send(world, leader, partition, batch(9_000, 0, &[value])).await {
                Sent::Ok(base) => break base,
                sent if begun.elapsed() > SETTLED_WITHIN => {
                    return Err(format!("a write is not taken though all is well: {sent:?}").into());
                }
                _ => sleep(Duration::from_millis(20)).await,
            }
        };
        world.note(Event::Send {
            client: 9_000,
            place: place(partition),
            value,
            outcome: Outcome::Ok,
            offset: Some(base),
        });
    }
    Ok(())
}

fn batch(id: i64, sequence: i32, values: &[u64]) -> Batch {
    numbered::batch(id, sequence, values).unwrap_or_else(|e| panic!("{e}"))
}

fn records(batch: &Batch, from: Offset) -> Vec<Seen> {
    numbered::seen(batch, from).unwrap_or_else(|e| panic!("{e}"))
}

/// The node that leads the site, as far as can be told.
fn leader(world: &World) -> Option<&Arc<Node>> {
    world.nodes.iter().find(|node| node.view().serving)
}

/// Returns the records of a topic's first partition from an offset on, if the node answers.
async fn read(node: &Node, topic: &'static str, from: Offset) -> Option<Fetched> {
    let fetched = node.ask(REQUEST_WITHIN, move |broker| async move {
        let fetch = Fetch {
            topic: topic.to_owned(),
            partition: 0,
            from,
            max_bytes: 1 << 20,
            wait: Duration::ZERO,
        };
        broker.fetch(&who(), fetch).await.ok()
    });
    fetched.await.flatten()
}

#[derive(Debug)]
enum Sent {
    Ok(u64),
    /// The record may be there now or later.
    Unknown,
    /// This error must not happen to a correct client.
    Wrong(String),
}

async fn send(world: &Arc<World>, node: &Node, partition: u32, batch: Batch) -> Sent {
    let witness = Arc::clone(world);
    let span = u64::from(batch.span());
    let answer = node.ask(REQUEST_WITHIN, move |broker| async move {
        let sent = broker
            .produce(&who(), TOPIC, partition, batch, Framing::AsSent)
            .await;
        let done = match sent {
            Ok(producing) => producing.await,
            Err(e) => Err(e),
        };
        if let Ok(produced) = &done
            && let Some(id) = broker.topic(TOPIC).and_then(|t| t.partition(partition))
        {
            // At the very moment in which the client could be told.
            witness.acknowledged(id, produced.base, span);
        }
        done.map(|produced| produced.base.get())
            .map_err(|e| (e.kind(), e.to_string()))
    });
    match answer.await {
        Some(Ok(base)) => {
            world.told(partition, base + span);
            Sent::Ok(base)
        }
        Some(Err((ErrorKind::Invalid, why))) => Sent::Wrong(why),
        Some(Err(_)) | None => Sent::Unknown,
    }
}

/// Returns a node, mostly the self-declared leader of the partition, sometimes any other.
fn somebody(world: &World, partition: u32, dice: &mut Dice) -> Arc<Node> {
    let any = &world.nodes[dice.roll(world.nodes.len() as u64) as usize];
    let leader = world.leader_of(partition);
    match leader {
        Some(leader) if !dice.once_in(5) => Arc::clone(leader),
        _ => Arc::clone(any),
    }
}

/// Sends numbered batches, each until its outcome is known.
async fn produce(world: Arc<World>, client: u32) {
    let mut dice = Dice::new(world.seed, 500 + u64::from(client));
    let partition = client % PARTITIONS;
    let (id, mut sequence, mut n) = (1_000 + i64::from(client), 0, 0u64);
    while world.phase() == Phase::Faults {
        let count = 1 + dice.roll(4);
        let values: Vec<u64> = (0..count)
            .map(|i| u64::from(client) * 1_000_000 + n + i)
            .collect();
        n += count;
        let batch = batch(id, sequence, &values);
        let mut outcome = (Outcome::Unknown, None);
        let begun = Instant::now();
        while begun.elapsed() < BATCH_WITHIN {
            let node = somebody(&world, partition, &mut dice);
            match send(&world, &node, partition, batch.clone()).await {
                Sent::Ok(base) => {
                    outcome = (Outcome::Ok, Some(base));
                    break;
                }
                Sent::Unknown => sleep(Duration::from_millis(5 + dice.roll(40))).await,
                Sent::Wrong(why) => {
                    world.wrong(format!(
                        "client {client}: a batch of sequence {sequence} is refused: {why}"
                    ));
                    return;
                }
            }
        }
        for (i, value) in values.iter().enumerate() {
            world.note(Event::Send {
                client,
                place: place(partition),
                value: *value,
                outcome: outcome.0,
                offset: outcome.1.map(|base| base + i as u64),
            });
        }
        if outcome.0 == Outcome::Unknown {
            return;
        }
        sequence += values.len() as i32;
        sleep(Duration::from_millis(dice.roll(30))).await;
    }
}

/// Reads on and on.
async fn consume(world: Arc<World>, client: u32) {
    let mut dice = Dice::new(world.seed, 700 + u64::from(client));
    let partition = client % PARTITIONS;
    let mut from = Offset::ZERO;
    let mut idle = 0;
    // Once all is at rest, until nothing more comes.
    while world.phase() == Phase::Faults || world.phase() == Phase::Heal || idle < 20 {
        let node = somebody(&world, partition, &mut dice);
        let told = world.told_end(partition);
        let fetched = node.ask(REQUEST_WITHIN, move |broker| async move {
            let fetch = Fetch {
                topic: TOPIC.to_owned(),
                partition,
                from,
                max_bytes: 1 << 20,
                wait: Duration::from_millis(50),
            };
            broker.fetch(&who(), fetch).await.map_err(|e| e.to_string())
        });
        let Some(Ok(fetched)) = fetched.await else {
            sleep(Duration::from_millis(10 + dice.roll(20))).await;
            idle += usize::from(world.phase() == Phase::Rest);
            continue;
        };
        if fetched.committed_end.get() < told {
            world.wrong(format!(
                "node {} answers that partition {partition} ends at {}; somebody was told of {told} before",
                node.id(),
                fetched.committed_end
            ));
        }
        let records = seen(&world, &fetched.pieces, from);
        from = fetched.next;
        idle = if records.is_empty() { idle + 1 } else { 0 };
        if !records.is_empty() {
            world.note(Event::Poll {
                client,
                place: place(partition),
                records,
            });
        }
    }
}

fn seen(world: &World, pieces: &[Piece], from: Offset) -> Vec<Seen> {
    let mut seen = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Batch(batch) => seen.extend(records(batch, from)),
            Piece::Gap(gap) => world.wrong(format!("a reader is shown a gap: {gap:?}")),
        }
    }
    seen
}

/// Returns all records of a node by partition, leader or not, after a scrub.
async fn stored(world: &World, broker: &Broker) -> Vec<(GroupId, Vec<Seen>)> {
    let mut all = Vec::new();
    // Unrepairable records are missing below.
    if let Ok((_, mended)) = broker.scrub(|_, _| {}).await
        && !mended.is_empty()
        && !world.rotten.load(Ordering::Relaxed)
    {
        let node = broker.group().node();
        world.wrong(format!(
            "node {node} had to have {mended:?} from others, and nothing has rotted"
        ));
    }
    for partition in 0..PARTITIONS {
        let id = broker.topic(TOPIC).and_then(|t| t.partition(partition));
        all.push(match id {
            Some(id) => (id.group(), stored_of(broker, id).await),
            None => (GroupId::SITE, Vec::new()),
        });
    }
    all
}

async fn stored_of(broker: &Broker, id: PartitionId) -> Vec<Seen> {
    let end = broker.log().marks(id).map_or(Offset::ZERO, |m| m.committed_end());
    let (mut from, mut all) = (Offset::ZERO, Vec::new());
    while from < end {
        let (done, read) = tokio::sync::oneshot::channel();
        let asked = broker
            .log()
            .read(id, from, end, 1 << 20, move |r| drop(done.send(r)));
        let Ok(Ok(chunk)) = (match asked {
            Ok(()) => read.await,
            Err(_) => return all,
        }) else {
            return all;
        };
        for piece in &chunk.pieces {
            if let Piece::Batch(batch) = piece {
                all.extend(records(batch, from));
            }
        }
        if chunk.next <= from {
            return all;
        }
        from = chunk.next;
    }
    all
}

impl World {
    /// Tells whether each replica group has a leader, and as many voters as configured.
    pub(crate) fn groups_are_whole(&self) -> bool {
        let views: Vec<View> = self.nodes.iter().map(|n| n.view()).collect();
        let ids: BTreeSet<u16> = views.iter().flat_map(|v| v.groups.keys().copied()).collect();
        ids.into_iter().all(|id| {
            let leader = views.iter().filter_map(|v| v.groups.get(&id)).find(|v| v.serving);
            leader.is_some_and(|v| v.voters.len() as u32 == GROUP_SIZE)
        })
    }

    /// Returns the self-declared leader of the partition.
    pub(crate) fn leader_of(&self, partition: u32) -> Option<&Arc<Node>> {
        let serves = |n: &&Arc<Node>| n.view().serves.get(partition as usize) == Some(&true);
        self.nodes.iter().find(serves)
    }

    pub(crate) fn note(&self, event: Event) {
        lock(&self.history).push(event);
    }
}
