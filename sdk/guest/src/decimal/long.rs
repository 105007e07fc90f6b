//! Decimal numbers with more digits than a [`Decimal`] holds, or with an exponent.

use super::Decimal;

/// The number `mantissa / 10^places`, with up to 38 digits. Slower than [`Decimal`], which suffices for most
/// numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongDecimal {
    mantissa: i128,
    places: u32,
}

/// Maximum decimal places: powers of ten that fit a mantissa.
const PLACES_MAX: u32 = 38;

impl From<Decimal> for LongDecimal {
    fn from(decimal: Decimal) -> Self {
        Self {
            mantissa: decimal.mantissa.into(),
            places: decimal.places,
        }
    }
}

impl From<u64> for LongDecimal {
    fn from(number: u64) -> Self {
        Self {
            mantissa: number.into(),
            places: 0,
        }
    }
}

impl From<i64> for LongDecimal {
    fn from(number: i64) -> Self {
        Self {
            mantissa: number.into(),
            places: 0,
        }
    }
}

impl LongDecimal {
    /// Parses a JSON number; `None` if the text is not a number or has too many digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (number, exponent) = match text.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let fraction = fraction.trim_end_matches('0');
        let mantissa: i128 = [whole, fraction].concat().parse().ok()?;
        let places = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
        match u32::try_from(places) {
            Ok(places) => (places <= PLACES_MAX).then_some(Self { mantissa, places }),
            Err(_) => Some(Self {
                mantissa: mantissa.checked_mul(10i128.checked_pow(places.unsigned_abs())?)?,
                places: 0,
            }),
        }
    }

    /// Returns `self * factor + offset`, exactly; `None` if the result has too many digits.
    pub fn scaled(self, factor: Decimal, offset: Decimal) -> Option<Self> {
        let product = Self {
            mantissa: self.mantissa.checked_mul(factor.mantissa.into())?,
            places: self.places + factor.places,
        };
        let offset = Self::from(offset);
        let places = product.places.max(offset.places);
        let mantissa = product.at(places)?.checked_add(offset.at(places)?)?;
        Some(Self { mantissa, places })
    }

    fn at(self, places: u32) -> Option<i128> {
        if places > PLACES_MAX {
            return None;
        }
        self.mantissa
            .checked_mul(10i128.checked_pow(places - self.places)?)
    }

    /// Appends the number as text, without trailing zeros of the fraction.
    pub fn write(self, out: &mut Vec<u8>) {
        let places = self.places as usize;
        let digits = format!("{:0>width$}", self.mantissa.unsigned_abs(), width = places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        let fraction = fraction.trim_end_matches('0');
        if self.mantissa < 0 {
            out.push(b'-');
        }
        out.extend_from_slice(whole.as_bytes());
        if !fraction.is_empty() {
            out.push(b'.');
            out.extend_from_slice(fraction.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scaled(text: &str, factor: f64, offset: f64) -> Option<String> {
        let mut out = Vec::new();
        LongDecimal::parse(text.as_bytes())?
            .scaled(Decimal::of(factor)?, Decimal::of(offset)?)?
            .write(&mut out);
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn long_numbers_and_exponents_are_scaled_exactly() {
        for (text, factor, offset, want) in [
            ("5.73e2", 0.1, 0.0, "57.3"),
            ("573E-1", 0.1, 0.0, "5.73"),
            ("-1.5e+3", 0.001, 0.0, "-1.5"),
            ("123456789012345678", 0.1, 0.0, "12345678901234567.8"),
            ("-18446744073709551615", 0.01, 1.0, "-184467440737095515.15"),
            ("0e5", 2.0, 0.0, "0"),
            ("-0.5e-3", 1.0, 0.0, "-0.0005"),
            ("1.10", 1.0, 0.0, "1.1"),
        ] {
            assert_eq!(scaled(text, factor, offset).as_deref(), Some(want), "{text}");
        }
        for text in [
            "1e39",
            "1e-39",
            "1e99999999999",
            "",
            "-",
            ".",
            "e",
            "1e",
            "1e2.5",
            "nan",
            "1.-5",
            "1.2.3",
        ] {
            assert_eq!(scaled(text, 1.0, 0.0), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "-?[0-9.eE+-]{0,44}") {
            let _ = scaled(&text, 1.5, 1e-17);
        }

        #[test]
        fn what_both_have_room_for_is_the_same(mantissa in -10_000_000_000i64..10_000_000_000, places in 0..9u32, factor in -1_000..1_000i32) {
            let short = Decimal { mantissa, places };
            let factor = Decimal::of(f64::from(factor) / 100.0).unwrap();
            let offset = Decimal::of(0.25).unwrap();
            let (mut one, mut other) = (Vec::new(), Vec::new());
            short.scaled(factor, offset).unwrap().write(&mut one);
            LongDecimal::from(short).scaled(factor, offset).unwrap().write(&mut other);
            prop_assert_eq!(one, other);
        }
    }
}
