//! Numbers from registers and frames, written as their shortest text.

use crate::JsonNumber;
use crate::decimal::{Decimal, LongDecimal};
use std::io::Write;

/// A raw number from a register or a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Raw {
    /// Unsigned integer.
    Unsigned(u64),
    /// Signed integer.
    Signed(i64),
    /// IEEE 754 of 16 bits.
    Half(u16),
    /// IEEE 754 of 32 bits.
    Single(f32),
    /// IEEE 754 of 64 bits.
    Double(f64),
}

/// The scaling `raw · factor + offset`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    factor: f64,
    offset: f64,
    /// Factor and offset as decimals, if both are short.
    decimal: Option<(Decimal, Decimal)>,
}

impl Scaling {
    /// The identity.
    pub const NONE: Self = Self {
        factor: 1.0,
        offset: 0.0,
        decimal: None,
    };

    /// Makes a scaling.
    ///
    /// # Errors
    /// If the factor or the offset is not finite.
    pub fn new(factor: f64, offset: f64) -> Result<Self, String> {
        if !factor.is_finite() || !offset.is_finite() {
            return Err(format!(
                "scale {factor} and offset {offset} must be finite numbers"
            ));
        }
        Ok(Self {
            factor,
            offset,
            decimal: Decimal::of(factor).zip(Decimal::of(offset)),
        })
    }

    /// Appends the scaled number as JSON. Whole numbers keep all digits, 32-bit floats are written as the
    /// shortest text that is that float, and scaled numbers are decimal (573 by 0.1 is 57.3). Numbers that
    /// are not finite are written as `null`.
    pub fn write(&self, raw: Raw, to: &mut Vec<u8>) {
        let written = match (self.is_none(), raw) {
            (true, Raw::Unsigned(n)) => write!(to, "{n}"),
            (true, Raw::Signed(n)) => write!(to, "{n}"),
            (true, Raw::Half(bits)) => match half(bits) {
                n if n.is_finite() => write!(to, "{}", JsonNumber(shortest_half(bits))),
                _ => write!(to, "null"),
            },
            (true, Raw::Single(n)) => match n {
                _ if !n.is_finite() => write!(to, "null"),
                _ if crate::json::is_long(f64::from(n)) => write!(to, "{n:e}"),
                _ => write!(to, "{n}"),
            },
            (true, Raw::Double(n)) => write!(to, "{}", JsonNumber(n)),
            (false, raw) => {
                if let Some(decimal) = self.exact(raw) {
                    return decimal.write(to);
                }
                if let Some(decimal) = self.exact_long(raw) {
                    return decimal.write(to);
                }
                write!(to, "{}", JsonNumber(double(raw) * self.factor + self.offset))
            }
        };
        // Writing into a vector cannot fail.
        let _ = written;
    }

    fn is_none(&self) -> bool {
        self.factor == 1.0 && self.offset == 0.0
    }

    fn exact(&self, raw: Raw) -> Option<Decimal> {
        let (factor, offset) = self.decimal?;
        let decimal = match raw {
            Raw::Unsigned(n) => Decimal::from(i64::try_from(n).ok()?),
            Raw::Signed(n) => Decimal::from(n),
            Raw::Half(bits) => Decimal::of(shortest_half(bits))?,
            Raw::Single(n) => Decimal::parse(n.to_string().as_bytes())?,
            Raw::Double(n) => Decimal::of(n)?,
        };
        decimal.scaled(factor, offset)
    }

    /// Scales whole numbers, which have up to 20 digits, exactly.
    fn exact_long(&self, raw: Raw) -> Option<LongDecimal> {
        let (factor, offset) = self.decimal?;
        let decimal = match raw {
            Raw::Unsigned(n) => LongDecimal::from(n),
            Raw::Signed(n) => LongDecimal::from(n),
            Raw::Half(_) | Raw::Single(_) | Raw::Double(_) => return None,
        };
        decimal.scaled(factor, offset)
    }
}

fn double(raw: Raw) -> f64 {
    match raw {
        Raw::Unsigned(n) => n as f64,
        Raw::Signed(n) => n as f64,
        Raw::Half(bits) => f64::from(half(bits)),
        Raw::Single(n) => f64::from(n),
        Raw::Double(n) => n,
    }
}

