//! Decimal numbers: 57.3 scaled by 0.1 is 5.73, not 5.7299999999999995.

mod long;

pub use long::LongDecimal;

/// The number `mantissa / 10^places`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    mantissa: i64,
    places: u32,
}

/// Length of a text (digits and point) whose mantissa always fits, with room for an addition.
const TEXT_BYTES_MAX: usize = 17;
/// Maximum decimal places: powers of ten that fit a mantissa.
const PLACES_MAX: u32 = 18;

impl From<i64> for Decimal {
    fn from(mantissa: i64) -> Self {
        Self { mantissa, places: 0 }
    }
}

impl Decimal {
    /// Parses a short number without an exponent. Accepts leading zeros, which JSON does not allow.
    #[inline]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (negative, digits) = match text.split_first()? {
            (b'-', rest) => (true, rest),
            _ => (false, text),
        };
        if digits.len() > TEXT_BYTES_MAX || !digits.first()?.is_ascii_digit() {
            return None;
        }
        let (mut mantissa, mut places, mut point) = (0i64, 0, 0);
        for b in digits {
            match b {
                b'0'..=b'9' => {
                    mantissa = mantissa * 10 + i64::from(b - b'0');
                    places += point;
                }
                b'.' if point == 0 => point = 1,
                _ => return None,
            }
        }
        let mantissa = if negative { -mantissa } else { mantissa };
        Some(Self { mantissa, places })
    }

    /// Returns the shortest decimal that reads as `number`; `None` if it has too many digits.
    pub fn of(number: f64) -> Option<Self> {
        Self::parse(number.to_string().as_bytes())
    }

    /// Returns `self * factor + offset`, exactly; `None` if the result has too many digits.
    #[inline]
    pub fn scaled(self, factor: Self, offset: Self) -> Option<Self> {
        let product = Self {
            mantissa: self.mantissa.checked_mul(factor.mantissa)?,
            places: self.places + factor.places,
        };
        if offset.mantissa == 0 {
            return (product.places <= PLACES_MAX).then_some(product);
        }
        let places = product.places.max(offset.places);
        let mantissa = product.at(places)?.checked_add(offset.at(places)?)?;
        Some(Self { mantissa, places })
    }

    fn at(self, places: u32) -> Option<i64> {
        if places > PLACES_MAX {
            return None;
        }
        self.mantissa
            .checked_mul(10i64.checked_pow(places - self.places)?)
    }

    /// Appends the number as text, without trailing zeros of the fraction.
    #[inline]
    pub fn write(self, out: &mut Vec<u8>) {
        let mut rest = self.mantissa.unsigned_abs();
        // 19 digits, a point, and up to as many leading zeros as places.
        let mut text = [0u8; 48];
        let mut at = text.len();
        let mut significant = self.places == 0;
        for left in (0..self.places).rev() {
            let digit = last_digit(&mut rest);
            significant |= digit != 0;
            if significant {
                at -= 1;
                text[at] = b'0' + digit;
                if left == 0 {
                    at -= 1;
                    text[at] = b'.';
                }
            }
        }
        loop {
            at -= 1;
            text[at] = b'0' + last_digit(&mut rest);
            if rest == 0 {
                break;
            }
        }
        if self.mantissa < 0 {
            at -= 1;
            text[at] = b'-';
        }
        out.extend_from_slice(&text[at..]);
    }

    /// Returns the value of a whole number; `None` for a fraction.
    pub fn whole(self) -> Option<i64> {
        let one = 10i64.checked_pow(self.places)?;
        (self.mantissa % one == 0).then(|| self.mantissa / one)
    }

    /// Returns the nearest double.
    pub fn to_f64(self) -> Option<f64> {
        let mut text = Vec::new();
        self.write(&mut text);
        std::str::from_utf8(&text).ok()?.parse().ok()
    }
}

/// Removes and returns the last digit. Division of 32 bits by ten compiles to a multiplication; WebAssembly
/// has no such multiplication for 64 bits.
#[inline]
fn last_digit(rest: &mut u64) -> u8 {
    match u32::try_from(*rest) {
        Ok(small) => {
            *rest = u64::from(small / 10);
            (small % 10) as u8
        }
        Err(_) => {
            let digit = (*rest % 10) as u8;
            *rest /= 10;
            digit
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled(text: &str, factor: f64, offset: f64) -> Option<String> {
        let number = Decimal::parse(text.as_bytes())?;
        let mut out = Vec::new();
        number
            .scaled(Decimal::of(factor)?, Decimal::of(offset)?)?
            .write(&mut out);
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn scaling_is_exact() {
        let want = |text: &str| Some(text.to_owned());
        assert_eq!(scaled("57.3", 0.1, 0.0), want("5.73"));
        assert_eq!(scaled("21.5", 1.8, 32.0), want("70.7"));
        assert_eq!(scaled("-40", 1.8, 32.0), want("-40"));
        assert_eq!(scaled("0.05", 0.1, 0.0), want("0.005"));
        assert_eq!(scaled("-0.5", 0.01, 0.0), want("-0.005"));
        assert_eq!(scaled("100", 0.01, 0.0), want("1"));
        assert_eq!(scaled("0", 3.0, 0.0), want("0"));
        assert_eq!(scaled("12345678901", 10.0, 0.5), want("123456789010.5"));
        assert_eq!(scaled("20", 1.0, 273.15), want("293.15"));
    }

    #[test]
    fn what_has_too_many_digits_is_left_to_doubles() {
        assert_eq!(scaled("123456789012345678", 1.0, 0.0), None);
        assert_eq!(scaled("99999999999999999", 1000.0, 0.0), None);
        assert_eq!(scaled("1", 1.0 / 1.8, 0.0), None);
        assert_eq!(scaled("0.000000001", 1e-10, 0.0), None);
        for text in ["", "-", "1e3", "1.2.3", ".5", "+1", "nan", "0x1"] {
            assert_eq!(Decimal::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn any_short_decimal_reads_as_the_double_that_it_is() {
        let mut state = 7u64;
        for _ in 0..10_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let decimal = Decimal {
                mantissa: (state >> 20) as i64 % 1_000_000_000_000 - 500_000_000_000,
                places: (state % 13) as u32,
            };
            let number = decimal.to_f64().unwrap();
            assert_eq!(Decimal::of(number).unwrap().to_f64(), Some(number));
            let divided = decimal.mantissa as f64 / 10f64.powi(decimal.places as i32);
            assert_eq!(number, divided);
        }
    }
}
