//! Numbers by their values, and so the order of all JSON: whatever they are written as, and without rounding.

use serde_json::{Map, Number, Value};
use std::cmp::Ordering;

/// A number: whole ones exactly, others as the floating-point numbers that they are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Real {
    Whole(i128),
    /// Is not whole, or further from zero than any that is written as one.
    Other(f64),
}

impl Real {
    pub(crate) fn of(number: &Number) -> Self {
        let whole = number.as_i64().map(i128::from);
        let whole = whole.or_else(|| number.as_u64().map(i128::from));
        match (whole, number.as_f64()) {
            (Some(whole), _) => Self::Whole(whole),
            // Exact: such a number is whole, and an `i128` holds more.
            (None, Some(real)) if real.fract() == 0.0 && real.abs() < 1e30 => Self::Whole(real as i128),
            (None, real) => Self::Other(real.unwrap_or(0.0)),
        }
    }

    pub(crate) fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => a.cmp(b),
            (Self::Other(a), Self::Other(b)) => a.total_cmp(b),
            (Self::Whole(a), Self::Other(b)) => against(*a, *b),
            (Self::Other(a), Self::Whole(b)) => against(*b, *a).reverse(),
        }
    }
}

/// A whole number against one that is none, or is further from zero.
fn against(whole: i128, real: f64) -> Ordering {
    // Saturates, which is right for those that are further from zero.
    if whole <= real.floor() as i128 {
        Ordering::Less
    } else {
        Ordering::Greater
    }
}

/// Puts all JSON in one order, in which those are equal that JSON Schema calls the same.
pub(crate) fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => Real::of(a).cmp(&Real::of(b)),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let items = a.iter().zip(b).map(|(a, b)| order(a, b));
            a.len().cmp(&b.len()).then_with(|| first_other(items))
        }
        (Value::Object(a), Value::Object(b)) => {
            let (a, b) = (by_name(a), by_name(b));
            let fields = a.iter().zip(&b);
            let fields = fields.map(|((n, a), (m, b))| n.cmp(m).then_with(|| order(a, b)));
            a.len().cmp(&b.len()).then_with(|| first_other(fields))
        }
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

fn first_other(mut orders: impl Iterator<Item = Ordering>) -> Ordering {
    orders.find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
}

fn by_name(fields: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_by_key(|(name, _)| *name);
    fields
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

/// A number as people write it: `digits` times ten to the power of `exponent`, without a sign.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decimal {
    digits: u128,
    exponent: i32,
}

impl Decimal {
    /// The shortest that means `number`: what was written, if that had no more digits than a floating-point number keeps.
    pub(crate) fn of(number: &Number) -> Self {
        let whole = number.as_i64().map(i64::unsigned_abs);
        if let Some(digits) = whole.or_else(|| number.as_u64()) {
            return Self {
                digits: digits.into(),
                exponent: 0,
            };
        }
        let text = format!("{:e}", number.as_f64().unwrap_or(0.0).abs());
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        Self {
            digits: format!("{whole}{part}").parse().unwrap_or(0),
            exponent: exponent.parse::<i32>().unwrap_or(0) - part.len() as i32,
        }
    }
}

/// Whether `a` is a whole number of `b`, which is not 0.
pub(crate) fn is_multiple(a: Decimal, b: Decimal) -> bool {
    let shift = a.exponent - b.exponent;
    if a.digits == 0 || shift < 0 {
        // `b` in the unit of `a`; where there is no such number it is larger than any `a`.
        let larger = 10_u128
            .checked_pow(shift.unsigned_abs())
            .and_then(|p| p.checked_mul(b.digits));
        return a.digits == 0 || larger.is_some_and(|b| a.digits.is_multiple_of(b));
    }
    // All that tens have in common with `b` may be taken out of it, and what is left has to be in `a`.
    let mut rest = b.digits;
    for _ in 0..shift {
        let common = common(rest, 10);
        if common == 1 {
            break;
        }
        rest /= common;
    }
    a.digits.is_multiple_of(rest)
}

/// The greatest common divisor (Euclid).
fn common(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { common(b, a % b) }
}
