//! Rebalances: from the first join to a new generation.

use crate::coordinator::group::{Group, Member, Phase};
use crate::coordinator::types::{GroupError, Joined, JoinedMember};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

impl Group {
    /// Begins a rebalance, or extends the current.
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

    /// Completes the joining if all members have joined.
    pub(crate) fn settle(&mut self, now: Instant) {
        if let Phase::Preparing { initial: false, .. } = self.phase
            && self.pending.is_empty()
            && self.members.values().all(|m| m.joining.is_some())
        {
            self.complete(now);
        }
    }

    /// Completes the joining: drops absent members, and answers the others with the new generation.
    pub(crate) fn complete(&mut self, now: Instant) {
        // A static member stays until its session expires.
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

    /// Returns the protocol that most members prefer, among those that all support.
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
}
