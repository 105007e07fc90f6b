//! Giving up old records: by age and size per topic, and by the node's disk budget. Decided here, by the leader, and
//! carried out by entries like everything else.

use crate::auth::Principal;
use crate::broker::Broker;
use crate::topic::Topic;
use std::cmp::Reverse;
use std::sync::Arc;
use tokio::sync::oneshot;
use weir_log::{Boundary, Chunk, Marks};
use weir_types::{GapReason, Offset, PartitionId};

/// One eviction frees a little more than it must, so that the next batch does not cause another.
const EVICT_SLACK_BYTES: u64 = 1 << 20;

impl Broker {
    /// Looks once at every partition and trims what is too old or too much for its topic. Call it every half minute or
    /// so: it reads a batch of each partition.
    ///
    /// # Cancel safety
    /// Safe: what was proposed happens, the rest waits for the next call.
    pub async fn retain(&self) {
        let now = self.now_ms();
        for topic in self.topics() {
            for (index, id) in topic.partitions.iter().enumerate() {
                // What goes is decided where it is led, and goes everywhere.
                if let Some(marks) = self.0.log.marks(*id).filter(|_| self.serves(*id)) {
                    self.expire(&topic, index as u32, *id, &marks, now).await;
                }
            }
        }
    }

    /// Evicts what is over the node's disk budget. Call it every second or so: it looks at counters alone.
    ///
    /// # Cancel safety
    /// Safe, as [`Broker::retain`].
    pub async fn keep_within_budget(&self) {
        if let Some(budget) = self.0.options.disk_budget_bytes {
            self.evict(budget).await;
        }
    }

    async fn expire(&self, topic: &Topic, index: u32, id: PartitionId, marks: &Marks, now: i64) {
        let mut to = marks.log_start();
        if marks.bytes() == 0 {
            return;
        }
        if let Some(age) = topic.config.retention_ms {
            let before = now.saturating_sub_unsigned(age);
            to = to.max(
                self.boundary(id, Boundary::Before(before))
                    .await
                    .unwrap_or_default(),
            );
        }
        let over = topic
            .config
            .retention_bytes
            .map_or(0, |limit| marks.bytes().saturating_sub(limit));
        if over > 0 {
            to = to.max(self.boundary(id, Boundary::Bytes(over)).await.unwrap_or_default());
        }
        if to > marks.log_start() {
            self.give_up(topic, index, to, GapReason::Expired).await;
        }
    }

    /// Frees space from the lowest priority first, and there from the partition with the most.
    async fn evict(&self, budget: u64) {
        let topics = self.topics();
        let used: u64 = topics
            .iter()
            .flat_map(|t| &t.partitions)
            .filter_map(|p| self.0.log.marks(*p))
            .map(|m| m.bytes())
            .sum();
        let Some(over) = used.checked_sub(budget).filter(|o| *o > 0) else {
            return;
        };
        let mut candidates = Vec::new();
        for topic in topics {
            for (index, id) in topic.partitions.iter().enumerate() {
                if !self.serves(*id) {
                    continue;
                }
                let bytes = self.0.log.marks(*id).map_or(0, |m| m.bytes());
                candidates.push((bytes, Arc::clone(&topic), index as u32, *id));
            }
        }
        candidates.sort_by_key(|(bytes, topic, ..)| (topic.config.priority, Reverse(*bytes)));
        let mut over = over + EVICT_SLACK_BYTES.min(budget / 8);
        for (bytes, topic, index, id) in candidates {
            if over == 0 || bytes == 0 {
                continue;
            }
            if let Some(to) = self.boundary(id, Boundary::Bytes(over.min(bytes))).await {
                tracing::warn!(topic = %topic.name, partition = index, %to, "evicting records: over the disk budget");
                self.give_up(&topic, index, to, GapReason::Evicted).await;
                over = over.saturating_sub(bytes);
            }
        }
    }

    async fn give_up(&self, topic: &Topic, index: u32, to: Offset, reason: GapReason) {
        let who = Principal::anonymous("retention");
        if let Err(e) = self.trim(&who, topic.name.as_str(), index, to, reason).await {
            tracing::warn!(topic = %topic.name, partition = index, error = %e, "cannot trim");
        }
    }

    async fn boundary(&self, id: PartitionId, of: Boundary) -> Option<Offset> {
        let (done, answer) = oneshot::channel::<Result<Chunk, weir_log::ReadError>>();
        self.0.log.boundary(id, of, move |r| drop(done.send(r))).ok()?;
        answer.await.ok()?.ok().map(|chunk| chunk.next)
    }
}
