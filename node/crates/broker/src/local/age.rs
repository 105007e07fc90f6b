//! How long ago batches were stored, by clocks that could be trusted.
//!
//! A gateway's clock lies: it boots in 1970, or where it was when the power went, and is set hours later. So the age of what is
//! stored is not read off it. Each replica group has a clock of its own that counts the time in which it had a leader whose two
//! clocks, the one for the time of day and the one that only goes forward, agreed ([`Watch`], [`Ageing`]); it stands in a row of the
//! group. Beside each partition is noted which of its offsets were stored by which time of that clock ([`StoredAt`]).
//!
//! Time that cannot be accounted for is no age: records stay too long rather than go too soon. Two things nobody can tell: a clock
//! that is ahead from a start on and stays so from time that the node was off, and one that is behind, and is put right while the
//! node is off, likewise.

use crate::state::rows::group_age::{AGREE_WITHIN_MS, AgeRow};
use weir_types::level::RELEASED_MS;

/// What the two clocks of a node say at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The time of day, in milliseconds since 1970.
    pub(crate) wall_ms: i64,
    /// Milliseconds since some moment, always forward.
    pub(crate) steady_ms: u64,
}

const AGREE_WITHIN_PERCENT: u64 = 1;

/// A clock that has not been stepped for so long is set: time daemons step in the first minutes, if they do.
const SETTLED_MS: u64 = 10 * 60 * 1_000;

/// Looks at the clocks of a node.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    last: Option<Moment>,
    /// Since when the clock was not stepped, by the steady one.
    steady_since: u64,
}

/// What a look showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Milliseconds since the last look; none at the first, and where the clock was stepped or is not set.
    pub(crate) passed_ms: Option<u64>,
    /// The time of day can be right: it is not before this release was made.
    pub(crate) is_set: bool,
    /// And it was not stepped for long.
    pub(crate) is_settled: bool,
    pub(crate) wall_ms: i64,
}

impl Watch {
    pub(crate) fn look(&mut self, now: Moment) -> Look {
        let is_set = now.wall_ms >= RELEASED_MS;
        let before = self.last.replace(now);
        let passed = before
            .filter(|before| is_set && before.wall_ms >= RELEASED_MS)
            .and_then(|before| {
                let steady = now.steady_ms.saturating_sub(before.steady_ms);
                let by_wall = now.wall_ms.saturating_sub(before.wall_ms);
                let apart = by_wall.abs_diff(i64::try_from(steady).unwrap_or(i64::MAX));
                (apart <= AGREE_WITHIN_MS + steady * AGREE_WITHIN_PERCENT / 100).then_some(steady)
            });
        if passed.is_none() {
            self.steady_since = now.steady_ms;
        }
        Look {
            passed_ms: passed,
            is_set,
            is_settled: is_set && now.steady_ms - self.steady_since >= SETTLED_MS,
            wall_ms: now.wall_ms,
        }
    }
}

/// The clock of a group, on the node that leads it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ageing {
    /// The row that it goes on from.
    from: Option<AgeRow>,
    /// What was counted since.
    since_ms: u64,
    /// Before that, the shortest time away that the clock has spoken of: it may have been stepped either way.
    away_ms: Option<u64>,
    /// The row is this node's, of this run: all time since is accounted for.
    is_own: bool,
}

/// What a group's clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Age {
    /// Milliseconds that were counted, at least.
    pub(crate) ms: u64,
    /// What is stored now is as young as that: something can be noted under it. Not while it is unknown how long the node was
    /// away.
    pub(crate) is_exact: bool,
    /// The row has to be written, to go on from here.
    pub(crate) must_write: bool,
    /// What is to be written.
    pub(crate) row: AgeRow,
}

