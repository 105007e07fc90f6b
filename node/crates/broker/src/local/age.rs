//! Age of stored batches, by clocks that can be trusted.
//!
//! The clock of a gateway may be wrong: it starts in 1970 or at the time of the power cut, and is set hours
//! later. Age is therefore not derived from the time of day. Each replica group has a storage clock. The
//! clock counts time under leaders whose two clocks agree, the time of day and the monotonic clock
//! ([`Watch`], [`Ageing`]). The group's row stores the count. For each partition, a row maps offsets to times
//! of the storage clock (`StoredAt`).
//!
//! Time that cannot be verified does not count: records stay too long rather than expire too early. Two
//! errors cannot be detected. The first is a clock that is ahead from the start, and stays ahead. The second
//! is a clock that is behind, and is corrected while the node is off.

use crate::state::rows::group_age::{AGREE_WITHIN_MS, AgeRow};
use weir_types::level::RELEASED_MS;

/// Readings of the two clocks of a node at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// The time of day, in milliseconds since 1970.
    pub(crate) wall_ms: i64,
    /// Milliseconds since some moment, always forward.
    pub(crate) steady_ms: u64,
}

const AGREE_WITHIN_PERCENT: u64 = 1;

/// Time without a step after which the clock counts as set: time daemons step in the first minutes, if ever.
const SETTLED_MS: u64 = 10 * 60 * 1_000;

/// Looks at the clocks of a node.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    last: Option<Moment>,
    /// Monotonic time of the last step of the clock.
    steady_since: u64,
}

/// Result of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Milliseconds since the last look; none at the first, and where the clock was stepped or is not set.
    pub(crate) passed_ms: Option<u64>,
    /// The time of day is plausible: not before this release was made.
    pub(crate) is_set: bool,
    /// The clock is set, and has not been stepped for a long time.
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

/// The storage clock of a group, on its leader.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ageing {
    /// The row that the clock continues from.
    from: Option<AgeRow>,
    /// Milliseconds counted since the row.
    since_ms: u64,
    /// Shortest absence before the row's continuation that any reading suggested, since the clock may have
    /// been stepped either way.
    away_ms: Option<u64>,
    /// The row is this node's, of this run: all time since is accounted for.
    is_own: bool,
}

/// Reading of a storage clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Age {
    /// Milliseconds that were counted, at least.
    pub(crate) ms: u64,
    /// True if records that are stored now can be noted under this time. False while the length of the node's
    /// absence is unknown.
    pub(crate) is_exact: bool,
    /// The row has to be written, to go on from here.
    pub(crate) must_write: bool,
    /// The row to write.
    pub(crate) row: AgeRow,
}

impl Ageing {
    /// Continues from `stored`, the applied row. Returns `None` while there is no usable time.
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
                // The length of the absence is now as certain as possible.
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

    /// Continues from `row`, which was written.
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

    /// A gateway: its clocks, its memory, and the row on its disk.
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

        /// Lets time pass, with a reading and stored records every half minute.
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

        /// Cuts the power; the clock says `wall` afterwards.
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
        // Records from before the absence are older than a week; later records are not.
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
        // Nor does a clock that is ahead at the start, and is set soon.
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
        /// No record expires that was stored less than a week of true time ago, whatever the clock does.
        #[test]
        fn nothing_goes_too_soon(steps in proptest::collection::vec((0u8..5, 1u64..40), 1..40)) {
            let mut gateway = Gateway::new(NOW);
            // The clock is right at first: an error from the start cannot be detected.
            gateway.look();
            let mut truth = 0u64;
            // True storage time of each record.
            let mut stored = Vec::new();
            let mut works = |gateway: &mut Gateway, ms: u64, truth: &mut u64| {
                for _ in 0..ms / 30_000 {
                    *truth += 30_000;
                    stored.push(*truth);
                    gateway.works(30_000, true);
                    if let Some(last) = gateway.expired.checked_sub(1) {
                        let age = *truth - stored[last as usize];
                        // A clock that stays ahead after settling cannot be detected.
                        prop_assert!(age + HOUR >= 7 * DAY, "after {age}");
                    }
                }
                Ok(())
            };
            for (what, hours) in steps {
                let ms = hours * HOUR / 8;
                match what {
                    // The gateway works with the right clock.
                    0 | 1 => works(&mut gateway, ms * 20, &mut truth)?,
                    // The clock jumps ahead during work, or back again.
                    2 if gateway.wall > NOW + truth as i64 => gateway.wall = NOW + truth as i64,
                    2 => gateway.wall += (hours * DAY) as i64,
                    // The gateway is off, and has the right clock afterwards.
                    3 => {
                        truth += ms * 8;
                        gateway.is_off(NOW + truth as i64);
                        // A clock that is ahead from the start cannot be told from absence.
                        gateway.look();
                    }
                    // The gateway is off, and boots in 1970; the time is set later.
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
