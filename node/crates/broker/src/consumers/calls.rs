//! Calls of group members and administrators.

use crate::access::auth::{Operation, Principal, Resource, authorize};
use crate::coordinator::group::join::JoinStep;
use crate::coordinator::group::sync::SyncStep;
use crate::coordinator::group::{Group, Phase, emptied};
use crate::coordinator::registry::Coordinator;
use crate::coordinator::types::{
    Caller, GroupError, GroupInfo, Join, Joined, SESSION_MAX, SESSION_MIN, Synced, legal_name,
};
use crate::core::Broker;
use crate::error::AdminError;
use crate::state::rows::Row;
use crate::state::rows::committed_offset::CommittedOffset;
use crate::state::rows::consumer_group::GroupRow;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_types::limits::{GROUP_ROW_BYTES_MAX, GROUPS_BYTES_MAX, GROUPS_MAX, MEMBER_BYTES_MAX};

impl Broker {
    /// Joins a group. Resolves when the rebalance is over.
    ///
    /// # Errors
    /// When the group cannot admit the member: see [`GroupError`].
    ///
    /// # Cancel safety
    /// If the future is dropped, the member stays in the group until its session expires.
    pub async fn join_group(&self, who: &Principal, group: &str, join: Join) -> Result<Joined, GroupError> {
        allow(who, Operation::Read, group)?;
        self.coordinating()?;
        if !(SESSION_MIN..=SESSION_MAX).contains(&join.session) {
            return Err(GroupError::InvalidSession);
        }
        let coordinator = &self.0.coordinator;
        let bytes: usize = join
            .protocols
            .iter()
            .map(|(name, metadata)| name.len() + metadata.len())
            .sum();
        if bytes > MEMBER_BYTES_MAX || coordinator.bytes.load(Ordering::Relaxed) > GROUPS_BYTES_MAX {
            return Err(GroupError::Full);
        }
        coordinator.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fresh = Coordinator::fresh_id(&join.client)?;
        let (reply, answer) = oneshot::channel();
        let is_new;
        let step = {
            let mut groups = coordinator.lock();
            is_new = !groups.contains_key(group);
            if is_new {
                // A new group cannot have a member with this id.
                if !join.member.is_empty() {
                    return Err(GroupError::UnknownMember);
                }
                if groups.len() >= GROUPS_MAX {
                    return Err(GroupError::Full);
                }
                groups.insert(group.to_owned(), Group::new(coordinator.initial_delay));
            }
            groups
                .get_mut(group)
                .map(|g| g.join(join, || fresh, reply, Instant::now()))
        };
        if is_new {
            // A refused member does not create a group.
            let mut groups = coordinator.lock();
            if groups.get(group).is_some_and(Group::is_empty) {
                groups.remove(group);
            }
        }
        if let Some(JoinStep::Store(after)) = step {
            let (row, reply, joined) = *after;
            // A returning static member has a new id, which a restart must know.
            let stored = self.store_group(group, &row).await;
            let _ = reply.send(stored.map(|()| joined));
        }
        answer.await.unwrap_or(Err(GroupError::Unavailable))
    }

    /// Fetches the assignment of a member; the leader provides the assignments of all. Resolves when the
    /// assignment is stored.
    ///
    /// # Errors
    /// When the member is not part of the generation: see [`GroupError`].
    ///
    /// # Cancel safety
    /// If the future is dropped, a provided assignment may or may not become the group's.
    pub async fn sync_group(
        &self,
        who: &Principal,
        caller: Caller<'_>,
        protocol: (Option<&str>, Option<&str>),
        assignments: Vec<(String, Bytes)>,
    ) -> Result<Synced, GroupError> {
        allow(who, Operation::Read, caller.group)?;
        self.coordinating()?;
        let (reply, answer) = oneshot::channel();
        let step = {
            let mut groups = self.0.coordinator.lock();
            let group = groups.get_mut(caller.group).ok_or(GroupError::UnknownMember)?;
            group.sync(caller, protocol, assignments, reply, Instant::now())
        };
        if let SyncStep::Store(generation, row) = step {
            let (broker, name) = (self.clone(), caller.group.to_owned());
            // A task of its own: the others must not wait for ever if the leader's connection breaks.
            tokio::spawn(async move {
                let stored = broker.store_group(&name, &row).await;
                if let Some(group) = broker.0.coordinator.lock().get_mut(&name) {
                    group.assigned(generation, row, stored, Instant::now());
                }
            });
        }
        answer.await.unwrap_or(Err(GroupError::Unavailable))
    }

