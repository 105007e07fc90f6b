//! Retention of records: by age and size per topic, and by the node's disk budget. The leader decides, and
//! entries carry out.

use crate::access::auth::Principal;
use crate::core::Broker;
use crate::local::age::{Age, Moment};
use crate::local::retention::Why;
use crate::state::rows::Row;
use crate::state::rows::topic::Topic;
use crate::topic::config::{Cleanup, RetentionBy};
use futures_util::future::BoxFuture;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;
use weir_log::{Boundary, Chunk, Marks, Op};
use weir_types::level::LEVEL_OF_AGES;
use weir_types::limits::BATCH_BYTES_MAX;
use weir_types::planted::{Bug, planted};
use weir_types::{GapReason, GroupId, Offset, PartitionId};

/// Bytes of a partition that stay under `retention.by = record`, whatever the timestamps say. Kafka keeps the
/// active segment, which has up to 1 GiB.
const KEPT_BYTES: u64 = 64 << 20;

/// Time for which records stay under `retention.by = record`, whatever the timestamps say.
const KEPT_MS: u64 = 3_600_000;

/// Partitions whose storage times an entry notes; others follow in the next round.
const NOTED_AT_ONCE: usize = 2_000;

/// Interval of warnings that a topic loses records to retention.
const TELL_EVERY_MS: u64 = 3_600_000;

/// Extra bytes per eviction, so that the next batch does not cause another.
const EVICT_SLACK_BYTES: u64 = 1 << 20;

