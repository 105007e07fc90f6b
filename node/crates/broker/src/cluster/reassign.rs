//! Reassignment of partitions to other replica groups (KIP-455). The new group copies the records, the old
//! partition is sealed, and an entry of the site's group switches the location.
//!
//! A partition has two ids: the original id, under which consumer groups know the partition for ever, and the
//! current id, which includes the replica group. Copies keep their offsets, so consumers notice nothing.
//! Windows of producers move as well, so retries are not stored twice.

use crate::access::auth::{Operation, Principal, Resource, authorize};
use crate::core::{Broker, Inner};
use crate::error::AdminError;
use crate::placement::layout::{changes, layout};
use crate::rpc::message::{Copied, PeerRequest, PeerResponse};
use crate::state::rows::Row;
use crate::state::rows::counter::{Counter, CounterName};
use crate::state::rows::location::PartitionLocation;
use crate::state::rows::producer::Window;
use crate::state::rows::reassignment::Reassignment;
use crate::state::rows::seal::Seal;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use weir_log::{AppendError, Op, Piece};
use weir_replica::ProposeError;
use weir_types::{Batch, ErrorKind, GapReason, GroupId, Offset, PartitionId};

/// Bytes that are copied in an entry, give or take a batch.
const COPY_BYTES: usize = 1 << 20;

/// Number of missing records at which the old partition is sealed: the rest is copied within a moment.
const SEAL_WITHIN: u64 = 1_000;

/// Delay before a failed step is retried.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(200);

impl Broker {
    /// Reassigns the partitions of a topic to groups of `replicas` nodes, or to the group of all nodes.
    /// Returns once the plan is committed; the copying runs in the background, while clients produce and
    /// fetch.
    ///
    /// # Errors
    /// When the topic does not exist or is being reassigned, or there are too few nodes.
    ///
    /// # Cancel safety
    /// If the future is dropped, the plan may or may not be committed.
    pub async fn move_topic(
        &self,
        who: &Principal,
        name: &str,
        replicas: Option<u32>,
    ) -> Result<(), AdminError> {
        if !authorize(who, Operation::Alter, Resource::Topic(name)) {
            return Err(AdminError::Denied);
        }
        let holder = self.hook().and_then(|hook| hook.holder_of(name));
        if let (Some(pipeline), Some(_)) = (holder, replicas) {
            return Err(AdminError::Refused(format!(
                "pipeline `{pipeline}` is in-line and stateful: its state is on all nodes, so topic `{name}` must be, too"
            )));
        }
        let (members, wanted) = (self.group().members(), name.to_owned());
        self.change(move |tables, _| {
            let topic = tables
                .topics
                .get(wanted.as_str())
                .ok_or(AdminError::NoTopic(wanted))?;
            if tables.moves.values().any(|m| m.topic == topic.name) {
                return Err(AdminError::Refused(format!(
                    "topic `{}` is being reassigned already",
                    topic.name
                )));
            }
            let mut layout = layout(tables, &members);
            let (before, nodes) = (layout.groups.clone(), layout.nodes.len());
            let mut next = BTreeMap::new();
            let mut ops = Vec::new();
            for (index, from) in (0..).zip(&topic.partitions) {
                let there = match replicas {
                    None => from.group() == GroupId::SITE,
                    Some(n) => layout
                        .groups
                        .get(&from.group())
                        .is_some_and(|g| g.size == n as usize),
                };
                if there {
                    continue;
                }
                let group = match replicas {
                    None => Some(GroupId::SITE),
                    Some(n) => layout.place(n as usize),
                };
                let group = group.ok_or(AdminError::Replicas {
                    asked: replicas.map_or(nodes, |n| n as usize),
                    nodes,
                })?;
                let number = next.entry(group).or_insert_with(|| tables.next_partition(group));
                let to = u32::try_from(*number)
                    .ok()
                    .and_then(|n| PartitionId::new(group, n));
                let to = to.ok_or(AdminError::Limit {
                    what: "partition number",
                    limit: u64::from(PartitionId::NUMBERS),
                })?;
                *number += 1;
                let (topic, from) = (topic.name.clone(), *from);
                ops.push(Reassignment { topic, index, from }.put(&to));
            }
            let counter =
                |(group, next): (GroupId, u64)| Counter(next).put(&CounterName::NextPartition(group));
            ops.extend(next.into_iter().map(counter));
            ops.extend(changes(&before, layout, &members));
            Ok(ops)
        })
        .await
    }

    /// Starts the reassignments to groups that this node leads.
    pub(crate) fn begin_reassignments(&self) {
        let moves: Vec<PartitionId> = self.0.applied.tables().moves.keys().copied().collect();
        for to in moves.into_iter().filter(|to| self.serves(*to)) {
            if self.0.moving.lock().insert(to) {
                tokio::spawn(run_reassignment(Arc::downgrade(&self.0), to));
            }
        }
    }