    /// Records a heartbeat of a member.
    ///
    /// # Errors
    /// When the member is not part of the generation, or must rejoin: see [`GroupError`].
    pub fn heartbeat(&self, who: &Principal, caller: Caller<'_>) -> Result<(), GroupError> {
        allow(who, Operation::Read, caller.group)?;
        self.coordinating()?;
        let mut groups = self.0.coordinator.lock();
        let group = groups.get_mut(caller.group).ok_or(GroupError::UnknownMember)?;
        group.heartbeat(caller.member, caller.instance, caller.generation, Instant::now())
    }

    /// Removes members, each by its id or its instance. Returns a result per member.
    ///
    /// # Errors
    /// When the group does not exist or this node does not coordinate groups.
    ///
    /// # Cancel safety
    /// If the future is dropped, the members are removed, but the empty group may not be stored.
    pub async fn leave_group(
        &self,
        who: &Principal,
        group: &str,
        members: &[(String, Option<String>)],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        allow(who, Operation::Read, group)?;
        self.coordinating()?;
        let (results, emptied) = {
            let mut groups = self.0.coordinator.lock();
            let found = groups.get_mut(group).ok_or(GroupError::UnknownMember)?;
            let (now, had) = (Instant::now(), !found.is_empty());
            let leave = |(id, instance): &(String, Option<String>)| found.leave(id, instance.as_deref(), now);
            let results: Vec<_> = members.iter().map(leave).collect();
            let row = emptied(found, self.now_ms());
            (results, row.filter(|_| had))
        };
        if let Some(row) = emptied {
            let _ = self.store_group(group, &row).await;
        }
        Ok(results)
    }

