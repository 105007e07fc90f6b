//! Joining a group.

use crate::coordinator::group::{Group, JoinReply, Member, Phase};
use crate::coordinator::types::{GroupError, Join, Joined};
use crate::state::rows::consumer_group::{GroupRow, MemberRow};
use tokio::time::Instant;
use weir_types::limits::GROUP_MEMBERS_MAX;

/// Action that a join requires of the caller.
pub(crate) enum JoinStep {
    /// None: the join was answered, or waits.
    Done,
    /// The row has to be stored before this is answered.
    Store(Box<(GroupRow, JoinReply, Joined)>),
}

impl Group {
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
                    // An old client cannot skip the assignment: report another leader instead.
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
            // The answer got lost, and nothing has changed since.
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
        // The static member restarted: the new id replaces the old, which is fenced.
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

    /// Returns true if `join` is compatible: the same type, and a protocol that all other members support.
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
                // The earlier request was abandoned.
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
}

pub(crate) enum Admitted {
    /// The member takes part in a rebalance.
    Rejoin(String),
    /// The member gets the current generation again.
    Unchanged(String),
    /// A static member replaces its former id.
    Replaced { id: String, before: String },
}
