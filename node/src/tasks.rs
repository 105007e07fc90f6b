//! The loops of a running node that no crate below it starts by itself.

use crate::ballast::Ballast;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use weir_broker::Broker;

/// Seconds between two checks whether another node should lead because this one's disk is full.
const MAKE_WAY_EVERY: u32 = 3;
/// Pause before leadership is transferred again: where all disks are full, leadership does not go round faster.
const MAKE_WAY_AGAIN: Duration = Duration::from_secs(60);
/// Seconds between two searches for expired records; Kafka searches every five minutes.
const RETAIN_EVERY: u32 = 30;
/// Interval of the checks of the disk budget: a second of the fastest load fits in the slack of one eviction or two.
const BUDGET_EVERY: Duration = Duration::from_secs(1);
/// Interval of the checks of sessions and rebalances of consumer groups: a tenth of a delay that clients notice.
const GROUPS_EVERY: Duration = Duration::from_millis(100);

/// Background tasks that end together. Dropping this aborts them.
#[derive(Default)]
pub(crate) struct Tasks(Vec<JoinHandle<()>>);

impl Tasks {
    /// Starts a task.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.push(tokio::spawn(task));
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// Expires sessions and completes rebalances of consumer groups, until the future is dropped.
pub(crate) async fn tick_groups(broker: Broker) {
    loop {
        // A node that coordinates no group has nothing to do for a second.
        let pause = if broker.tick_groups().await {
            GROUPS_EVERY
        } else {
            GROUPS_EVERY * 10
        };
        tokio::time::sleep(pause).await;
    }
}

/// Keeps the log within its budget and its retention, until the future is dropped. `ballast` is given back when the disk fills up.
pub(crate) async fn keep_room(broker: Broker, ballast: Ballast, offsets_retention: Duration) {
    let offsets_retention_ms = offsets_retention.as_millis() as i64;
    let mut made_way: Option<Instant> = None;
    for second in 1u32.. {
        tokio::time::sleep(BUDGET_EVERY).await;
        ballast.let_go_if_nothing_is_left();
        broker.keep_within_budget().await;
        let may_again = made_way.is_none_or(|at| at.elapsed() > MAKE_WAY_AGAIN);
        if second % MAKE_WAY_EVERY == 0 && may_again && broker.make_way_if_full().await {
            made_way = Some(Instant::now());
        }
        if second % RETAIN_EVERY == 0 {
            broker.retain().await;
            ballast.take_if_room();
            broker.expire_offsets(offsets_retention_ms).await;
        }
    }
}