    /// Expires sessions and rebalances. Returns true while any group has members. Call a few times per second
    /// while that holds.
    ///
    /// # Cancel safety
    /// If the future is dropped, groups that became empty may not be stored.
    pub fn tick_groups(&self) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let now = Instant::now();
            let now_ms = self.now_ms();
            let (mut rows, mut any, mut bytes) = (Vec::new(), false, 0);
            {
                let mut groups = self.0.coordinator.lock();
                for (name, group) in groups.iter_mut() {
                    let had = !group.is_empty();
                    group.tick(now);
                    bytes += group.bytes();
                    any |= !group.is_empty();
                    if had && let Some(row) = emptied(group, now_ms) {
                        rows.push((name.clone(), row));
                    }
                }
            }
            self.0.coordinator.bytes.store(bytes, Ordering::Relaxed);
            for (name, row) in rows {
                let _ = self.store_group(&name, &row).await;
            }
            any
        })
    }

    /// Returns true if this node knows any group.
    pub fn has_groups(&self) -> bool {
        !self.0.coordinator.lock().is_empty() || !self.0.applied.tables().group_offsets.is_empty()
    }

    /// Returns all groups that `who` may describe: groups with members, and groups with committed offsets.
    pub fn list_groups(&self, who: &Principal) -> Vec<GroupInfo> {
        let mut names: std::collections::BTreeSet<String> =
            self.0.coordinator.lock().keys().cloned().collect();
        names.extend(
            self.0
                .applied
                .tables()
                .group_offsets
                .keys()
                .map(|(name, _)| name.clone()),
        );
        let light = |name: &String| GroupInfo {
            members: Vec::new(),
            ..self.describe(name, false)
        };
        let seen = |name: &&String| authorize(who, Operation::Describe, Resource::Group(name));
        names.iter().filter(seen).map(light).collect()
    }

    /// Returns a group; the state is `Dead` for unknown names.
    ///
    /// # Errors
    /// When `who` has no permission, or the name is invalid.
    pub fn describe_group(&self, who: &Principal, name: &str) -> Result<GroupInfo, GroupError> {
        allow(who, Operation::Describe, name)?;
        self.coordinating()?;
        Ok(self.describe(name, true))
    }

    fn describe(&self, name: &str, members: bool) -> GroupInfo {
        let mut info = GroupInfo {
            name: name.to_owned(),
            state: "Dead",
            protocol_type: String::new(),
            protocol: String::new(),
            members: Vec::new(),
        };
        if let Some(group) = self.0.coordinator.lock().get(name) {
            info.state = match group.phase {
                Phase::Empty => "Empty",
                Phase::Preparing { .. } => "PreparingRebalance",
                Phase::Completing { .. } => "CompletingRebalance",
                Phase::Stable => "Stable",
            };
            info.protocol_type.clone_from(&group.protocol_type);
            info.protocol.clone_from(&group.protocol);
            if members {
                info.members = group.members();
            }
        } else if self.has_offsets(name) {
            info.state = "Empty";
        }
        info
    }

    /// Deletes a group without members, and its offsets.
    ///
    /// # Errors
    /// When the group has members or does not exist, or the deletion is not committed.
    ///
    /// # Cancel safety
    /// If the future is dropped, the deletion may or may not be committed.
    pub async fn delete_group(&self, who: &Principal, name: &str) -> Result<(), GroupError> {
        allow(who, Operation::Delete, name)?;
        self.coordinating()?;
        let known = match self.0.coordinator.lock().get(name) {
            Some(group) if !group.is_empty() => return Err(GroupError::NotEmpty),
            found => found.is_some(),
        };
        if !known && !self.has_offsets(name) {
            return Err(GroupError::NotFound);
        }
        let mut ops = vec![GroupRow::remove(name)];
        {
            let tables = self.0.applied.tables();
            let keys = tables.group_offsets.keys().filter(|(group, _)| group == name);
            ops.extend(keys.map(CommittedOffset::remove));
        }
        self.put(ops).await.map_err(|_| GroupError::Unavailable)?;
        let mut groups = self.0.coordinator.lock();
        if groups.get(name).is_some_and(Group::is_empty) {
            groups.remove(name);
        }
        Ok(())
    }

    /// Groups live where their partitions are led.
    pub(crate) fn coordinating(&self) -> Result<(), GroupError> {
        if self.is_serving() {
            Ok(())
        } else {
            Err(GroupError::NotCoordinator)
        }
    }

    pub(crate) fn has_offsets(&self, name: &str) -> bool {
        let tables = self.0.applied.tables();
        let from = (name.to_owned(), weir_types::PartitionId(0));
        tables
            .group_offsets
            .range(from..)
            .next()
            .is_some_and(|((group, _), _)| group == name)
    }

    async fn store_group(&self, name: &str, row: &GroupRow) -> Result<(), GroupError> {
        let value = row.encode();
        if value.len() > GROUP_ROW_BYTES_MAX {
            tracing::warn!(
                group = name,
                bytes = value.len(),
                "the assignment is too large to store"
            );
            return Err(GroupError::Full);
        }
        let stored = self.put(vec![row.put(name)]).await;
        stored.map_err(|error| {
            tracing::warn!(group = name, %error, "group could not be stored");
            match error {
                AdminError::Denied => GroupError::Denied,
                _ => GroupError::Unavailable,
            }
        })
    }
}

pub(crate) fn allow(who: &Principal, operation: Operation, group: &str) -> Result<(), GroupError> {
    if !legal_name(group) {
        return Err(GroupError::InvalidName);
    }
    if authorize(who, operation, Resource::Group(group)) {
        Ok(())
    } else {
        Err(GroupError::Denied)
    }
}
