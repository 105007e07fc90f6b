//! One consumer group under Kafka's classic protocol: a state machine without a clock of its own.
//!
//! ```text
//!            join                  all joined, or time is up             the leader's assignment is stored
//!   Empty ---------> Preparing ------------------------------> Completing -------------------------------> Stable
//!     ^                  ^                                         |  member joins anew, leaves or expires     |
//!     |                  +-----------------------------------------+-------------------------------------------+
//!     +---- nobody left
//! ```
//!
//! A call that has to wait leaves a oneshot behind: a join waits for the other members, a sync for the
//! leader. The step that ends the wait answers. Behaviour and errors are those of Kafka's `GroupCoordinator`.

pub(crate) mod join;
pub(crate) mod leave;
pub(crate) mod rebalance;
pub(crate) mod sync;

use crate::coordinator::types::{GroupError, Joined, MemberInfo, Synced};
use crate::state::rows::consumer_group::{GroupRow, MemberRow};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Returns the row of a group that has just become empty.
pub(crate) fn emptied(group: &mut Group, now_ms: i64) -> Option<GroupRow> {
    if group.phase != Phase::Empty || group.generation == 0 || !group.is_empty() {
        return None;
    }
    group.empty_since_ms = now_ms;
    Some(group.row())
}

/// Parses the topics from the metadata of Kafka's `consumer` protocol: a version, then an array of names.
pub(crate) fn subscription(metadata: &[u8]) -> Option<Vec<String>> {
    let (count, mut rest) = metadata.get(2..)?.split_first_chunk::<4>()?;
    let count = usize::try_from(i32::from_be_bytes(*count)).ok()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        let (len, after) = rest.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_be_bytes(*len));
        topics.push(String::from_utf8(after.get(..len)?.to_vec()).ok()?);
        rest = after.get(len..)?;
    }
    Some(topics)
}

pub(crate) type JoinReply = oneshot::Sender<Result<Joined, GroupError>>;

pub(crate) type SyncReply = oneshot::Sender<Result<Synced, GroupError>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Empty,
    /// Members are joining; absent members are dropped at `until`.
    Preparing {
        until: Instant,
        most: Instant,
        initial: bool,
    },
    /// Members wait for the leader's assignment.
    Completing {
        until: Instant,
    },
    Stable,
}

pub(crate) struct Member {
    pub(crate) row: MemberRow,
    pub(crate) expires: Instant,
    pub(crate) joining: Option<JoinReply>,
    pub(crate) syncing: Option<SyncReply>,
}

impl Member {
    pub(crate) fn session(&self) -> Duration {
        Duration::from_millis(u64::from(self.row.session_ms))
    }

    pub(crate) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.row.protocols.iter().find(|(name, _)| name == protocol);
        found.map_or_else(Bytes::new, |(_, metadata)| Bytes::copy_from_slice(metadata))
    }

    /// Returns true if the member waits for an answer, and is therefore alive.
    pub(crate) fn waits(&self) -> bool {
        self.joining.is_some() || self.syncing.is_some()
    }
}

/// A consumer group.
pub(crate) struct Group {
    pub(crate) phase: Phase,
    pub(crate) generation: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) leader: String,
    pub(crate) members: BTreeMap<String, Member>,
    /// Ids that were given out and not used yet, and until when they may be.
    pub(crate) pending: BTreeMap<String, Instant>,
    pub(crate) empty_since_ms: i64,
    /// Delay of the first rebalance of an empty group, during which more members can join.
    pub(crate) initial_delay: Duration,
}

impl Group {
    pub(crate) fn new(initial_delay: Duration) -> Self {
        Self {
            phase: Phase::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: String::new(),
            members: BTreeMap::new(),
            pending: BTreeMap::new(),
            empty_since_ms: 0,
            initial_delay,
        }
    }

