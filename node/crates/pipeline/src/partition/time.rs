//! The two times of a pipeline on a partition: processing time and event time.
//!
//! Neither goes back. A gateway without a battery for its clock boots in 1970, and a clock that is set jumps
//! over years. Processing time therefore continues from its stored value with the machine's monotonic clock,
//! and follows the wall clock when that is ahead. A record from the far future gets the node's time;
//! otherwise a single wrong sensor would make all other records late.

use crate::json;
use crate::spec::event_time::{EventTime, Future, OnBadTime};
use crate::stages::dated::Dated;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};
use weir_runtime::Moment;
use weir_types::{RecordRef, TimeUnit, parse_time, time_of_number};

/// Mark of a record whose time the watermark had passed.
const LATE: u8 = 1;

/// Mark of a record whose time the node replaced.
const REDATED: u8 = 4;

/// Timestamp of a record without a time (Kafka: `RecordBatch.NO_TIMESTAMP`).
const NO_TIMESTAMP: i64 = -1;

/// Progress of a pipeline's time on a partition. Stored with the state, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Processing time.
    now: i64,
    /// Processing time at which the last records arrived.
    arrived: i64,
    /// Largest time of a record.
    latest: i64,
    watermark: i64,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            now: 0,
            arrived: 0,
            latest: i64::MIN,
            watermark: i64::MIN,
        }
    }
}

/// [`Progress`] as it advances.
#[derive(Debug)]
pub(crate) struct Time {
    progress: Progress,
    /// Progress as last stored.
    stored: Progress,
    looked: Instant,
}

impl Time {
    /// Continues from stored progress.
    pub(crate) fn from(stored: Progress) -> Self {
        Self {
            progress: stored,
            stored,
            looked: Instant::now(),
        }
    }

    /// Advances processing time by the elapsed monotonic time, or to `wall` if that is later.
    pub(crate) fn pass(&mut self, wall: i64, events: &EventTime) {
        let passed = Instant::now().saturating_duration_since(self.looked).as_millis() as u64;
        // The rest of a millisecond counts in the next call.
        self.looked += Duration::from_millis(passed);
        self.progress.now = self.progress.now.saturating_add_unsigned(passed).max(wall);
        self.go_on(events);
    }

    /// Advances processing time over stored records with these times, at most to `wall`. A log pipeline takes
    /// its time from the records, so that reprocessing gives the same result. The idle time before the first
    /// record counts as silence.
    pub(crate) fn read(&mut self, times: RangeInclusive<i64>, wall: i64, events: &EventTime) {
        self.looked = Instant::now();
        let (earliest, latest) = times.into_inner();
        // A sensor whose clock is ahead, by an hour or by decades, must not advance the pipeline's time.
        let reach = |progress: &mut Progress, at: i64| {
            if at <= wall {
                progress.now = progress.now.max(at);
            }
        };
        reach(&mut self.progress, earliest);
        self.go_on(events);
        reach(&mut self.progress, latest);
    }

    /// Advances the watermark with processing time while no records arrive.
    fn go_on(&mut self, events: &EventTime) {
        let progress = &mut self.progress;
        let silent = progress.now.saturating_sub(progress.arrived) - i64::from(events.idle_ms);
        if events.idle_ms > 0 && silent > 0 && progress.latest > i64::MIN {
            let idle = progress.complete(events).saturating_add(silent);
            progress.watermark = progress.watermark.max(idle);
        }
    }

    /// Returns the milliseconds from `wall` until processing time is `at`.
    pub(crate) fn until(&mut self, at: i64, wall: i64, events: &EventTime) -> u64 {
        self.pass(wall, events);
        at.saturating_sub(self.progress.now).max(0) as u64
    }