impl Ageing {
    /// Goes on, where `stored` is the row as applied. None while there is no time to speak of.
    pub(crate) fn go_on(&mut self, stored: Option<AgeRow>, look: Look) -> Option<Age> {
        if stored != self.from || stored.is_none() {
            // Another led meanwhile, or this node was away.
            *self = Self {
                from: stored,
                ..Self::default()
            };
        } else {
            self.since_ms += look.passed_ms.unwrap_or(0);
        }
        let Some(from) = self.from else {
            let row = AgeRow::new(0, look.wall_ms, look.wall_ms);
            return look.is_set.then_some(Age {
                ms: 0,
                is_exact: true,
                must_write: true,
                row,
            });
        };
        let mut ms = from.age_ms + self.since_ms;
        let mut must_write = self.is_own && look.passed_ms.is_none() && look.is_set;
        let mut is_exact = self.is_own && look.is_set;
        if !self.is_own && look.is_set {
            let away = from.away_ms(look.wall_ms).saturating_sub(self.since_ms);
            let least = self.away_ms.map_or(away, |before| before.min(away));
            self.away_ms = Some(least);
            if look.is_settled {
                // How long it was away is known as well as it can be.
                ms += least;
                (must_write, is_exact) = (true, true);
            }
        }
        Some(Age {
            ms,
            is_exact,
            must_write,
            row: AgeRow::new(ms, look.wall_ms, from.latest_ms),
        })
    }

