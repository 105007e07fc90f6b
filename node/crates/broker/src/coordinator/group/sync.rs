//! Synchronising members with the leader's assignment.

use crate::coordinator::group::{Group, Phase, SyncReply};
use crate::coordinator::types::{Caller, GroupError, Synced};
use crate::state::rows::consumer_group::GroupRow;
use bytes::Bytes;
use std::collections::BTreeMap;
use tokio::time::Instant;

/// Action that a sync requires of the caller.
pub(crate) enum SyncStep {
    /// None: the sync was answered, or waits.
    Done,
    /// The leader's assignment has to be stored; then [`Group::assigned`].
    Store(i32, GroupRow),
}

impl Group {
    /// Waits for the leader's assignment, or provides the assignments as the leader.
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

    /// Answers waiting members, after the assignment of `generation` was stored or failed.
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
}
