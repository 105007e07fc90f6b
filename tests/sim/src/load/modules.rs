//! Clients whose batches pass the pipeline that counts, and a check of its counts.

use super::{BATCH_WITHIN, REQUEST_WITHIN, leader, read, wait, who};
use crate::counting::{COUNTED, COUNTS, first_value, remembered};
use crate::entropy::Dice;
use crate::node::Node;
use crate::world::{Phase, World};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use weir_broker::{Framing, Piece};
use weir_types::{Batch, ErrorKind, Offset};

pub(super) async fn form(first: &Node) -> turmoil::Result {
    let made = first.ask(REQUEST_WITHIN, |broker| async move {
        let ever = [("retention.ms".to_owned(), "-1".to_owned())];
        broker.create_topic(&who(), COUNTED, 1, &ever).await.is_ok()
            && broker.create_topic(&who(), COUNTS, 1, &ever).await.is_ok()
    });
    match made.await {
        Some(true) => Ok(()),
        _ => Err("the topics of the pipeline cannot be made".into()),
    }
}

/// Sends batches, several at once, each until its outcome is known. Returns the first records of the
/// acknowledged batches.
pub(super) async fn fill(world: Arc<World>, client: u32) -> Vec<u64> {
    let mut dice = Dice::new(world.seed, 900 + u64::from(client));
    let (mut sequence, mut next, mut acknowledged) = (0, u64::from(client) * 1_000_000, Vec::new());
    while world.phase() == Phase::Faults {
        let round: Vec<(u64, Batch)> = (0..1 + dice.roll(4))
            .map(|_| {
                let values: Vec<u64> = (next..next + 1 + dice.roll(3)).collect();
                let first = next;
                let batch = super::batch(i64::from(client), sequence, &values);
                next += values.len() as u64;
                sequence += values.len() as i32;
                (first, batch)
            })
            .collect();
        let mut left = round.into_iter();
        while !left.as_slice().is_empty() {
            let batches: Vec<Batch> = left.as_slice().iter().map(|(_, batch)| batch.clone()).collect();
            match in_a_row(&world, batches).await {
                Ok(taken) => acknowledged.extend(left.by_ref().take(taken).map(|(first, _)| first)),
                Err(why) => {
                    world.wrong(format!(
                        "client {client}: a batch for `{COUNTED}` is refused: {why}"
                    ));
                    return acknowledged;
                }
            }
            sleep(Duration::from_millis(dice.roll(40))).await;
            if world.phase() == Phase::Rest {
                return acknowledged;
            }
        }
    }
    acknowledged
}

/// Sends batches in a row. Returns the number of acknowledged batches at the beginning; the outcome of the
/// others is unknown.
async fn in_a_row(world: &World, batches: Vec<Batch>) -> Result<usize, String> {
    let begun = Instant::now();
    let node = loop {
        match leader(world) {
            Some(node) => break node,
            None if begun.elapsed() > BATCH_WITHIN => return Ok(0),
            None => sleep(Duration::from_millis(10)).await,
        }
    };
    let answers = node.ask(REQUEST_WITHIN, move |broker| async move {
        let mut under_way = Vec::new();
        for batch in batches {
            under_way.push(broker.produce(&who(), COUNTED, 0, batch, Framing::AsSent).await);
        }
        let mut answers = Vec::new();
        for producing in under_way {
            let answer = match producing {
                Ok(producing) => producing.await.map(drop),
                Err(e) => Err(e),
            };
            answers.push(answer.map_err(|e| (e.kind(), e.to_string())));
        }
        answers
    });
    let answers = answers.await.unwrap_or_default();
    let taken = answers.iter().take_while(|answer| answer.is_ok()).count();
    match answers.into_iter().nth(taken) {
        // Batches behind a refused batch are out of order, and rightly refused.
        Some(Err((ErrorKind::Invalid, why))) if taken == 0 => Err(why),
        _ => Ok(taken),
    }
}

/// All that came is counted, in its order and once, and nothing else is.
pub(super) async fn look(world: &Arc<World>, acknowledged: &[u64]) -> turmoil::Result {
    // After the faults, the pipeline counts on.
    let (last, begun) = (9_000_000_000, Instant::now());
    while in_a_row(world, vec![super::batch(9_001, 0, &[last])]).await? == 0 {
        if begun.elapsed() > BATCH_WITHIN {
            return Err("a batch for the pipeline is not taken though all is well".into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    let batches = all(world, COUNTED).await?;
    let counted: Vec<u64> = batches.iter().map(first_value).collect();
    let should: Vec<String> = (1u64..)
        .zip(&counted)
        .map(|(count, first)| format!("{count} {first}"))
        .collect();
    let mut says = Vec::new();
    for batch in all(world, COUNTS).await? {
        let body = batch.body().unwrap_or_else(|e| panic!("{e}"));
        let values = body
            .records()
            .flatten()
            .map(|record| record.value.unwrap_or_default());
        says.extend(values.map(|value| String::from_utf8_lossy(value).into_owned()));
    }
    if let Some(missing) = acknowledged
        .iter()
        .chain([&last])
        .find(|first| !counted.contains(first))
    {
        world.wrong(format!(
            "a batch of `{COUNTED}` is acknowledged and not there: {missing}"
        ));
    }
    let other = (0..should.len().max(says.len())).find(|i| should.get(*i) != says.get(*i));
    if let Some(at) = other {
        world.wrong(format!(
            "`{COUNTS}` says {:?} at {at}, where the batches of `{COUNTED}` come to {:?}",
            says.get(at),
            should.get(at)
        ));
    }
    let count = loop {
        wait(world, "somebody leads", || leader(world).is_some()).await?;
        let Some(node) = leader(world) else { continue };
        let count = node.ask(REQUEST_WITHIN, |broker| async move { remembered(&broker).await });
        match count.await.flatten() {
            Some(count) => break count,
            None => sleep(Duration::from_millis(20)).await,
        }
    };
    let there = counted.len() as u64;
    if count != there {
        world.wrong(format!("the pipeline remembers {count} batches of {there}"));
    }
    Ok(())
}

/// All batches of a topic, when all has come to rest.
async fn all(world: &Arc<World>, topic: &'static str) -> Result<Vec<Batch>, Box<dyn std::error::Error>> {
    let (mut all, mut from) = (Vec::new(), Offset::ZERO);
    loop {
        wait(world, "somebody leads", || leader(world).is_some()).await?;
        let Some(node) = leader(world) else { continue };
        let Some(fetched) = read(node, topic, from).await else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        for piece in fetched.pieces {
            match piece {
                Piece::Batch(batch) => all.push(batch),
                Piece::Gap(gap) => world.wrong(format!("a reader of `{topic}` is shown a gap: {gap:?}")),
            }
        }
        from = fetched.next;
        if from >= fetched.committed_end {
            return Ok(all);
        }
    }
}
