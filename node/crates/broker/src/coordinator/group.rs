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
//! Every call that has to wait (a join for the others, a sync for the leader) leaves a oneshot behind, which the step
//! that ends the wait answers. Behaviour and error of each case are those of Kafka's `GroupCoordinator`.

use crate::coordinator::{Caller, GroupError, Join, Joined, JoinedMember, MemberInfo, Synced, subscription};
use crate::state::rows::consumer_group::{GroupRow, MemberRow};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use weir_types::limits::GROUP_MEMBERS_MAX;

pub(crate) type JoinReply = oneshot::Sender<Result<Joined, GroupError>>;

pub(crate) type SyncReply = oneshot::Sender<Result<Synced, GroupError>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Empty,
    /// Members are joining; those that have not by then are left behind.
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

    /// A member that waits for an answer is alive by that.
    fn waits(&self) -> bool {
        self.joining.is_some() || self.syncing.is_some()
    }
}

/// A group and its members.
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
    /// How long the first rebalance of an empty group waits for more members.
    pub(crate) initial_delay: Duration,
}

/// What a join asks of the caller.
pub(crate) enum JoinStep {
    /// It was answered, or waits.
    Done,
    /// The row has to be stored before this is answered.
    Store(Box<(GroupRow, JoinReply, Joined)>),
}

/// What a sync asks of the caller.
pub(crate) enum SyncStep {
    /// It was answered, or waits.
    Done,
    /// The leader's assignment has to be stored; then [`Group::assigned`].
    Store(i32, GroupRow),
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

    /// The group as it was stored. Its members have a session's time to be heard of.
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

    /// Metadata and assignments in memory.
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

    /// Takes a member in, or in again; answers at once or when the rebalance is over.
    pub(crate) fn join(
        &mut self,
        join: Join,
        fresh_id: impl FnOnce() -> String,
        reply: JoinReply,
        now: Instant,
    ) -> JoinStep {
        match self.admit(&join, fresh_id, now) {
            Ok(Admitted::Rejoin(id)) => {
                self.update(&id, join, now);
                if let Some(member) = self.members.get_mut(&id) {
                    member.joining = Some(reply);
                }
                self.prepare(now);
                self.settle(now);
            }
            Ok(Admitted::Unchanged(id)) => {
                let answer = self.joined(&id);
                let _ = reply.send(Ok(answer));
            }
            Ok(Admitted::Replaced { id, before }) => {
                let mut joined = self.joined(&id);
                if !join.can_skip && joined.leader == id {
                    // It does not know that it could leave the assignment alone: let it think that another leads.
                    joined.leader = before;
                    joined.members.clear();
                    joined.skip_assignment = false;
                }
                return JoinStep::Store(Box::new((self.row(), reply, joined)));
            }
            Err(e) => drop(reply.send(Err(e))),
        }
        JoinStep::Done
    }

