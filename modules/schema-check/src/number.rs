//! Numbers compared by value, with any notation and any number of digits.

use std::cmp::Ordering;

/// A number: `digits` times ten to the power of `exponent`.
#[derive(Clone, Debug)]
pub(crate) struct Number {
    text: Box<str>,
    is_negative: bool,
    /// The digits without zeros at either end; empty for zero.
    digits: Box<str>,
    exponent: i64,
}

/// Exponents further from zero are treated as equal.
const EXPONENT_MAX: i64 = 1 << 40;
/// Maximum digits of the divisor in `multipleOf`: the product of two remainders fits 128 bits.
const DIVISOR_DIGITS_MAX: usize = 18;

impl Number {
    /// Parses the text of a JSON number.
    pub(crate) fn parse(text: &str) -> Self {
        let size = text.trim_start_matches('-');
        let (mantissa, exponent) = match size.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent_of(exponent)),
            None => (size, 0),
        };
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = [whole, part].concat();
        let digits = digits.trim_start_matches('0');
        let stripped = digits.trim_end_matches('0');
        let zeros = (digits.len() - stripped.len()) as i64;
        Self {
            text: text.into(),
            is_negative: text.starts_with('-') && !stripped.is_empty(),
            digits: stripped.into(),
            exponent: match stripped.is_empty() {
                true => 0,
                false => exponent - part.len() as i64 + zeros,
            },
        }
    }

    fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    /// Returns true for whole numbers, in any notation.
    pub(crate) fn is_whole(&self) -> bool {
        self.exponent >= 0
    }

    /// Returns true for numbers above zero.
    pub(crate) fn is_positive(&self) -> bool {
        !self.is_negative && !self.is_zero()
    }

    /// Returns the value if it is whole and fits.
    pub(crate) fn as_u64(&self) -> Option<u64> {
        if self.is_zero() {
            return Some(0);
        }
        let power = u32::try_from(self.exponent).ok().filter(|_| !self.is_negative)?;
        self.digits
            .parse::<u64>()
            .ok()?
            .checked_mul(10u64.checked_pow(power)?)
    }

    pub(crate) fn cmp(&self, other: &Self) -> Ordering {
        let sign = |n: &Self| match (n.is_zero(), n.is_negative) {
            (true, _) => 0,
            (_, true) => -1,
            (_, false) => 1,
        };
        let size = |n: &Self| n.exponent + n.digits.len() as i64;
        let by_size = || {
            size(self)
                .cmp(&size(other))
                .then_with(|| self.digits.cmp(&other.digits))
        };
        sign(self).cmp(&sign(other)).then_with(|| match sign(self) {
            0 => Ordering::Equal,
            1 => by_size(),
            _ => by_size().reverse(),
        })
    }

    /// Returns true if the number can serve as a divisor.
    pub(crate) fn is_divisor(&self) -> bool {
        self.is_positive() && self.digits.len() <= DIVISOR_DIGITS_MAX
    }

    /// Returns true if the number is a multiple of `unit`, which [`Number::is_divisor`].
    pub(crate) fn is_multiple(&self, unit: &Self) -> bool {
        if self.is_zero() {
            return true;
        }
        let (Ok(by), Ok(shift)) = (
            unit.digits.parse::<u128>(),
            u64::try_from(self.exponent - unit.exponent),
        ) else {
            // The number has more decimal places than the unit, and does not end in zero.
            return false;
        };
        let digits = self.digits.bytes().map(|digit| u128::from(digit - b'0'));
        let rest = digits.fold(0, |rest, digit| (rest * 10 + digit) % by);
        (rest * power_of_ten(shift, by)).is_multiple_of(by)
    }
}

/// Returns ten to the power of `exponent`, modulo `by`.
fn power_of_ten(mut exponent: u64, by: u128) -> u128 {
    let (mut power, mut square) = (1 % by, 10 % by);
    while exponent > 0 {
        if exponent & 1 == 1 {
            power = power * square % by;
        }
        square = square * square % by;
        exponent >>= 1;
    }
    power
}

fn exponent_of(text: &str) -> i64 {
    let bound = match text.starts_with('-') {
        true => -EXPONENT_MAX,
        false => EXPONENT_MAX,
    };
    let exponent = text.strip_prefix('+').unwrap_or(text).parse().unwrap_or(bound);
    i64::clamp(exponent, -EXPONENT_MAX, EXPONENT_MAX)
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}
