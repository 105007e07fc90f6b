//! A pipeline that counts batches.
//!
//! The pipeline stands before `counted`, and writes to `counts` the number of batches so far, with the first
//! record of the batch. Its guarantee: the batch, its count and the state of the next count are stored
//! together or not at all. So the counts are 1, 2, 3 and so on, each beside the batch in its place, whatever
//! happened.

use crate::entropy::Dice;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use weir_broker::{Broker, Chain, Footing, Hook, HookDone, HookError, HookJob, Output, Processed, StateKind};
use weir_checkers::numbered;
use weir_log::StateKey;
use weir_types::{Batch, BatchBuilder, Codec, Headers, Offset, TopicName};

/// Source topic.
pub(crate) const COUNTED: &str = "counted";
/// Output topic.
pub(crate) const COUNTS: &str = "counts";

/// Name of the pipeline in its rows of state.
const NAME: &[u8] = b"counting\0";

/// The pipeline of a node.
pub(crate) struct Counting(mpsc::UnboundedSender<(HookJob, HookDone)>);

/// Steps on top of each other, and the count after the last.
struct Part {
    chain: Chain,
    count: u64,
}

impl Counting {
    /// Runs the pipeline on the runtime of the node.
    pub(crate) fn start(broker: Broker, dice: Dice) -> Arc<Self> {
        // Bounded by the broker's limit of pending batches.
        let (jobs, queue) = mpsc::unbounded_channel();
        tokio::spawn(work(broker, queue, dice));
        Arc::new(Self(jobs))
    }
}

impl Hook for Counting {
    fn intercepts(&self, topic: &TopicName) -> bool {
        topic.as_str() == COUNTED
    }

    fn user_of(&self, _: &str) -> Option<String> {
        None
    }

    fn holder_of(&self, _: &str) -> Option<String> {
        None
    }

    fn has_room_for(&self, _: &str, _: u32) -> Result<(), String> {
        Ok(())
    }

    fn prepare(&self, _: Vec<[u8; 32]>) -> BoxFuture<'static, Result<bool, String>> {
        Box::pin(std::future::ready(Ok(true)))
    }

    fn take_back(&self, _: String, _: u64, _: String) -> BoxFuture<'static, Result<bool, String>> {
        Box::pin(std::future::ready(Ok(true)))
    }

    fn submit(&self, job: HookJob, done: HookDone) {
        if let Err(mpsc::error::SendError((job, done))) = self.0.send((job, done)) {
            done(job, Err(HookError::NotLeader));
        }
    }
}

async fn work(broker: Broker, mut jobs: mpsc::UnboundedReceiver<(HookJob, HookDone)>, mut dice: Dice) {
    let mut part = None;
    while let Some((job, done)) = jobs.recv().await {
        let made = step(&broker, &mut part, &job, &mut dice).await;
        done(job, made);
    }
}

/// Computes the output of a batch, on top of the state before.
async fn step(
    broker: &Broker,
    part: &mut Option<Part>,
    job: &HookJob,
    dice: &mut Dice,
) -> Result<Processed, HookError> {
    let home = job.topic.partition(job.partition).ok_or(HookError::NotLeader)?;
    if let Some(broken) = part.take_if(|part| !part.chain.is_standing()) {
        while !broken.chain.is_decided() {
            sleep(Duration::from_millis(1)).await;
        }
    }
    let part = match part {
        Some(part) => part,
        None => {
            let chain = Chain::begin(broker, home).ok_or(HookError::NotLeader)?;
            let count = remembered(broker).await.ok_or(HookError::NotLeader)?;
            part.insert(Part { chain, count })
        }
    };
    if !part.chain.is_next(&job.batch) {
        return Ok(Processed {
            footing: Footing::Unseen,
            ..Processed::unchanged(job.batch.clone())
        });
    }
    let step = part.chain.step();
    // A module takes its time, and more comes meanwhile.
    sleep(Duration::from_millis(dice.roll(4))).await;
    let counts = broker.topic(COUNTS).and_then(|topic| topic.partition(0));
    let counts = counts.ok_or(HookError::NotLeader)?;
    part.count += 1;
    if dice.once_in(40) {
        // The step fails after a change of state: later batches must not stand on that change.
        let pipeline = COUNTED.to_owned();
        return Err(HookError::Busy { pipeline });
    }
    let says = format!("{} {}", part.count, first_value(&job.batch));
    let mut record = BatchBuilder::new(Codec::None);
    record.push(0, None, Some(says.as_bytes()), Headers::NONE);
    let record = record.build(Offset::ZERO, None).unwrap_or_else(|e| panic!("{e}"));
    let row = Bytes::copy_from_slice(&part.count.to_be_bytes());
    Ok(Processed {
        outputs: vec![Output {
            partition: counts,
            batch: record,
            offset_slots: Vec::new(),
        }],
        rows: vec![(key(), Some(row))],
        footing: Footing::Step(step),
        ..Processed::unchanged(job.batch.clone())
    })
}

fn key() -> StateKey {
    StateKey::new(StateKind::Table, NAME)
}

/// The count that is applied.
pub(crate) async fn remembered(broker: &Broker) -> Option<u64> {
    let (done, settled) = oneshot::channel();
    let settle = broker.log().settle(move |result| {
        let _ = done.send(result.is_ok());
    });
    settle.ok()?;
    settled.await.ok().filter(|settled| *settled)?;
    let mut count = 0;
    let read = broker.log().rows_under(&key(), |_, row| {
        count = row
            .first_chunk()
            .map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
        true
    });
    read.ok().map(|()| count)
}

pub(crate) fn first_value(batch: &Batch) -> u64 {
    let seen = numbered::seen(batch, Offset::ZERO).unwrap_or_else(|e| panic!("{e}"));
    seen.first().map_or(u64::MAX, |seen| seen.value)
}