/// Returns the number with the fewest digits that is nearer to the half `bits` than to any other half.
fn shortest_half(bits: u16) -> f64 {
    let number = f64::from(half(bits & 0x7fff));
    // Five digits distinguish all halves: a half has eleven bits.
    let near = |digits: usize| -> Option<f64> {
        let text = format!("{number:.digits$e}");
        let short: f64 = text.parse().ok()?;
        let below = f64::from(half((bits & 0x7fff).saturating_sub(1)));
        let above = f64::from(half((bits & 0x7fff) + 1));
        // The greatest half has no successor.
        let between = match short > number && above.is_finite() {
            true => (above - number) / 2.0,
            false => (number - below) / 2.0,
        };
        ((short - number).abs() < between || short == number).then_some(short)
    };
    let short = (0..5).find_map(near).unwrap_or(number);
    if bits >> 15 == 1 { -short } else { short }
}

/// Converts 16 bits to the number they encode (IEEE 754 binary16).
pub fn half(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1_024.0) * 2f32.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -size } else { size }
}

/// Returns the 16 bits that encode `number` (IEEE 754 binary16), if exact.
pub fn half_of(number: f32) -> Option<u16> {
    let bits = number.to_bits();
    let (sign, fraction) = ((bits >> 16 & 0x8000) as u16, bits & 0x7f_ffff);
    let exponent = (bits >> 23 & 0xff) as i32 - 127;
    let size = match exponent {
        -127 if fraction == 0 => 0,
        -14..=15 if fraction.trailing_zeros() >= 13 => ((exponent + 15) as u32) << 10 | fraction >> 13,
        -24..=-15 => {
            let (mantissa, lost) = (fraction | 0x80_0000, -1 - exponent);
            (mantissa.trailing_zeros() as i32 >= lost).then(|| mantissa >> lost)?
        }
        _ => return None,
    };
    Some(sign | size as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(raw: Raw, factor: f64, offset: f64) -> String {
        let mut to = Vec::new();
        Scaling::new(factor, offset).unwrap().write(raw, &mut to);
        String::from_utf8(to).unwrap()
    }

    #[test]
    fn each_number_is_the_shortest_text_that_is_it() {
        for (raw, factor, offset, want) in [
            (Raw::Unsigned(u64::MAX), 1.0, 0.0, "18446744073709551615"),
            (Raw::Signed(i64::MIN), 1.0, 0.0, "-9223372036854775808"),
            (Raw::Single(21.3), 1.0, 0.0, "21.3"),
            (Raw::Double(21.3), 1.0, 0.0, "21.3"),
            (Raw::Unsigned(573), 0.1, 0.0, "57.3"),
            (Raw::Unsigned(302), 0.1, 0.0, "30.2"),
            (Raw::Signed(-40), 0.5, -40.0, "-60"),
            (Raw::Unsigned(u64::MAX), 0.1, 0.0, "1844674407370955161.5"),
            (Raw::Signed(i64::MIN), 10.0, -0.5, "-92233720368547758080.5"),
            (Raw::Single(21.3), 0.1, 0.0, "2.13"),
            (Raw::Unsigned(3), 1.0 / 3.0, 0.0, "1"),
            (Raw::Half(0x2e66), 1.0, 0.0, "0.1"),
            (Raw::Half(0xae66), 1.0, 0.0, "-0.1"),
            (Raw::Half(0x7bff), 1.0, 0.0, "65500"),
            (Raw::Half(0x3c00), 0.1, 0.0, "0.1"),
            (Raw::Half(0x0001), 1.0, 0.0, "6e-8"),
            (Raw::Half(0x7c00), 1.0, 0.0, "null"),
            (Raw::Single(1e30), 1.0, 0.0, "1e30"),
            (Raw::Double(-2.5e-300), 1.0, 0.0, "-2.5e-300"),
            (Raw::Double(1e16), 1.0, 0.0, "10000000000000000"),
            (Raw::Single(f32::NAN), 1.0, 0.0, "null"),
            (Raw::Double(f64::INFINITY), 2.0, 0.0, "null"),
        ] {
            assert_eq!(text(raw, factor, offset), want, "{raw:?}");
        }
    }

    #[test]
    fn halves_are_what_they_are() {
        for (bits, want) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65_504.0),
            (0x0001, 2f32.powi(-24)),
            (0x8000, -0.0),
        ] {
            assert_eq!(half(bits), want, "{bits:x}");
        }
        assert!(half(0x7c00).is_infinite() && half(0x7e00).is_nan());
        for bits in (0..0x7c00).chain(0x8000..0xfc00) {
            assert_eq!(half_of(half(bits)), Some(bits), "{bits:x}");
        }
        for number in [21.3, 65_536.0, 2f32.powi(-25), f32::MAX, f32::INFINITY, 1.000_1] {
            assert_eq!(half_of(number), None, "{number}");
        }
    }
}