    /// Dates the records of a batch by `events`.
    pub(crate) fn date(&mut self, records: &mut [RecordRef<'_>], events: &EventTime) -> Dated {
        let bound = self.progress.now.saturating_add_unsigned(events.future_ms);
        let mut dated = Dated::default();
        let own = |records: &[RecordRef<'_>]| records.iter().map(|r| r.timestamp).collect();
        if events.field.is_some() {
            dated.own = own(records);
        }
        let is_ahead = |record: &RecordRef<'_>| record.timestamp > bound;
        if events.future == Future::Redate && dated.own.is_empty() && records.iter().any(is_ahead) {
            dated.own = own(records);
        }
        for (n, record) in records.iter_mut().enumerate() {
            let read = match &events.field {
                Some(field) => time_in(record.value, field, events.unit),
                None if record.timestamp == NO_TIMESTAMP => {
                    Err("its timestamp is -1, which is none".to_owned())
                }
                None => Ok(record.timestamp),
            };
            match read {
                Ok(at) => record.timestamp = at,
                Err(why) => {
                    dated.bad += 1;
                    match events.on_bad_time {
                        OnBadTime::DeadLetter => {
                            dated.undated.push((n as u32, why));
                            continue;
                        }
                        OnBadTime::Now => record.timestamp = self.progress.now,
                        OnBadTime::Record => {}
                    }
                }
            }
            let mut mark = 0;
            if record.timestamp > bound && events.future == Future::Redate {
                record.timestamp = self.progress.now;
                mark |= REDATED;
                dated.redated += 1;
            }
            if record.timestamp < self.progress.watermark {
                mark |= LATE;
                dated.late += 1;
            }
            if mark != 0 {
                dated.marks.resize(n, 0);
                dated.marks.push(mark);
            }
        }
        if !dated.marks.is_empty() {
            dated.marks.resize(records.len(), 0);
        }
        dated
    }

    /// Advances the watermark over the records of a processed batch. Records without a time do not count.
    pub(crate) fn follow(&mut self, records: &[RecordRef<'_>], dated: &Dated, events: &EventTime) {
        let has_time = |n: &usize| !dated.is_undated(*n as u32);
        let times = records.iter().enumerate().filter(|(n, _)| has_time(n));
        let latest = times.map(|(_, r)| r.timestamp).max();
        let progress = &mut self.progress;
        // A record from the future does not make others late: the watermark never exceeds processing time.
        let latest = match events.future {
            Future::Redate => latest.map(|at| at.min(progress.now)),
            Future::Keep => latest,
        };
        progress.latest = progress.latest.max(latest.unwrap_or(i64::MIN));
        progress.arrived = progress.now;
        if progress.latest > i64::MIN {
            progress.watermark = progress.watermark.max(progress.complete(events));
        }
    }

    /// Returns processing time and watermark for a call.
    pub(crate) fn moment(&self) -> Moment {
        Moment {
            now: self.progress.now,
            watermark: self.progress.watermark,
        }
    }

    /// Returns the processing time at which an event timer for `at` is due if no records arrive.
    pub(crate) fn reaches(&self, at: i64, events: &EventTime) -> Option<i64> {
        let progress = &self.progress;
        if at <= progress.watermark {
            return Some(progress.now);
        }
        if events.idle_ms == 0 || progress.latest == i64::MIN {
            return None;
        }
        let ahead = at.saturating_sub(progress.complete(events));
        Some(
            progress
                .arrived
                .saturating_add(i64::from(events.idle_ms))
                .saturating_add(ahead),
        )
    }

    /// Returns the progress if it differs from the stored progress, and treats it as stored.
    pub(crate) fn take_change(&mut self) -> Option<Progress> {
        let changed = self.progress != self.stored;
        self.stored = self.progress;
        changed.then_some(self.progress)
    }
}

impl Progress {
    /// Returns the time up to which the records are complete, given the allowed lateness.
    fn complete(&self, events: &EventTime) -> i64 {
        self.latest.saturating_sub(i64::from(events.lateness_ms))
    }
}

/// Returns the time at `path` of a JSON document in milliseconds, or a message why there is none.
fn time_in(value: Option<&[u8]>, path: &str, unit: Option<TimeUnit>) -> Result<i64, String> {
    let document = value.ok_or("it has no value")?;
    let text = json::at(document, path)?.filter(|text| *text != "null");
    let text = text.ok_or_else(|| format!("there is nothing at `{path}`"))?;
    let read = match text.as_bytes().first() {
        Some(b'"') => match serde_json::from_str::<String>(text) {
            Ok(text) => parse_time(&text),
            Err(_) => return Err("its value is not JSON".to_owned()),
        },
        Some(b'-' | b'0'..=b'9') => time_of_number(text, unit),
        _ => return Err(format!("`{path}` is neither a text nor a number")),
    };
    read.map_err(|e| format!("`{path}`: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_types::{Headers, Offset};

    fn records(times: &[i64]) -> Vec<RecordRef<'static>> {
        let record = |timestamp: &i64| RecordRef {
            offset: Offset::ZERO,
            timestamp: *timestamp,
            key: None,
            value: None,
            headers: Headers::NONE,
        };
        times.iter().map(record).collect()
    }

    fn batch(time: &mut Time, events: &EventTime, times: &[i64]) -> (Vec<i64>, Vec<u8>) {
        let mut records = records(times);
        let dated = time.date(&mut records, events);
        time.follow(&records, &dated, events);
        (records.iter().map(|r| r.timestamp).collect(), dated.marks)
    }

    #[test]
    fn the_watermark_follows_and_what_comes_after_it_is_late() {
        let events = EventTime {
            lateness_ms: 10,
            ..EventTime::default()
        };
        let mut time = Time::from(Progress::default());
        time.pass(1_000_000, &events);
        assert_eq!(batch(&mut time, &events, &[100, 95]), (vec![100, 95], vec![]));
        assert_eq!(time.moment().watermark, 90);
        assert_eq!(
            batch(&mut time, &events, &[90, 89, 95]),
            (vec![90, 89, 95], vec![0, LATE, 0])
        );
        // The watermark does not go back, and continues from its stored value.
        let stored = time.take_change().unwrap();
        assert_eq!(time.take_change(), None);
        assert_eq!(Time::from(stored).moment().watermark, 90);
    }

    #[test]
    fn a_clock_that_boots_in_1970_or_a_sensor_in_2080_stops_nothing() {
        let events = EventTime::default();
        let mut time = Time::from(Progress {
            now: 1_700_000_000_000,
            ..Progress::default()
        });
        time.pass(5_000, &events);
        let now = time.moment().now;
        assert!((1_700_000_000_000..1_700_000_060_000).contains(&now), "{now}");
        let (times, marks) = batch(&mut time, &events, &[now, 3_500_000_000_000]);
        assert_eq!((times, marks), (vec![now, now], vec![0, REDATED]));
        assert_eq!(time.moment().watermark, now);
        // A record stamped before the node knew the time is late, but kept.
        assert_eq!(batch(&mut time, &events, &[6_000]), (vec![6_000], vec![LATE]));
        time.pass(now + 1_000, &events);
        assert_eq!(time.moment().now, now + 1_000);
        let keep = EventTime {
            future: Future::Keep,
            ..EventTime::default()
        };
        assert_eq!(
            batch(&mut time, &keep, &[3_500_000_000_000]),
            (vec![3_500_000_000_000], vec![])
        );
    }

    #[test]
    fn one_that_is_an_hour_ahead_makes_no_other_late() {
        let events = EventTime {
            lateness_ms: 5_000,
            ..EventTime::default()
        };
        let now = 1_900_000_000_000;
        let mut time = Time::from(Progress {
            now,
            ..Progress::default()
        });
        let (times, marks) = batch(&mut time, &events, &[now - 10, now + 3_600_000]);
        assert_eq!((times, marks), (vec![now - 10, now + 3_600_000], vec![]));
        assert_eq!(time.moment().watermark, now - 5_000);
        let (_, marks) = batch(&mut time, &events, &[now, now - 5_001, -1]);
        assert_eq!(marks, [0, LATE, 0]);
        // With `keep`, the sensor's clock is trusted.
        let keep = EventTime {
            future: Future::Keep,
            ..events
        };
        batch(&mut time, &keep, &[now + 3_600_000]);
        assert_eq!(time.moment().watermark, now + 3_600_000 - 5_000);
    }

    #[test]
    fn one_that_is_stored_and_an_hour_ahead_makes_no_other_late_either() {
        let events = EventTime {
            lateness_ms: 5_000,
            ..EventTime::default()
        };
        let wall = 1_900_000_000_000;
        let mut time = Time::from(Progress::default());
        let ahead = wall + 3_600_000;
        time.read(wall - 10..=ahead, wall, &events);
        batch(&mut time, &events, &[wall - 10, ahead]);
        assert!(time.moment().watermark <= wall - 5_000 && time.moment().now <= wall);
        time.read(wall - 5..=wall, wall, &events);
        assert!(batch(&mut time, &events, &[wall - 5, wall]).1.is_empty());
    }

    #[test]
    fn a_record_without_a_timestamp_has_no_time() {
        let (now, mut found) = (1_900_000_000_000, Vec::new());
        for on_bad_time in [OnBadTime::DeadLetter, OnBadTime::Now, OnBadTime::Record] {
            let events = EventTime {
                on_bad_time,
                ..EventTime::default()
            };
            let mut time = Time::from(Progress {
                now,
                ..Progress::default()
            });
            let mut records = records(&[NO_TIMESTAMP]);
            let dated = time.date(&mut records, &events);
            found.push((records[0].timestamp, dated.undated.len(), dated.bad));
        }
        assert_eq!(found, [(-1, 1, 1), (now, 0, 1), (-1, 0, 1)]);
    }

    #[test]
    fn without_records_their_time_goes_on() {
        let events = EventTime {
            lateness_ms: 10,
            idle_ms: 500,
            ..EventTime::default()
        };
        let mut time = Time::from(Progress::default());
        time.pass(10_000, &events);
        batch(&mut time, &events, &[200]);
        assert_eq!(time.reaches(190, &events), Some(time.moment().now));
        let arrived = time.progress.arrived;
        assert_eq!(time.reaches(250, &events), Some(arrived + 500 + 60));
        time.pass(arrived + 500, &events);
        assert_eq!(time.moment().watermark, 190);
        time.pass(arrived + 560, &events);
        assert!(time.moment().watermark >= 250);
        assert_eq!(time.reaches(1, &EventTime::default()), Some(time.moment().now));
        assert_eq!(time.reaches(9_999, &EventTime::default()), None);
    }

    #[test]
    fn what_is_read_in_blocks_is_as_late_as_what_comes_one_by_one() {
        let events = EventTime {
            lateness_ms: 5_000,
            idle_ms: 10_000,
            ..EventTime::default()
        };
        let mut time = Time::from(Progress::default());
        let wall = 1_900_000_000_000;
        for block in 0..4 {
            // A record per second, a thousand at a time.
            let times: Vec<i64> = (0..1_000)
                .map(|n| 1_800_000_000_000 + (block * 1_000 + n) * 1_000)
                .collect();
            time.read(times[0]..=times[999], wall, &events);
            assert_eq!(batch(&mut time, &events, &times).1, [0u8; 0]);
        }
        // After a minute of silence, all but its last ten seconds count as complete.
        let next = 1_800_000_000_000 + 3_999_000 + 60_000;
        time.read(next..=next, wall, &events);
        assert_eq!(time.moment().watermark, next - 60_000 - 5_000 + 50_000);
    }

    #[test]
    fn times_are_read_from_values() {
        use TimeUnit::{Ms, Ns, S, Us};
        let read = |json: &str, unit| time_in(Some(json.as_bytes()), "a.t", unit);
        for (json, unit, ms) in [
            (r#"{"a":{"t":1700000000}}"#, Some(S), 1_700_000_000_000),
            (r#"{"a":{"t":1700000000.25}}"#, Some(S), 1_700_000_000_250),
            (r#"{"a":{"t":1700000000123}}"#, Some(Ms), 1_700_000_000_123),
            (r#"{"a":{"t":1700000000123999}}"#, Some(Us), 1_700_000_000_123),
            (r#"{"a":{"t":1700000000123999999}}"#, Some(Ns), 1_700_000_000_123),
            (r#"{"a":{"t":1700000000123}}"#, None, 1_700_000_000_123),
            (r#"{"a":{"t":"2023-11-14T22:13:20.5Z"}}"#, None, 1_700_000_000_500),
            (
                r#"{"a":{"t":"2023-11-15T00:13:20.5+02:00"}}"#,
                None,
                1_700_000_000_500,
            ),
        ] {
            assert_eq!(read(json, unit), Ok(ms), "{json}");
        }
        for (none, why) in [
            (r#"{"a":{"t":"soon"}}"#, "`soon` is no time"),
            (r#"{"a":{"t":"1769860810000"}}"#, "is no time"),
            (r#"{"a":1}"#, "nothing at `a.t`"),
            (r#"{"a":{"t":null}}"#, "nothing at `a.t`"),
            ("no json", "not JSON"),
            (r#"{"a":{"t":1e300}}"#, "no time"),
            (r#"{"a":{"t":9223372036854775807}}"#, "no time"),
            (r#"{"a":{"t":1700000000}}"#, "say what unit"),
            (r#"{"a":{"t":true}}"#, "neither"),
        ] {
            let error = read(none, None).unwrap_err();
            assert!(error.contains(why), "{none}: {error}");
        }
        assert_eq!(
            time_in(Some(br#"{"a.t":[1700000000123]}"#), "/a.t/0", None),
            Ok(1_700_000_000_123)
        );
    }

    #[test]
    fn a_record_whose_field_says_no_time_follows_the_policy() {
        let values = [&br#"{"t":1700000000123}"#[..], br#"{"t":"soon"}"#];
        let of = |on_bad_time| {
            let events = EventTime {
                field: Some("t".to_owned()),
                on_bad_time,
                ..EventTime::default()
            };
            let mut time = Time::from(Progress {
                now: 1_700_000_001_000,
                ..Progress::default()
            });
            let mut records = records(&[5, 1_700_000_000_900]);
            for (record, value) in records.iter_mut().zip(values) {
                record.value = Some(value);
            }
            let dated = time.date(&mut records, &events);
            time.follow(&records, &dated, &events);
            let times: Vec<_> = records.iter().map(|r| r.timestamp).collect();
            (times[1], dated.undated.len(), dated.bad, time.moment().watermark)
        };
        let (_, undated, bad, watermark) = of(OnBadTime::DeadLetter);
        assert_eq!((undated, bad, watermark), (1, 1, 1_700_000_000_123));
        let (at, undated, bad, _) = of(OnBadTime::Now);
        assert_eq!((at >= 1_700_000_001_000, undated, bad), (true, 0, 1));
        assert_eq!(
            of(OnBadTime::Record),
            (1_700_000_000_900, 0, 1, 1_700_000_000_900)
        );
    }
}
