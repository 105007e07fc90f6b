//! Committed offsets of consumer groups.

use crate::access::auth::{Operation, Principal};
use crate::consumers::calls::allow;
use crate::coordinator::group::Group;
use crate::coordinator::types::{Caller, Commit, GroupError, legal_name};
use crate::core::{Broker, partition_of};
use crate::error::AdminError;
use crate::state::rows::Row;
use crate::state::rows::committed_offset::CommittedOffset;
use crate::state::rows::consumer_group::GroupRow;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use weir_log::Op;
use weir_types::limits::{GROUP_OFFSETS_MAX, OFFSETS_METADATA_BYTES_MAX};

impl Broker {
    /// Checks that `caller` may commit offsets now.
    ///
    /// # Errors
    /// When the member is not part of the generation, or the group is rebalancing: see [`GroupError`].
    pub fn may_commit(&self, who: &Principal, caller: Caller<'_>) -> Result<(), GroupError> {
        allow(who, Operation::Read, caller.group)?;
        self.coordinating()?;
        match self.0.coordinator.lock().get_mut(caller.group) {
            Some(group) => {
                group.may_commit(caller.member, caller.instance, caller.generation, Instant::now())
            }
            None if caller.generation < 0 => Ok(()),
            None => Err(GroupError::IllegalGeneration),
        }
    }

    /// Commits offsets of a group: all of `commits`, or none.
    ///
    /// # Errors
    /// When the group's name or a partition is invalid, a limit is reached, or the commit fails.
    ///
    /// # Cancel safety
    /// If the future is dropped, the offsets may or may not be committed.
    pub async fn commit_offsets(
        &self,
        who: &Principal,
        group: &str,
        commits: &[Commit],
    ) -> Result<(), AdminError> {
        match allow(who, Operation::Read, group) {
            Ok(()) => {}
            Err(GroupError::InvalidName) => {
                return Err(AdminError::GroupName(group.chars().take(80).collect()));
            }
            Err(_) => return Err(AdminError::Denied),
        }
        let committed_ms = self.now_ms();
        let mut ops = Vec::with_capacity(commits.len());
        {
            let tables = self.0.applied.tables();
            let known = |c: &&Commit| {
                let id = tables.topics.get(c.topic.as_str())?.partition(c.partition)?;
                tables
                    .group_offsets
                    .get(&(group.to_owned(), tables.original_id(id)))
            };
            let new = commits.iter().filter(|c| known(c).is_none()).count();
            if new > 0 && tables.group_offsets.len() + new > GROUP_OFFSETS_MAX {
                return Err(AdminError::Limit {
                    what: "committed offsets",
                    limit: GROUP_OFFSETS_MAX as u64,
                });
            }
            let said: usize = commits.iter().map(|c| c.metadata.len()).sum();
            let before = commits
                .iter()
                .filter_map(|c| known(&c))
                .map(|c| c.metadata.len())
                .sum();
            if said > before && tables.offsets_metadata_bytes + said - before > OFFSETS_METADATA_BYTES_MAX {
                return Err(AdminError::Limit {
                    what: "bytes of metadata of committed offsets",
                    limit: OFFSETS_METADATA_BYTES_MAX as u64,
                });
            }
            for commit in commits {
                let id = partition_of(&tables, &commit.topic, commit.partition)?;
                let row = CommittedOffset {
                    offset: commit.offset as u64,
                    leader_epoch: commit.leader_epoch,
                    metadata: commit.metadata.clone(),
                    committed_ms,
                };
                ops.push(row.put(&(group.to_owned(), tables.original_id(id))));
            }
        }
        if ops.is_empty() {
            return Ok(());
        }
        self.put(ops).await
    }

    /// Returns the committed offset of a group for a partition.
    pub fn committed_offset(&self, group: &str, topic: &str, partition: u32) -> Option<CommittedOffset> {
        let tables = self.0.applied.tables();
        let id = tables.topics.get(topic)?.partition(partition)?;
        let id = tables.original_id(id);
        tables.group_offsets.get(&(group.to_owned(), id)).cloned()
    }

    /// Returns all committed offsets of a group, with topic and partition.
    pub fn committed_offsets(&self, group: &str) -> Vec<(String, u32, CommittedOffset)> {
        let tables = self.0.applied.tables();
        let from = (group.to_owned(), weir_types::PartitionId(0));
        let of_group = tables
            .group_offsets
            .range(from..)
            .take_while(|((name, _), _)| name == group);
        let place = |id: &weir_types::PartitionId| {
            let id = tables.current(*id);
            let topic = tables.topics.get(tables.partition_owner.get(&id)?)?;
            let index = topic.partitions.iter().position(|p| *p == id)?;
            Some((topic.name.to_string(), index as u32))
        };
        of_group
            .filter_map(|((_, id), offset)| place(id).map(|(topic, index)| (topic, index, offset.clone())))
            .collect()
    }

    /// Deletes the committed offset of a group for a partition.
    ///
    /// # Errors
    /// When members of the group read the topic, or the group or the partition does not exist.
    ///
    /// # Cancel safety
    /// If the future is dropped, the deletion may or may not be committed.
    pub async fn delete_offset(
        &self,
        who: &Principal,
        group: &str,
        topic: &str,
        partition: u32,
    ) -> Result<(), GroupError> {
        allow(who, Operation::Delete, group)?;
        let subscribed = match self.0.coordinator.lock().get(group) {
            Some(found) => found.subscribed().contains(topic),
            None => false,
        };
        if subscribed {
            return Err(GroupError::Subscribed);
        }
        let id = self
            .topic(topic)
            .and_then(|t| t.partition(partition))
            .ok_or(GroupError::NotFound)?;
        let id = self.0.applied.tables().original_id(id);
        let op = CommittedOffset::remove(&(group.to_owned(), id));
        self.put(vec![op]).await.map_err(|_| GroupError::Unavailable)
    }

    /// Expires offsets of empty groups that are older than `retention_ms`, and removes groups without members
    /// and offsets. Call about once per minute.
    ///
    /// # Cancel safety
    /// If the future is dropped, the expiry may or may not be committed; the next call continues.
    pub fn expire_offsets(&self, retention_ms: i64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let before = self.now_ms().saturating_sub(retention_ms);
            let mut ops: Vec<Op> = {
                let groups = self.0.coordinator.lock();
                let tables = self.0.applied.tables();
                let over = |name: &String, committed_ms: i64| match groups.get(name) {
                    Some(group) => group.is_empty() && committed_ms.max(group.empty_since_ms) < before,
                    None => committed_ms < before,
                };
                let old = tables
                    .group_offsets
                    .iter()
                    .filter(|((name, _), o)| over(name, o.committed_ms));
                old.map(|(key, _)| CommittedOffset::remove(key)).collect()
            };
            if !ops.is_empty() {
                tracing::info!(offsets = ops.len(), "committed offsets expired");
            }
            let bare: Vec<String> = {
                let groups = self.0.coordinator.lock();
                let bare = groups
                    .iter()
                    .filter(|(name, group)| group.is_empty() && !self.has_offsets(name));
                bare.map(|(name, _)| name.clone()).collect()
            };
            for name in bare {
                let mut groups = self.0.coordinator.lock();
                if groups.get(&name).is_some_and(Group::is_empty) {
                    groups.remove(&name);
                    ops.push(GroupRow::remove(&name));
                }
            }
            if !ops.is_empty() {
                let _ = self.put(ops).await;
            }
        })
    }

    /// Returns true if `group` is a valid group name.
    pub fn is_group_name(group: &str) -> bool {
        legal_name(group)
    }
}