    /// `row` was written.
    pub(crate) fn written(&mut self, row: AgeRow) {
        *self = Self {
            from: Some(row),
            is_own: true,
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::rows::stored_at::{NOTES_MAX, StoredAt};
    use weir_types::Offset;

    use proptest::prelude::*;

    const HOUR: u64 = 3_600_000;
    const DAY: u64 = 24 * HOUR;
    const NOW: i64 = RELEASED_MS + 1_000_000_000;

    /// A gateway: its clocks, what it has in memory, and the row on its disk.
    struct Gateway {
        wall: i64,
        steady: u64,
        watch: Watch,
        ageing: Ageing,
        stored: Option<AgeRow>,
        notes: StoredAt,
        end: u64,
        expired: u64,
    }

    impl Gateway {
        fn new(wall: i64) -> Self {
            Self {
                wall,
                steady: 0,
                watch: Watch::default(),
                ageing: Ageing::default(),
                stored: None,
                notes: StoredAt::default(),
                end: 0,
                expired: 0,
            }
        }

        /// Time passes, with a look each half minute and something stored before each.
        fn works(&mut self, ms: u64, stores: bool) {
            for _ in 0..ms / 30_000 {
                self.wall += 30_000;
                self.steady += 30_000;
                self.end += u64::from(stores);
                self.look();
            }
        }

        fn look(&mut self) {
            let now = Moment {
                wall_ms: self.wall,
                steady_ms: self.steady,
            };
            let look = self.watch.look(now);
            let Some(age) = self.ageing.go_on(self.stored, look) else {
                return;
            };
            let mut notes = self.notes.clone();
            let (start, end) = (Offset::new(self.expired), Offset::new(self.end));
            let is_noted = age.is_exact && notes.note(start, end, age.ms, Some(7 * DAY));
            if is_noted || age.must_write {
                self.stored = Some(age.row);
                self.ageing.written(age.row);
                self.notes = notes;
            }
            if let Some(to) = age
                .ms
                .checked_sub(7 * DAY)
                .and_then(|by| self.notes.stored_by(by))
            {
                self.expired = self.expired.max(to.get());
            }
        }

        /// The power goes, and comes back after `ms`; the clock says `wall` then.
        fn is_off(&mut self, wall: i64) {
            self.wall = wall;
            self.steady = 0;
            self.watch = Watch::default();
            self.ageing = Ageing::default();
        }
    }

    #[test]
    fn what_is_stored_stays_for_as_long_as_it_should_and_not_much_longer() {
        let mut gateway = Gateway::new(NOW);
        gateway.works(7 * DAY - HOUR, true);
        assert_eq!(gateway.expired, 0);
        let stored = gateway.end;
        gateway.works(7 * DAY + 6 * HOUR, false);
        assert_eq!(gateway.expired, stored);
    }

    #[test]
    fn a_gateway_that_boots_in_1970_keeps_what_it_stores_until_it_hears_the_time() {
        let mut gateway = Gateway::new(NOW);
        gateway.works(HOUR, true);
        let before = gateway.end;
        gateway.is_off(1_000);
        gateway.works(HOUR, true);
        // The time comes: ten days have passed.
        gateway.wall = NOW + 10 * DAY as i64;
        gateway.works(2 * HOUR, true);
        // What was stored before has been there for longer than a week; what was stored since has not.
        assert!(
            gateway.expired > 0 && gateway.expired <= before,
            "{}",
            gateway.expired
        );
        gateway.works(6 * DAY, false);
        assert!(gateway.expired <= before);
    }

    #[test]
    fn a_clock_that_jumps_ahead_and_back_expires_nothing() {
        let mut gateway = Gateway::new(NOW);
        gateway.works(HOUR, true);
        gateway.wall += 400 * DAY as i64;
        gateway.works(HOUR, true);
        gateway.wall -= 400 * DAY as i64;
        gateway.works(HOUR, true);
        assert_eq!(gateway.expired, 0);
        // Nor where it is ahead at a start, and is set soon.
        gateway.is_off(NOW + 400 * DAY as i64);
        gateway.works(5 * 60_000, true);
        gateway.wall = NOW + 4 * HOUR as i64;
        gateway.works(DAY, true);
        assert_eq!(gateway.expired, 0);
    }

    #[test]
    fn time_away_counts_once_the_clock_has_settled() {
        let mut gateway = Gateway::new(NOW);
        gateway.works(HOUR, true);
        let before = gateway.end;
        gateway.is_off(NOW + 8 * DAY as i64);
        gateway.works(SETTLED_MS - 60_000, true);
        assert_eq!(gateway.expired, 0);
        gateway.works(HOUR, true);
        assert!(gateway.expired > 0 && gateway.expired <= before);
    }

    #[test]
    fn notes_are_few_and_never_say_that_something_is_older_than_it_is() {
        let mut notes = StoredAt::default();
        for n in 1..100_000u64 {
            notes.note(Offset::ZERO, Offset::new(n), n * 1_000, Some(3_600_000));
            assert!(notes.0.len() <= NOTES_MAX);
        }
        assert!(notes.0.is_sorted());
        assert!(notes.0.iter().all(|(offset, at)| offset.get() * 1_000 == *at));
        assert_eq!(notes.stored_by(0), None);
        assert_eq!(notes.stored_by(u64::MAX), Some(notes.0.last().unwrap().0));
    }

    proptest! {
        /// Whatever the clock does, nothing goes that was stored less than a week of true time ago.
        #[test]
        fn nothing_goes_too_soon(steps in proptest::collection::vec((0u8..5, 1u64..40), 1..40)) {
            let mut gateway = Gateway::new(NOW);
            // Its clock is right at first: of one that never was nobody can tell.
            gateway.look();
            let mut truth = 0u64;
            // When each record was stored, truly.
            let mut stored = Vec::new();
            let mut works = |gateway: &mut Gateway, ms: u64, truth: &mut u64| {
                for _ in 0..ms / 30_000 {
                    *truth += 30_000;
                    stored.push(*truth);
                    gateway.works(30_000, true);
                    if let Some(last) = gateway.expired.checked_sub(1) {
                        let age = *truth - stored[last as usize];
                        // Where the clock is ahead for longer than it takes to settle, nobody can tell.
                        prop_assert!(age + HOUR >= 7 * DAY, "after {age}");
                    }
                }
                Ok(())
            };
            for (what, hours) in steps {
                let ms = hours * HOUR / 8;
                match what {
                    // It works, its clock right.
                    0 | 1 => works(&mut gateway, ms * 20, &mut truth)?,
                    // Its clock jumps ahead while it works, or back again.
                    2 if gateway.wall > NOW + truth as i64 => gateway.wall = NOW + truth as i64,
                    2 => gateway.wall += (hours * DAY) as i64,
                    // It is off, and its clock right afterwards.
                    3 => {
                        truth += ms * 8;
                        gateway.is_off(NOW + truth as i64);
                        // A clock that is ahead from the start, and stays so, cannot be told from time away.
                        gateway.look();
                    }
                    // It is off, and boots in 1970; the time comes later.
                    _ => {
                        truth += ms * 8;
                        gateway.is_off(0);
                        works(&mut gateway, ms, &mut truth)?;
                        gateway.wall = NOW + truth as i64;
                        gateway.look();
                    }
                }
            }
        }
    }
}