    /// Restores a group from its row. Each member has a session's time to return.
    pub(crate) fn restore(row: &GroupRow, initial_delay: Duration, now: Instant) -> Self {
        let member = |row: &MemberRow| {
            let expires = now + Duration::from_millis(u64::from(row.session_ms));
            let member = Member {
                row: row.clone(),
                expires,
                joining: None,
                syncing: None,
            };
            (row.id.clone(), member)
        };
        let members: BTreeMap<_, _> = row.members.iter().map(member).collect();
        Self {
            phase: if members.is_empty() {
                Phase::Empty
            } else {
                Phase::Stable
            },
            generation: row.generation,
            protocol_type: row.protocol_type.clone(),
            protocol: row.protocol.clone(),
            leader: row.leader.clone(),
            members,
            pending: BTreeMap::new(),
            empty_since_ms: row.empty_since_ms,
            initial_delay,
        }
    }

    pub(crate) fn row(&self) -> GroupRow {
        GroupRow {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: self.members.values().map(|m| m.row.clone()).collect(),
            empty_since_ms: self.empty_since_ms,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty()
    }

    /// Returns the bytes of metadata and assignments.
    pub(crate) fn bytes(&self) -> usize {
        let of = |m: &Member| {
            let protocols = m
                .row
                .protocols
                .iter()
                .map(|(name, metadata)| name.len() + metadata.len());
            protocols.sum::<usize>() + m.row.assignment.len()
        };
        self.members.values().map(of).sum()
    }

    pub(crate) fn members(&self) -> Vec<MemberInfo> {
        let info = |m: &Member| MemberInfo {
            id: m.row.id.clone(),
            instance: m.row.instance.clone(),
            client: m.row.client.clone(),
            host: m.row.host.clone(),
            metadata: m.metadata(&self.protocol),
            assignment: Bytes::copy_from_slice(&m.row.assignment),
        };
        self.members.values().map(info).collect()
    }

    /// Records a heartbeat.
    pub(crate) fn heartbeat(
        &mut self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
        now: Instant,
    ) -> Result<(), GroupError> {
        self.known(member, instance)?;
        self.at(generation)?;
        self.heard(member, now);
        match self.phase {
            Phase::Empty => Err(GroupError::UnknownMember),
            Phase::Preparing { .. } => Err(GroupError::RebalanceInProgress),
            Phase::Completing { .. } | Phase::Stable => Ok(()),
        }
    }

    /// Checks that `member` may commit offsets, and counts as a heartbeat.
    pub(crate) fn may_commit(
        &mut self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
        now: Instant,
    ) -> Result<(), GroupError> {
        // A client with manual assignment only stores its offsets here.
        if generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        self.known(member, instance)?;
        self.at(generation)?;
        self.heard(member, now);
        match self.phase {
            Phase::Completing { .. } => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    pub(crate) fn heard(&mut self, member: &str, now: Instant) {
        if let Some(member) = self.members.get_mut(member) {
            member.expires = now + member.session();
        }
    }

    pub(crate) fn known(&self, member: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            let holder = self
                .members
                .values()
                .find(|m| m.row.instance.as_deref() == Some(instance));
            return match holder {
                None => Err(GroupError::UnknownMember),
                Some(holder) if holder.row.id != member => Err(GroupError::FencedInstance),
                Some(_) => Ok(()),
            };
        }
        self.members
            .get(member)
            .map(drop)
            .ok_or(GroupError::UnknownMember)
    }

    pub(crate) fn at(&self, generation: i32) -> Result<(), GroupError> {
        if generation == self.generation {
            Ok(())
        } else {
            Err(GroupError::IllegalGeneration)
        }
    }

    /// Returns the topics that members subscribe to, if they use Kafka's `consumer` protocol.
    pub(crate) fn subscribed(&self) -> BTreeSet<String> {
        let metadata = self.members.values().map(|m| m.metadata(&self.protocol));
        metadata
            .filter_map(|bytes| subscription(&bytes))
            .flatten()
            .collect()
    }
}
