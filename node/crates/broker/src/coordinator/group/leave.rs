//! Leaving a group, and expiry of sessions.

use crate::coordinator::group::{Group, Member, Phase};
use crate::coordinator::types::GroupError;
use tokio::time::Instant;

impl Group {
    /// Removes a member by id; a static member can be named by its instance alone.
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

    /// Expires sessions and rebalances.
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
            // Members never fetched their assignment, or the leader provided none.
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
}
