//! Times as people and machines write them, in milliseconds since 1970.
//!
//! A single reader for the command line, pipelines and modules: RFC 3339 with every offset and any number of
//! digits of a second, dates, and numbers with a unit. Anything else is an error, never a guess.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use serde::{Deserialize, Serialize};

/// The unit of a number that counts from 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl TimeUnit {
    /// Returns the unit's name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::S => "s",
            Self::Ms => "ms",
            Self::Us => "us",
            Self::Ns => "ns",
        }
    }

    /// Returns the power of ten that leads to milliseconds.
    fn to_ms(self) -> i32 {
        match self {
            Self::S => 3,
            Self::Ms => 0,
            Self::Us => -3,
            Self::Ns => -6,
        }
    }
}

/// A text or number that is not a time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// A text that is not a time.
    #[error(
        "`{0}` is no time: write it as 2026-01-31T12:00:00Z, with an offset as +01:00 in place of the Z, or as a date"
    )]
    Text(String),
    /// A number that is not a time.
    #[error("{number} {} since 1970 are no time: years go from -9999 to 9999", unit.name())]
    Number {
        /// The number as written.
        number: String,
        /// Unit of the number.
        unit: TimeUnit,
    },
    /// A number without a unit that is unlikely to be milliseconds.
    #[error("{number} milliseconds since 1970 would be in {year}: say what unit it is in")]
    Unlikely {
        /// The number as written.
        number: String,
        /// Year of the number in milliseconds.
        year: i16,
    },
}

/// Characters of the text that an error shows.
const SHOWN_CHARS: usize = 60;

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

/// Parses `text` as milliseconds since 1970: RFC 3339, also with a space for the `T` and without an offset
/// (UTC), or a date. Parts of a millisecond are cut.
///
/// # Errors
/// Fails when the text is not a time.
pub fn parse_time(text: &str) -> Result<i64, TimeError> {
    let no_time = || TimeError::Text(shown(text));
    let plain = cut_fraction(text.trim());
    // Names of time zones in brackets are not supported; the part after `T` tells whether there is an offset.
    let (_, behind_date) = plain.split_at_checked("2026-01-31".len()).ok_or_else(no_time)?;
    let (_, offset) = behind_date.split_once(['+', '-']).unwrap_or_default();
    let is_beyond_a_day = offset.get(..2).is_some_and(|hours| hours > "23");
    if !plain.is_ascii() || plain.contains('[') || is_beyond_a_day {
        return Err(no_time());
    }
    let time = match behind_date.contains(['Z', 'z', '+', '-']) {
        true => plain.parse::<Timestamp>().ok(),
        // Without an offset, the result would depend on the reader's place.
        false => plain
            .parse::<DateTime>()
            .ok()
            .and_then(|time| Offset::UTC.to_timestamp(time).ok()),
    };
    time.map(millis).ok_or_else(no_time)
}

/// Cuts digits of a second beyond nanoseconds, which no clock here has.
fn cut_fraction(text: &str) -> String {
    let Some((whole, fraction)) = text.split_once(['.', ',']) else {
        return text.to_owned();
    };
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = fraction.split_at(digits);
    format!("{whole}.{}{rest}", digits.get(..9).unwrap_or(digits))
}

fn millis(time: Timestamp) -> i64 {
    time.as_nanosecond().div_euclid(1_000_000) as i64
}

/// Converts the number `text`, as JSON writes it, from `unit` to milliseconds since 1970, exact to the digit.
/// Parts of a millisecond are cut. Without a unit the number is milliseconds, if that is a time from 1971 to
/// 2199.
///
/// # Errors
/// Fails for anything but a number, for a time beyond the calendar, and for an unlikely number without a
/// unit.
pub fn time_of_number(text: &str, unit: Option<TimeUnit>) -> Result<i64, TimeError> {
    let of = unit.unwrap_or(TimeUnit::Ms);
    let no_time = || TimeError::Number {
        number: shown(text),
        unit: of,
    };
    let ms = scaled(text, of.to_ms()).ok_or_else(no_time)?;
    let time = Timestamp::from_millisecond(ms).map_err(|_| no_time())?;
    let year = Offset::UTC.to_datetime(time).year();
    match unit {
        None if !LIKELY_YEARS.contains(&year) => Err(TimeError::Unlikely {
            number: shown(text),
            year,
        }),
        _ => Ok(ms),
    }
}

/// Seconds read as milliseconds are in 1970 until the year 2968, and microseconds beyond 9999.
const LIKELY_YEARS: std::ops::Range<i16> = 1971..2200;
/// Longest number of digits of a time.
const DIGITS_MAX: usize = 30;