    pub(crate) fn admit(
        &mut self,
        join: &Join,
        fresh_id: impl FnOnce() -> String,
        now: Instant,
    ) -> Result<Admitted, GroupError> {
        if !self.members.is_empty() && !self.speaks(join) {
            return Err(GroupError::InconsistentProtocol);
        }
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return Err(GroupError::InconsistentProtocol);
        }
        if join.member.is_empty() {
            return self.admit_new(join, fresh_id, now);
        }
        if self.pending.remove(&join.member).is_some() {
            return Ok(Admitted::Rejoin(join.member.clone()));
        }
        self.known(&join.member, join.instance.as_deref())?;
        let changed = self
            .members
            .get(&join.member)
            .is_none_or(|m| m.row.protocols != join.protocols);
        match self.phase {
            Phase::Stable if !changed && join.member != self.leader => {
                Ok(Admitted::Unchanged(join.member.clone()))
            }
            // Its answer got lost: nothing has changed since.
            Phase::Completing { .. } if !changed => Ok(Admitted::Unchanged(join.member.clone())),
            _ => Ok(Admitted::Rejoin(join.member.clone())),
        }
    }

    fn admit_new(
        &mut self,
        join: &Join,
        fresh_id: impl FnOnce() -> String,
        now: Instant,
    ) -> Result<Admitted, GroupError> {
        let full = self.members.len() + self.pending.len() >= GROUP_MEMBERS_MAX;
        let Some(instance) = &join.instance else {
            if full {
                return Err(GroupError::Full);
            }
            let id = fresh_id();
            if join.id_first {
                self.pending.insert(id.clone(), now + join.session);
                return Err(GroupError::MemberIdRequired(id));
            }
            return Ok(Admitted::Rejoin(id));
        };
        let before = self
            .members
            .values()
            .find(|m| m.row.instance.as_ref() == Some(instance));
        let Some(before) = before.map(|m| m.row.id.clone()) else {
            return if full {
                Err(GroupError::Full)
            } else {
                Ok(Admitted::Rejoin(fresh_id()))
            };
        };
        // The instance came back under the same name: it takes the old one's place, and the old one is fenced.
        let id = fresh_id();
        let Some(mut member) = self.members.remove(&before) else {
            return Err(GroupError::UnknownMember);
        };
        if let Some(reply) = member.joining.take() {
            let _ = reply.send(Err(GroupError::FencedInstance));
        }
        if let Some(reply) = member.syncing.take() {
            let _ = reply.send(Err(GroupError::FencedInstance));
        }
        // Kafka's rule: only another protocol would assign otherwise.
        let speaks = |p: &str| join.protocols.iter().any(|(name, _)| name == p);
        let changed = !speaks(&self.protocol);
        if !changed {
            member.row.protocols.clone_from(&join.protocols);
        }
        member.row.id.clone_from(&id);
        member.expires = now + member.session();
        self.members.insert(id.clone(), member);
        if self.leader == before {
            self.leader.clone_from(&id);
        }
        if self.phase == Phase::Stable && !changed {
            return Ok(Admitted::Replaced { id, before });
        }
        Ok(Admitted::Rejoin(id))
    }

    /// Whether `join` can take part: the same type, and a protocol that all others speak.
    fn speaks(&self, join: &Join) -> bool {
        let others: Vec<_> = self
            .members
            .values()
            .filter(|m| m.row.id != join.member)
            .collect();
        let all_speak = |name: &String| {
            others
                .iter()
                .all(|m| m.row.protocols.iter().any(|(n, _)| n == name))
        };
        others.is_empty()
            || (join.protocol_type == self.protocol_type
                && join.protocols.iter().any(|(name, _)| all_speak(name)))
    }

    fn update(&mut self, id: &str, join: Join, now: Instant) {
        self.protocol_type = join.protocol_type;
        let row = MemberRow {
            id: id.to_owned(),
            instance: join.instance,
            client: join.client,
            host: join.host,
            session_ms: join.session.as_millis() as u32,
            rebalance_ms: join.rebalance.as_millis() as u32,
            protocols: join.protocols,
            assignment: Vec::new(),
        };
        match self.members.get_mut(id) {
            Some(member) => {
                let assignment = std::mem::take(&mut member.row.assignment);
                member.row = MemberRow { assignment, ..row };
                member.expires = now + join.session;
                // Whoever asked before has gone away.
                member.joining = None;
                member.syncing = None;
            }
            None => {
                let expires = now + join.session;
                let member = Member {
                    row,
                    expires,
                    joining: None,
                    syncing: None,
                };
                self.members.insert(id.to_owned(), member);
            }
        }
    }

    /// Begins a rebalance, or lets the one under way wait for one more.
    pub(crate) fn prepare(&mut self, now: Instant) {
        let longest = self
            .members
            .values()
            .map(|m| m.row.rebalance_ms)
            .max()
            .unwrap_or(0);
        let most = now + Duration::from_millis(u64::from(longest));
        self.phase = match self.phase {
            Phase::Empty => Phase::Preparing {
                until: (now + self.initial_delay).min(most),
                most,
                initial: !self.initial_delay.is_zero(),
            },
            Phase::Preparing {
                most, initial: true, ..
            } => Phase::Preparing {
                until: (now + self.initial_delay).min(most),
                most,
                initial: true,
            },
            Phase::Preparing { .. } => self.phase,
            Phase::Completing { .. } | Phase::Stable => Phase::Preparing {
                until: most,
                most,
                initial: false,
            },
        };
        for member in self.members.values_mut() {
            if let Some(reply) = member.syncing.take() {
                member.expires = now + member.session();
                let _ = reply.send(Err(GroupError::RebalanceInProgress));
            }
        }
    }

    /// Ends the joining when all are there.
    pub(crate) fn settle(&mut self, now: Instant) {
        if let Phase::Preparing { initial: false, .. } = self.phase
            && self.pending.is_empty()
            && self.members.values().all(|m| m.joining.is_some())
        {
            self.complete(now);
        }
    }

    /// The joining is over: whoever is not there is left behind, and the others hear of the new generation.
    pub(crate) fn complete(&mut self, now: Instant) {
        // A static member keeps its place until its session ends.
        self.members
            .retain(|_, m| m.joining.is_some() || m.row.instance.is_some());
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.leader.clear();
            self.protocol.clear();
            return;
        }
        self.protocol = self.vote();
        if self.members.get(&self.leader).is_none_or(|m| m.joining.is_none()) {
            let first = self.members.values().find(|m| m.joining.is_some());
            let first = first.or_else(|| self.members.values().next());
            self.leader = first.map(|m| m.row.id.clone()).unwrap_or_default();
        }
        let longest = self
            .members
            .values()
            .map(|m| m.row.rebalance_ms)
            .max()
            .unwrap_or(0);
        self.phase = Phase::Completing {
            until: now + Duration::from_millis(u64::from(longest)),
        };
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = self.joined(&id);
            if let Some(member) = self.members.get_mut(&id) {
                member.expires = now + member.session();
                member.row.assignment.clear();
                if let Some(reply) = member.joining.take() {
                    let _ = reply.send(Ok(answer));
                }
            }
        }
    }

    /// The protocol that most members put first, of those that all speak.
    fn vote(&self) -> String {
        let speak = |name: &str| {
            self.members
                .values()
                .all(|m| m.row.protocols.iter().any(|(n, _)| n == name))
        };
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let first = member
                .row
                .protocols
                .iter()
                .map(|(name, _)| name.as_str())
                .find(|name| speak(name));
            if let Some(name) = first {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.into_iter().max_by_key(|(_, n)| *n);
        most.map(|(name, _)| name.to_owned()).unwrap_or_default()
    }

    pub(crate) fn joined(&self, id: &str) -> Joined {
        let listed = |m: &Member| JoinedMember {
            id: m.row.id.clone(),
            instance: m.row.instance.clone(),
            metadata: m.metadata(&self.protocol),
        };
        let leads = self.leader == id;
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            member: id.to_owned(),
            members: if leads {
                self.members.values().map(listed).collect()
            } else {
                Vec::new()
            },
            // A static leader that came back into a stable group must not assign anew (KIP-814).
            skip_assignment: leads && self.phase == Phase::Stable,
        }
    }

    /// Waits for the leader's assignment, or brings it.
    pub(crate) fn sync(
        &mut self,
        caller: Caller<'_>,
        protocol: (Option<&str>, Option<&str>),
        assignments: Vec<(String, Bytes)>,
        reply: SyncReply,
        now: Instant,
    ) -> SyncStep {
        let Caller {
            member,
            instance,
            generation,
            ..
        } = caller;
        let refused = self
            .known(member, instance)
            .err()
            .or_else(|| self.at(generation).err());
        let inconsistent = protocol.0.is_some_and(|p| p != self.protocol_type)
            || protocol.1.is_some_and(|p| p != self.protocol);
        let refused = refused.or(inconsistent.then_some(GroupError::InconsistentProtocol));
        if let Some(error) = refused {
            let _ = reply.send(Err(error));
            return SyncStep::Done;
        }
        let answer = self.synced(member);
        match self.phase {
            Phase::Empty => drop(reply.send(Err(GroupError::UnknownMember))),
            Phase::Preparing { .. } => drop(reply.send(Err(GroupError::RebalanceInProgress))),
            Phase::Stable => {
                self.heard(member, now);
                let _ = reply.send(Ok(answer));
            }
            Phase::Completing { .. } => {
                if let Some(waiting) = self.members.get_mut(member) {
                    waiting.syncing = Some(reply);
                }
                if member == self.leader {
                    let mut row = self.row();
                    let mut given: BTreeMap<String, Bytes> = assignments.into_iter().collect();
                    for member in &mut row.members {
                        member.assignment = given.remove(&member.id).map(Vec::from).unwrap_or_default();
                    }
                    return SyncStep::Store(self.generation, row);
                }
            }
        }
        SyncStep::Done
    }

    fn synced(&self, member: &str) -> Synced {
        let assignment = self
            .members
            .get(member)
            .map(|m| Bytes::copy_from_slice(&m.row.assignment));
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: assignment.unwrap_or_default(),
        }
    }

    /// The assignment of `generation` is stored, or could not be.
    pub(crate) fn assigned(
        &mut self,
        generation: i32,
        row: GroupRow,
        result: Result<(), GroupError>,
        now: Instant,
    ) {
        if generation != self.generation || !matches!(self.phase, Phase::Completing { .. }) {
            return;
        }
        if let Err(error) = result {
            for member in self.members.values_mut() {
                member.expires = now + member.session();
                if let Some(reply) = member.syncing.take() {
                    let _ = reply.send(Err(error.clone()));
                }
            }
            return self.prepare(now);
        }
        self.phase = Phase::Stable;
        for stored in row.members {
            if let Some(member) = self.members.get_mut(&stored.id) {
                member.row.assignment = stored.assignment;
            }
        }
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = self.synced(&id);
            if let Some(member) = self.members.get_mut(&id)
                && let Some(reply) = member.syncing.take()
            {
                member.expires = now + member.session();
                let _ = reply.send(Ok(answer));
            }
        }
    }

    /// A member says that it lives.
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

    /// Whether `member` may commit offsets now; it is heard of by that.
    pub(crate) fn may_commit(
        &mut self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
        now: Instant,
    ) -> Result<(), GroupError> {
        // Somebody who only stores offsets here and assigns partitions himself.
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

    /// A member goes, by its id or, if static, by its instance alone.
    pub(crate) fn leave(
        &mut self,
        member: &str,
        instance: Option<&str>,
        now: Instant,
    ) -> Result<(), GroupError> {
        if member.is_empty() {
            let of_instance = |m: &&Member| instance.is_some() && m.row.instance.as_deref() == instance;
            let found = self.members.values().find(of_instance).map(|m| m.row.id.clone());
            let id = found.ok_or(GroupError::UnknownMember)?;
            self.remove(&id, now);
            return Ok(());
        }
        if self.pending.remove(member).is_some() {
            self.settle(now);
            return Ok(());
        }
        self.known(member, instance)?;
        self.remove(member, now);
        Ok(())
    }

    pub(crate) fn remove(&mut self, id: &str, now: Instant) {
        let Some(member) = self.members.remove(id) else {
            return;
        };
        if let Some(reply) = member.joining {
            let _ = reply.send(Err(GroupError::UnknownMember));
        }
        if let Some(reply) = member.syncing {
            let _ = reply.send(Err(GroupError::UnknownMember));
        }
        if matches!(self.phase, Phase::Stable | Phase::Completing { .. }) {
            self.prepare(now);
        }
        if self.members.is_empty() && self.pending.is_empty() {
            self.complete(now);
        } else {
            self.settle(now);
        }
    }

    /// Time has passed: ends sessions and rebalances that are over.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.pending.retain(|_, until| *until > now);
        let expired = |m: &&Member| !m.waits() && m.expires <= now;
        let gone: Vec<String> = self
            .members
            .values()
            .filter(expired)
            .map(|m| m.row.id.clone())
            .collect();
        for id in gone {
            tracing::info!(member = %id, "consumer group member expired");
            self.remove(&id, now);
        }
        match self.phase {
            Phase::Preparing { until, .. } if until <= now => self.complete(now),
            Phase::Preparing { .. } => self.settle(now),
            // Members that never asked for what the leader gave them, or a leader that gave nothing.
            Phase::Completing { until } if until <= now => {
                let silent: Vec<String> = self
                    .members
                    .values()
                    .filter(|m| !m.waits())
                    .map(|m| m.row.id.clone())
                    .collect();
                for id in silent {
                    self.remove(&id, now);
                }
                if !self.members.is_empty() {
                    self.prepare(now);
                    self.settle(now);
                }
            }
            _ => {}
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

    /// Topics that its members say they read, if they speak Kafka's `consumer` protocol.
    pub(crate) fn subscribed(&self) -> BTreeSet<String> {
        let metadata = self.members.values().map(|m| m.metadata(&self.protocol));
        metadata
            .filter_map(|bytes| subscription(&bytes))
            .flatten()
            .collect()
    }
}

pub(crate) enum Admitted {
    /// It takes part in a rebalance.
    Rejoin(String),
    /// It is told what it should know already.
    Unchanged(String),
    /// A static member takes the place that it had under another id.
    Replaced { id: String, before: String },
}