impl Broker {
    /// Applies retention to all partitions, and notes the storage time of new records. Call about every half
    /// minute: each call reads a batch per partition.
    ///
    /// # Cancel safety
    /// Cancel safe: proposed trims happen, and the next call continues.
    pub fn retain(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let ages = self.advance_clocks().await;
            for topic in self.topics() {
                for (index, id) in topic.partitions.iter().enumerate() {
                    // The leader decides, and all replicas follow.
                    if let Some(marks) = self.0.log.marks(*id).filter(|_| self.serves(*id)) {
                        self.expire(&topic, index as u32, *id, &marks, ages.get(&id.group()))
                            .await;
                    }
                }
            }
        })
    }

    /// Advances the storage clocks of groups that this node leads, and notes storage times of partitions.
    async fn advance_clocks(&self) -> BTreeMap<GroupId, Age> {
        let now = Moment {
            wall_ms: self.now_ms(),
            steady_ms: self.0.clock.steady_ms(),
        };
        let mut ages = BTreeMap::new();
        let mut retention = self.0.retention.lock().await;
        let look = retention.watch.look(now);
        if self.level() < LEVEL_OF_AGES {
            return ages;
        }
        let topics = self.topics();
        let partitions = || {
            topics
                .iter()
                .flat_map(|topic| topic.partitions.iter().map(move |id| (topic, *id)))
        };
        let groups: BTreeSet<GroupId> = partitions().map(|(_, id)| id.group()).collect();
        for group in groups {
            if !self.group_of(group).is_some_and(|group| group.is_serving()) {
                continue;
            }
            let ageing = retention.ageing.entry(group).or_default();
            let stored = self.0.applied.tables().ages.get(&group).copied();
            let Some(age) = ageing.go_on(stored, look) else {
                continue;
            };
            ages.insert(group, age);
            let of_group = partitions().filter(|(_, id)| id.group() == group);
            let mut ops = if age.is_exact {
                self.notes(of_group, age.ms)
            } else {
                Vec::new()
            };
            if ops.is_empty() && !age.must_write {
                continue;
            }
            ops.push(age.row.put(&group));
            match self.put_in(group, ops).await {
                Ok(()) => ageing.written(age.row),
                Err(error) => tracing::debug!(%error, "cannot commit the age of records yet"),
            }
        }
        ages
    }

    /// Returns rows with new storage times of `partitions` at `age_ms`.
    pub(crate) fn notes<'a>(
        &self,
        partitions: impl Iterator<Item = (&'a Arc<Topic>, PartitionId)>,
        age_ms: u64,
    ) -> Vec<Op> {
        let tables = self.0.applied.tables();
        let note = |(topic, id): (&Arc<Topic>, PartitionId)| {
            let marks = self.0.log.marks(id)?;
            let mut notes = tables.stored_at.get(&id).cloned().unwrap_or_default();
            let (start, end) = (marks.log_start(), marks.committed_end());
            let is_new = notes.note(start, end, age_ms, topic.config.retention_ms);
            is_new.then(|| notes.put(&id))
        };
        partitions.filter_map(note).take(NOTED_AT_ONCE).collect()
    }

    /// Evicts records above the node's disk budget. Call about every second: a call reads counters only.
    ///
    /// # Cancel safety
    /// Cancel safe: proposed trims happen, and the next call continues.
    pub fn keep_within_budget(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(budget) = self.0.options.disk_budget_bytes {
                self.evict(budget).await;
            }
        })
    }

    async fn expire(&self, topic: &Topic, index: u32, id: PartitionId, marks: &Marks, age: Option<&Age>) {
        if marks.bytes() == 0 || topic.config.cleanup == Cleanup::Compact {
            return;
        }
        let by_age = match (topic.config.retention_ms, age) {
            (Some(retention), Some(age)) => match topic.config.retention_by {
                _ if planted(Bug::RetentionByRecord) => self.older_records(id, retention).await,
                RetentionBy::Stored => self.stored_before(id, age.ms, retention),
                RetentionBy::Record => self
                    .older_records(id, retention)
                    .await
                    .min(self.young(id, marks, age.ms).await),
            },
            _ => Offset::ZERO,
        };
        let over = topic
            .config
            .retention_bytes
            .map_or(0, |limit| marks.bytes().saturating_sub(limit));
        let by_size = match over {
            0 => Offset::ZERO,
            over => self.boundary(id, Boundary::Bytes(over)).await.unwrap_or_default(),
        };
        let (to, why) = if by_size > by_age {
            (by_size, Why::Size)
        } else {
            (by_age, Why::Age)
        };
        if to > marks.log_start() {
            self.trim_partition(topic, index, marks.log_start()..to, why)
                .await;
        }
    }

    /// Returns the offset before which all records are older than `retention_ms`, by the storage clock.
    fn stored_before(&self, id: PartitionId, age_ms: u64, retention_ms: u64) -> Offset {
        let tables = self.0.applied.tables();
        let notes = tables.stored_at.get(&id).zip(age_ms.checked_sub(retention_ms));
        notes
            .and_then(|(notes, by)| notes.stored_by(by))
            .unwrap_or_default()
    }

    /// Returns the offset before which all records are older than `retention_ms` by their timestamps.
    async fn older_records(&self, id: PartitionId, retention_ms: u64) -> Offset {
        let before = self.now_ms().saturating_sub_unsigned(retention_ms);
        self.boundary(id, Boundary::Before(before))
            .await
            .unwrap_or_default()
    }

    /// Returns the start of the records that stay whatever their timestamps say: the newest bytes, and
    /// recently stored records.
    async fn young(&self, id: PartitionId, marks: &Marks, age_ms: u64) -> Offset {
        // A trim may remove a batch more than requested.
        let kept = KEPT_BYTES + BATCH_BYTES_MAX as u64;
        let Some(over) = marks.bytes().checked_sub(kept).filter(|over| *over > 0) else {
            return marks.log_start();
        };
        let by_size = self.boundary(id, Boundary::Bytes(over)).await.unwrap_or_default();
        by_size.min(self.stored_before(id, age_ms, KEPT_MS))
    }

    /// Evicts records from the lowest priority first, and there from the largest partition. Skips compacted
    /// topics, where the last record of a key may be the oldest.
    async fn evict(&self, budget: u64) {
        let topics = self.topics();
        let bytes_of = |is_by_key: bool| -> u64 {
            let of = topics
                .iter()
                .filter(|t| t.config.cleanup.is_by_key() == is_by_key);
            let marks = of
                .flat_map(|t| &t.partitions)
                .filter_map(|p| self.0.log.marks(*p));
            marks.map(|m| m.bytes()).sum()
        };
        // Compacted topics use the others' part, up to half of the budget. Beyond that, evicting others does
        // not help.
        let (by_key, used) = (bytes_of(true), bytes_of(false));
        if by_key > budget / 2 {
            self.warn_over_budget(by_key, budget).await;
        }
        let Some(over) = used
            .checked_sub(budget - by_key.min(budget / 2))
            .filter(|over| *over > 0)
        else {
            return;
        };
        let mut candidates = Vec::new();
        for topic in topics {
            for (index, id) in topic.partitions.iter().enumerate() {
                if !self.serves(*id) || topic.config.cleanup.is_by_key() {
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
                let start = self.0.log.marks(id).map_or(Offset::ZERO, |m| m.log_start());
                self.trim_partition(&topic, index, start..to, Why::Budget).await;
                over = over.saturating_sub(bytes);
            }
        }
    }

    async fn warn_over_budget(&self, by_key: u64, budget: u64) {
        let mut retention = self.0.retention.lock().await;
        let now = self.0.clock.steady_ms();
        let is_told = |at: u64| now.saturating_sub(at) < TELL_EVERY_MS;
        if retention.over_told_at.is_none_or(|at| !is_told(at)) {
            retention.over_told_at = Some(now);
            tracing::warn!(
                by_key,
                budget,
                "compacted topics (`cleanup.policy`) exceed half of the disk budget, and are never evicted"
            );
        }
    }

    async fn trim_partition(&self, topic: &Topic, index: u32, range: Range<Offset>, why: Why) {
        let who = Principal::anonymous("retention");
        let reason = match why {
            Why::Age | Why::Size => GapReason::Expired,
            Why::Budget => GapReason::Evicted,
        };
        let trimmed = self
            .trim(&who, topic.name.as_str(), index, range.end, reason)
            .await;
        if let Err(e) = trimmed {
            tracing::warn!(topic = %topic.name, partition = index, error = %e, "cannot trim");
            return;
        }
        let records = range.end.since(range.start);
        self.0.metrics.removed(why).fetch_add(records, Ordering::Relaxed);
        let mut retention = self.0.retention.lock().await;
        let removed = retention.removed.entry(topic.name.clone()).or_default();
        *removed.counts.entry(why).or_default() += records;
        let now = self.0.clock.steady_ms();
        if removed
            .told_at
            .is_none_or(|at| now.saturating_sub(at) >= TELL_EVERY_MS)
        {
            removed.told_at = Some(now);
            let of = |why| removed.counts.get(&why).copied().unwrap_or(0);
            tracing::warn!(
                topic = %topic.name,
                by_age = of(Why::Age), by_size = of(Why::Size), over_disk_budget = of(Why::Budget),
                "retention removes records (counts since the start; logged once per hour)"
            );
        }
    }

    /// Returns the number of records that retention has removed from `topic` on this node since its start, by
    /// reason.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn removed_from(&self, topic: &str) -> BTreeMap<Why, u64> {
        let retention = self.0.retention.lock().await;
        retention
            .removed
            .get(topic)
            .map(|removed| removed.counts.clone())
            .unwrap_or_default()
    }

    async fn boundary(&self, id: PartitionId, of: Boundary) -> Option<Offset> {
        let (done, answer) = oneshot::channel::<Result<Chunk, weir_log::ReadError>>();
        self.0.log.boundary(id, of, move |r| drop(done.send(r))).ok()?;
        answer.await.ok()?.ok().map(|chunk| chunk.next)
    }
}