    fn end_reassignment(&self, to: PartitionId) {
        self.0.moving.lock().remove(&to);
    }

    /// Performs a step of a reassignment. Returns true if this node has more to do.
    async fn reassign_step(&self, to: PartitionId) -> Result<bool, AdminError> {
        let Some(row) = self.0.applied.tables().moves.get(&to).cloned() else {
            return Ok(false);
        };
        if !self.serves(to) {
            return Ok(false);
        }
        let from = row.from;
        let has = self.0.log.marks(to).map_or(Offset::ZERO, |m| m.committed_end());
        let ask = PeerRequest::Copy {
            partition: from,
            at: has.get(),
        };
        let PeerResponse::Copied(copied) = self.ask_group(from.group(), ask).await? else {
            return Err(AdminError::Closed);
        };
        if copied.next > has.get() || copied.log_start > has.get() {
            self.take(to, has, &copied).await?;
            return Ok(true);
        }
        let lacks = copied.end.saturating_sub(has.get());
        if !copied.sealed {
            if lacks <= SEAL_WITHIN {
                self.ask_group(from.group(), PeerRequest::Seal { partition: from, to })
                    .await?;
            }
            return Ok(true);
        }
        self.take_producers(to, Offset::new(copied.end), from).await?;
        let PeerResponse::Term(term) = self
            .ask_group(from.group(), PeerRequest::Term { group: from.group() })
            .await?
        else {
            return Err(AdminError::Closed);
        };
        self.ask_group(GroupId::SITE, PeerRequest::Moved { to, term })
            .await?;
        tracing::info!(topic = %row.topic, partition = row.index, group = to.group().0, "partition reassigned");
        Ok(false)
    }

    /// Appends a copied chunk, if `to` still ends at `has`.
    pub(crate) async fn take(&self, to: PartitionId, has: Offset, copied: &Copied) -> Result<(), AdminError> {
        let parse = |bytes: &Vec<u8>| Batch::parse(Bytes::copy_from_slice(bytes));
        let batches: Result<Vec<Batch>, _> = copied.batches.iter().map(parse).collect();
        let batches =
            batches.map_err(|e| AdminError::Refused(format!("the copied chunk is damaged: {e}")))?;
        // Changes may use some of the disk's reserve; records may not, wherever they come from.
        let bytes = batches.iter().map(|b| b.bytes().len() as u64).sum();
        self.0.log.room_for(bytes, false).map_err(ProposeError::from)?;
        let (log_start, next) = (Offset::new(copied.log_start), Offset::new(copied.next));
        let trim = move |to: PartitionId, at: Offset| Op::Trim {
            partition: to,
            to: at,
            reason: GapReason::Expired,
        };
        self.change_in(to.group(), move |_, log| {
            let marks = log.marks(to);
            let (start, mut end) = marks.map_or((Offset::ZERO, Offset::ZERO), |m| {
                (m.log_start(), m.committed_end())
            });
            if end != has {
                return Ok(Vec::new());
            }
            let mut ops = Vec::new();
            // The first batch may begin before the first wanted record.
            let base = batches.first().map_or(next, |b| b.base_offset());
            if base > end && start == end {
                ops.push(trim(to, base));
                end = base;
            }
            for batch in batches.into_iter().filter(|b| b.base_offset() >= end) {
                ops.push(Op::Append { partition: to, batch });
            }
            if log_start > base.max(start) {
                ops.push(trim(to, log_start));
            }
            Ok(ops)
        })
        .await
    }

    /// Copies the windows of producers, if `to` ends at `end`, where `from` was sealed. Records that were
    /// produced later have newer windows; a leader that lags behind in the site's group may not know of them.
    async fn take_producers(
        &self,
        to: PartitionId,
        end: Offset,
        from: PartitionId,
    ) -> Result<(), AdminError> {
        let ask = PeerRequest::Producers { partition: from };
        let PeerResponse::Windows(windows) = self.ask_group(from.group(), ask).await? else {
            return Err(AdminError::Closed);
        };
        self.change_in(to.group(), move |tables, log| {
            let has = log.marks(to).map_or(Offset::ZERO, |m| m.committed_end());
            if has != end || !tables.moves.contains_key(&to) {
                return Ok(Vec::new());
            }
            let row = |(id, value): (i64, Vec<u8>)| Op::Put {
                key: Window::key(&(to, id)),
                value: value.into(),
            };
            Ok(windows.into_iter().map(row).collect())
        })
        .await
    }

