//! Clients with arbitrary record dates, deletions, and requests larger than an entry.
//!
//! Their guarantees: a record stays for an hour after its append, whatever its date and the clocks; deleted
//! records are never served; a sequence of batches under the same leader is not refused midway; and a request
//! that is too large is refused, and harms nobody.

use super::{REQUEST_WITHIN, SETTLED_WITHIN, leader, read, wait, who};
use crate::entropy::Dice;
use crate::node::Node;
use crate::world::{Phase, World};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::sleep;
use weir_broker::{Broker, Fetched, Framing, Piece, StateKind};
use weir_types::limits::ROW_BYTES_MAX;
use weir_types::{Batch, BatchBuilder, Codec, ErrorKind, GapReason, Headers, Offset};

/// Records dated as they like, kept for an hour.
const DATED: &str = "dated";
/// Records that are deleted.
const CUT: &str = "cut";
/// Batches that are sent in a row, without waiting for answers.
const IN_A_ROW: usize = 30;

/// Acknowledged values of [`DATED`], by offset.
type Acknowledged = BTreeMap<u64, u64>;

pub(super) async fn form(first: &Node) -> turmoil::Result {
    let made = first.ask(REQUEST_WITHIN, |broker| async move {
        let hour = [("retention.ms".to_owned(), "3600000".to_owned())];
        let ever = [("retention.ms".to_owned(), "-1".to_owned())];
        broker.create_topic(&who(), DATED, 1, &hour).await.is_ok()
            && broker.create_topic(&who(), CUT, 1, &ever).await.is_ok()
    });
    match made.await {
        Some(true) => Ok(()),
        _ => Err("the topics of dated records cannot be made".into()),
    }
}

fn batch(timestamp: i64, values: &[u64]) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None);
    for value in values {
        builder.push(timestamp, None, Some(value.to_string().as_bytes()), Headers::NONE);
    }
    builder
        .build(Offset::ZERO, None)
        .unwrap_or_else(|e| panic!("{e}"))
}

/// Sends batches in a row, of any date, to whoever leads.
pub(super) async fn fill(world: Arc<World>) -> Acknowledged {
    let mut dice = Dice::new(world.seed, 800);
    let (mut acknowledged, mut next) = (Acknowledged::new(), 0);
    while world.phase() == Phase::Faults {
        sleep(Duration::from_millis(100 + dice.roll(400))).await;
        let Some(node) = leader(&world) else { continue };
        let dates = [0, 1_000, 1_370_000_000_000, 1_800_000_000_000, 4_000_000_000_000];
        let batches: Vec<(u64, Batch)> = (0..IN_A_ROW as u64)
            .map(|n| {
                (
                    next + n,
                    batch(dates[dice.roll(dates.len() as u64) as usize], &[next + n]),
                )
            })
            .collect();
        next += IN_A_ROW as u64;
        let (pause, id) = (Duration::from_millis(5 + dice.roll(30)), node.id());
        let within = 4 * REQUEST_WITHIN + pause * IN_A_ROW as u32;
        let answers = node
            .ask(within, move |broker| in_a_row(broker, batches, pause))
            .await;
        let Some((in_one_term, answers)) = answers else {
            continue;
        };
        for (value, answer) in &answers {
            if let Ok(offset) = answer {
                acknowledged.insert(*offset, *value);
            }
        }
        let is_taken = |answer: &Result<u64, ErrorKind>| answer.is_ok();
        let first = answers.iter().position(|(_, answer)| is_taken(answer));
        let last = answers.iter().rposition(|(_, answer)| is_taken(answer));
        let between = first.zip(last).and_then(|(first, last)| answers.get(first..last));
        let refused = between
            .into_iter()
            .flatten()
            .find(|(_, answer)| *answer == Err(ErrorKind::Retry));
        // A batch without room is refused at once, and a smaller batch behind is not.
        let has_room = !node.knobs.was_full.load(Ordering::Relaxed);
        if let (true, true, Some((value, _))) = (has_room, in_one_term, refused) {
            world.wrong(format!(
                "node {id} refuses {value} in the midst of others that it takes, and leads all the time: their order changes when it \
                 is sent again"
            ));
        }
    }
    acknowledged
}