/// Returns the decimal `text` times ten to the `power`, rounded down.
fn scaled(text: &str, power: i32) -> Option<i64> {
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (is_negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || whole.len() + fraction.len() > DIGITS_MAX {
        return None;
    }
    let mut digits = 0i128;
    for digit in whole.bytes().chain(fraction.bytes()) {
        digits = digits * 10 + i128::from(char::from(digit).to_digit(10)?);
    }
    if is_negative {
        digits = -digits;
    }
    let power = i64::from(exponent) + i64::from(power) - fraction.len() as i64;
    let ten = 10i128.checked_pow(u32::try_from(power.unsigned_abs()).ok()?);
    let scaled = match (power >= 0, ten) {
        (_, _) if digits == 0 => 0,
        (true, Some(ten)) => digits.checked_mul(ten)?,
        (true, None) => return None,
        (false, Some(ten)) => digits.div_euclid(ten),
        (false, None) => -i128::from(is_negative),
    };
    i64::try_from(scaled).ok()
}

/// Formats the time in RFC 3339, to the millisecond; a number beyond the calendar as digits.
pub fn format_time(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => ms.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_as_rfc_3339_has_them() {
        let noon = 1_769_860_810_000; // 2026-01-31T12:00:10Z
        for (text, ms) in [
            ("2026-01-31T12:00:10Z", noon),
            ("2026-01-31t12:00:10z", noon),
            ("2026-01-31 12:00:10Z", noon),
            ("2026-01-31T14:00:10.5+02:00", noon + 500),
            ("2026-01-31T13:00:10+01:00", noon),
            ("2026-01-31T04:00:10-08:00", noon),
            ("2026-01-31T17:45:10+05:45", noon),
            ("2026-01-31T12:00:10.9999999999999999Z", noon + 999),
            ("2026-01-31T12:00:10.001000000000Z", noon + 1),
            ("2026-01-31T12:00:10", noon),
            ("2026-01-31 12:00:10.25", noon + 250),
            ("2026-01-31T12:00Z", noon - 10_000),
            ("2026-01-31", noon - 43_210_000),
            (" 2026-01-31T12:00:10Z ", noon),
            ("1969-12-31T23:59:59.9995Z", -1),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000),
            ("9999-12-30T00:00:00Z", 253_402_128_000_000),
        ] {
            assert_eq!(parse_time(text), Ok(ms), "{text}");
        }
        for text in [
            "",
            "soon",
            "1769860810000",
            "2026-13-01",
            "2026-02-30",
            "2026-01-31T25:00:00Z",
            "2026-01-31T12:00:10+25:00",
            "2026-01-31T12:00:10Zulu",
            "2026-01-31T12:00:10[Europe/Berlin]",
            "2026-01-31T12:00:10+01:00[Europe/Berlin]",
            "31.01.2026",
            "2026-01-31T12:00:10é",
            "2026-1-31",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_read_to_the_digit() {
        use TimeUnit::{Ms, Ns, S, Us};
        for (text, unit, ms) in [
            ("1700000000", S, 1_700_000_000_000),
            ("1700000000.25", S, 1_700_000_000_250),
            ("1.70000000025e9", S, 1_700_000_000_250),
            ("1700000000123", Ms, 1_700_000_000_123),
            ("1700000000123999", Us, 1_700_000_000_123),
            ("1700000000123999999", Ns, 1_700_000_000_123),
            ("0", S, 0),
            ("-1", Us, -1),
            ("-0.0", S, 0),
            ("1e-400", S, 0),
            ("-1e-400", S, -1),
            ("0e400", S, 0),
        ] {
            assert_eq!(time_of_number(text, Some(unit)), Ok(ms), "{text}");
        }
        for text in [
            "",
            "-",
            "1e",
            "1e400",
            "9223372036854775807",
            "soon",
            "1_000",
            "+1",
            "NaN",
        ] {
            assert!(time_of_number(text, Some(Ms)).is_err(), "{text}");
        }
        assert_eq!(time_of_number("1700000000123", None), Ok(1_700_000_000_123));
        for (text, year) in [("1700000000", "1970"), ("170000000000000", "7357"), ("5", "1970")] {
            let error = time_of_number(text, None).unwrap_err().to_string();
            assert!(error.contains(year) && error.contains("unit"), "{error}");
        }
        assert!(time_of_number("1700000000123999999", None).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(ms in -377_000_000_000_000i64..253_000_000_000_000) {
            prop_assume!(ms > -62_000_000_000_000);
            prop_assert_eq!(parse_time(&format_time(ms)), Ok(ms));
            prop_assert_eq!(time_of_number(&ms.to_string(), Some(TimeUnit::Ms)), Ok(ms));
        }

        #[test]
        fn nothing_makes_it_panic(text in "\\PC{0,40}", number in "[-+0-9.eE]{0,50}") {
            let _ = parse_time(&text);
            let _ = time_of_number(&number, Some(TimeUnit::Ns));
            let _ = time_of_number(&number, None);
        }
    }
}