    /// Reads a chunk of `partition` from `at` on. For the leader of the partition's group.
    pub(crate) async fn copy(&self, partition: PartitionId, at: Offset) -> Result<Copied, AdminError> {
        self.serving_replica(partition)?;
        // Read first: a sealed partition does not grow afterwards.
        let sealed = self.0.applied.tables().sealed.contains(&partition);
        let (log_start, end) = match self.0.log.marks(partition) {
            Some(marks) => (marks.log_start(), marks.committed_end()),
            None => (Offset::ZERO, Offset::ZERO),
        };
        let mut copied = Copied {
            log_start: log_start.get(),
            next: at.max(log_start).get(),
            end: end.get(),
            sealed,
            batches: Vec::new(),
        };
        if at.max(log_start) >= end {
            return Ok(copied);
        }
        let from = at.max(log_start);
        let marks = self.0.log.marks(partition).unwrap_or_default();
        let read = self.read_repaired(partition, from..end, COPY_BYTES, &marks);
        let (chunk, lost) = read.await.map_err(|e| AdminError::Refused(e.to_string()))?;
        // A range that nobody can read is not skipped in silence.
        if let Some(gap) = lost {
            return Err(AdminError::Refused(format!(
                "offsets [{}, {}) cannot be read here, and no other node has them: trim the partition to move it",
                gap.start, gap.end
            )));
        }
        copied.next = chunk.next.get();
        for piece in chunk.pieces {
            if let Piece::Batch(batch) = piece {
                copied.batches.push(batch.bytes().to_vec());
            }
        }
        Ok(copied)
    }

    /// Seals `partition`: its records continue in `to`.
    pub(crate) async fn seal(&self, partition: PartitionId, to: PartitionId) -> Result<(), AdminError> {
        self.change_in(partition.group(), move |tables, _| {
            let moves = tables.moves.get(&to).is_some_and(|m| m.from == partition);
            let seals = moves && !tables.sealed.contains(&partition);
            Ok(seals.then(|| Seal(to).put(&partition)).into_iter().collect())
        })
        .await
    }

    /// Windows of producers of `partition`, whose group this node leads.
    pub(crate) fn windows(&self, partition: PartitionId) -> Result<Vec<(i64, Vec<u8>)>, AdminError> {
        self.serving_replica(partition)?;
        let tables = self.0.applied.tables();
        let known = tables
            .producers
            .range((partition, i64::MIN)..=(partition, i64::MAX));
        let row = |((_, id), window): (&(PartitionId, i64), &Window)| (*id, window.encode().to_vec());
        Ok(known.map(row).collect())
    }

    /// Commits the new location of a partition: all records are in `to`, and the old group is in `term`.
    pub(crate) async fn note_moved(&self, to: PartitionId, term: u64) -> Result<(), AdminError> {
        self.change(move |tables, _| {
            let Some(row) = tables.moves.get(&to) else {
                return Ok(Vec::new());
            };
            let mut ops = vec![Reassignment::remove(&to)];
            let topic = tables.topics.get(&row.topic);
            let is_there = topic.and_then(|t| t.partition(row.index)) == Some(row.from);
            if !is_there {
                // The topic is gone: so is this.
                return Ok(ops);
            }
            let old = i64::from(tables.epoch_base(row.from)) + i64::try_from(term).unwrap_or(i64::MAX);
            let located = PartitionLocation {
                at: to,
                epoch_base: i32::try_from(old.saturating_add(1)).unwrap_or(i32::MAX),
            };
            ops.push(located.put(&tables.original_id(row.from)));
            if row.from.group() == GroupId::SITE {
                ops.extend(tables.drop_partition(row.from));
            }
            Ok(ops)
        })
        .await
    }
}

/// Performs the steps of a reassignment while this node has more to do. Failed steps are retried.
async fn run_reassignment(inner: Weak<Inner>, to: PartitionId) {
    let mut last_warning = String::new();
    loop {
        let Some(broker) = inner.upgrade().map(Broker) else {
            return;
        };
        let error = match broker.reassign_step(to).await {
            Ok(true) => continue,
            Ok(false) => return broker.end_reassignment(to),
            Err(error) => error,
        };
        let is_full = matches!(
            error,
            AdminError::Propose(ProposeError::Log(AppendError::DiskFull { .. }))
        );
        // The amount of free space changes all the time: report once.
        let why = if is_full {
            "full".to_owned()
        } else {
            error.to_string()
        };
        if (is_full || error.kind() != ErrorKind::Retry) && why != last_warning {
            tracing::warn!(%to, %error, "cannot reassign a partition");
            last_warning = why;
        }
        drop(broker);
        tokio::time::sleep(RETRY_AFTER).await;
    }
}