/// Sends batches in a row. Returns whether all of that was in a single term, and the outcome of each batch.
async fn in_a_row(
    broker: Broker,
    batches: Vec<(u64, Batch)>,
    pause: Duration,
) -> (bool, Vec<(u64, Result<u64, ErrorKind>)>) {
    let term = broker.group().term();
    let mut taken = Vec::new();
    for (value, batch) in batches {
        taken.push((
            value,
            broker.produce(&who(), DATED, 0, batch, Framing::AsSent).await,
        ));
        sleep(pause).await;
    }
    let mut answers = Vec::new();
    for (value, producing) in taken {
        let answer = match producing {
            Ok(producing) => producing.await.map(|produced| produced.base.get()),
            Err(e) => Err(e),
        };
        answers.push((value, answer.map_err(|e| e.kind())));
    }
    (broker.group().term() == term, answers)
}

/// Offsets and values of read records.
fn records(fetched: &Fetched) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    for piece in &fetched.pieces {
        let Piece::Batch(batch) = piece else { continue };
        let body = batch.body().unwrap_or_else(|e| panic!("{e}"));
        for record in body.records().flatten() {
            let value = record
                .value
                .and_then(|value| str::from_utf8(value).ok()?.parse().ok());
            all.push((record.offset.get(), value.unwrap_or(u64::MAX)));
        }
    }
    all
}

/// All that was acknowledged is there when all has come to rest.
pub(super) async fn look(world: &Arc<World>, acknowledged: Acknowledged) -> turmoil::Result {
    let (mut there, mut from) = (Acknowledged::new(), Offset::ZERO);
    loop {
        wait(world, "somebody leads", || leader(world).is_some()).await?;
        let Some(node) = leader(world) else { continue };
        let Some(fetched) = read(node, DATED, from).await else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        there.extend(records(&fetched));
        if fetched.next >= fetched.committed_end {
            break;
        }
        from = fetched.next;
    }
    let gone = acknowledged
        .iter()
        .filter(|(offset, value)| there.get(offset) != Some(value));
    let gone: Vec<_> = gone.take(3).collect();
    if !gone.is_empty() {
        world.wrong(format!(
            "records that were stored less than an hour ago are gone from `{DATED}`, or are others: {gone:?}"
        ));
    }
    Ok(())
}

/// Writes, deletes up to somewhere, and looks from the start.
pub(super) async fn cut(world: Arc<World>) {
    let mut dice = Dice::new(world.seed, 801);
    let mut cut = 0;
    while world.phase() == Phase::Faults {
        sleep(Duration::from_millis(50 + dice.roll(200))).await;
        let Some(node) = leader(&world) else { continue };
        let values: Vec<u64> = (0..1 + dice.roll(6)).collect();
        let up_to = dice.roll(8);
        let done = node.ask(REQUEST_WITHIN, move |broker| async move {
            let sent = broker
                .produce(&who(), CUT, 0, batch(0, &values), Framing::AsSent)
                .await;
            let end = sent.ok()?.await.ok()?.base.get() + values.len() as u64;
            let to = end.saturating_sub(up_to);
            let trimmed = broker
                .trim(&who(), CUT, 0, Offset::new(to), GapReason::Expired)
                .await;
            trimmed.is_ok().then_some(to)
        });
        if let Some(Some(to)) = done.await {
            cut = cut.max(to);
        }
        let Some(node) = leader(&world) else { continue };
        let told = cut;
        let from = Offset::new(dice.roll(told + 1));
        let Some(fetched) = read(node, CUT, from).await else {
            continue;
        };
        if let Some((offset, _)) = records(&fetched).into_iter().find(|(offset, _)| *offset < told) {
            world.wrong(format!(
                "node {} shows the record at {offset} of `{CUT}`, and all before {told} was deleted",
                node.id()
            ));
        }
    }
}

/// Writes rows of any size, some larger than a row may be.
pub(super) async fn grow(world: Arc<World>) {
    let mut dice = Dice::new(world.seed, 802);
    while world.phase() == Phase::Faults {
        sleep(Duration::from_millis(500 + dice.roll(2_000))).await;
        let Some(node) = leader(&world) else { continue };
        let is_too_large = dice.once_in(2);
        let bytes = match is_too_large {
            true => ROW_BYTES_MAX + 1 + dice.roll(1 << 20) as usize,
            false => 1 + dice.roll(600_000) as usize,
        };
        let written = node.ask(SETTLED_WITHIN, move |broker| async move {
            let row = vec![7; bytes].into();
            let written = broker.put_row(StateKind::Revision, b"sim", Some(row)).await;
            written.map_err(|e| e.kind())
        });
        match written.await {
            Some(Ok(())) if is_too_large => {
                world.wrong(format!("node {} takes a row of {bytes} bytes", node.id()));
            }
            Some(Err(ErrorKind::Invalid)) if !is_too_large => {
                world.wrong(format!("node {} refuses a row of {bytes} bytes", node.id()));
            }
            _ => {}
        }
    }
}
