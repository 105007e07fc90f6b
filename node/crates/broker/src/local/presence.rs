//! Presence of nodes: reachable and in step, as observed by the leader.

use crate::state::rows::absent::Absent;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use weir_replica::{MemberStatus, NodeId};

/// Silence after which a node counts as away: followers would have elected another leader by then.
const AWAY_AFTER: Duration = Duration::from_millis(1_500);

/// Time in which a new leader hears from all reachable nodes: several heartbeats. The former leader has been
/// silent for longer.
const FIRST_ANSWERS: Duration = Duration::from_millis(600);

/// An absent node counts as back if it answered within this time.
const BACK_WITHIN: Duration = Duration::from_millis(700);

/// Number of missing entries up to which a replica counts as in step: entries in flight.
const IN_STEP_ENTRIES: u64 = 256;

/// A replica that was in step in this time counts as such (Kafka's `replica.lag.time.max.ms`).
const BEHIND_AFTER: Duration = Duration::from_secs(30);

/// The leader's observations of the other nodes.
#[derive(Default)]
pub(crate) struct Presence {
    /// Since when this node leads, in which term.
    pub(crate) led: Option<(u64, Instant)>,
    pub(crate) in_step: BTreeMap<NodeId, Instant>,
}

impl Presence {
    /// Returns the absent nodes at `now`, given the absent nodes `before`.
    pub(crate) fn look(
        &mut self,
        term: u64,
        members: &[MemberStatus],
        before: &Absent,
        now: Instant,
    ) -> Absent {
        if self.led.is_none_or(|(known, _)| known != term) {
            self.led = Some((term, now));
            self.in_step.clear();
        }
        let led_for = self
            .led
            .map_or(Duration::ZERO, |(_, since)| now.duration_since(since));
        let mut absent = Absent::default();
        for member in members {
            let is_away = match (member.heard_ms_ago, before.away.contains(&member.id)) {
                (None, true) => true,
                (None, false) => led_for >= FIRST_ANSWERS,
                (Some(ms), true) => Duration::from_millis(ms) >= BACK_WITHIN,
                (Some(ms), false) => Duration::from_millis(ms) >= AWAY_AFTER,
            };
            if is_away {
                absent.away.insert(member.id);
                continue;
            }
            let is_in_step = member.refuses.is_none() && member.lag.is_none_or(|lag| lag <= IN_STEP_ENTRIES);
            let last = self.in_step.entry(member.id).or_insert(now);
            if is_in_step {
                *last = now;
            }
            // An election does not help a replica to catch up.
            let was_behind = before.behind.contains(&member.id) && !is_in_step;
            if member.refuses.is_some() || was_behind || now.duration_since(*last) >= BEHIND_AFTER {
                absent.behind.insert(member.id);
            }
        }
        self.in_step
            .retain(|id, _| members.iter().any(|member| member.id == *id));
        absent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use weir_replica::{Member, Role};

    fn member(id: NodeId, heard_ms_ago: Option<u64>, lag: u64) -> MemberStatus {
        MemberStatus {
            id,
            member: Member::default(),
            role: Role::Voter,
            lag: Some(lag),
            heard_ms_ago,
            refuses: None,
        }
    }

    #[test]
    fn who_is_silent_is_away_and_comes_back_when_he_answers() {
        let (mut presence, begin) = (Presence::default(), Instant::now());
        let after = |ms| begin + Duration::from_millis(ms);
        let none = Absent::default();
        // A new leader has not heard from any node.
        let unheard = [member(2, None, 0), member(3, Some(20), 0)];
        assert_eq!(presence.look(1, &unheard, &none, after(0)), none);
        assert_eq!(presence.look(1, &unheard, &none, after(500)), none);
        let gone = presence.look(1, &unheard, &none, after(600));
        assert_eq!(gone.away, BTreeSet::from([2]));
        // Between the thresholds nothing changes.
        let slow = [member(2, Some(1_000), 0), member(3, Some(1_000), 0)];
        assert_eq!(presence.look(1, &slow, &gone, after(2_000)), gone);
        assert_eq!(presence.look(1, &slow, &none, after(2_000)), none);
        let heard = [member(2, Some(10), 0), member(3, Some(10), 0)];
        assert_eq!(presence.look(1, &heard, &gone, after(2_500)), none);
        // A new term begins anew.
        assert_eq!(presence.look(2, &unheard, &none, after(9_000)), none);
    }

    #[test]
    fn who_lacks_entries_for_long_is_behind() {
        let (mut presence, begin) = (Presence::default(), Instant::now());
        let none = Absent::default();
        let lags = [member(2, Some(10), 10_000)];
        assert_eq!(presence.look(1, &lags, &none, begin), none);
        let later = begin + Duration::from_secs(30);
        let behind = presence.look(1, &lags, &none, later);
        assert_eq!(behind.behind, BTreeSet::from([2]));
        let caught_up = [member(2, Some(10), 3)];
        assert_eq!(presence.look(1, &caught_up, &behind, later), none);
        let mut refuses = member(2, Some(10), 3);
        refuses.refuses = Some("its disk is full".to_owned());
        let refused = presence.look(1, &[refuses], &none, later);
        assert_eq!(refused.behind, BTreeSet::from([2]));
    }
}
