//! Scaling of numbers: `y = x * factor + offset`.

use std::io::Write;
use weir_sdk::decimal::{Decimal, LongDecimal};
use weir_sdk::prelude::*;

/// The scaling of a field.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    pub(crate) field: String,
    pub(crate) path: Path,
    factor: f64,
    offset: f64,
    /// Factor and offset as decimals, if both are short.
    decimal: Option<(Decimal, Decimal)>,
}

/// A scaled number.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scaled {
    Exact(Decimal),
    Long(LongDecimal),
    Double(f64),
}

impl Scale {
    pub(crate) fn new(field: String, factor: f64, offset: f64) -> Result<Self, String> {
        Ok(Self {
            path: Path::read(&field)?,
            field,
            factor,
            offset,
            decimal: Decimal::of(factor).zip(Decimal::of(offset)),
        })
    }

    /// Scales the number `text`.
    #[inline]
    pub(crate) fn number(&self, text: &[u8]) -> Result<Scaled, String> {
        if let Some(exact) = self.exact(text) {
            return Ok(Scaled::Exact(exact));
        }
        if let Some(exact) = self.exact_long(text) {
            return Ok(Scaled::Long(exact));
        }
        let number = std::str::from_utf8(text).ok().and_then(|t| t.parse::<f64>().ok());
        match number.map(|n| n * self.factor + self.offset) {
            Some(scaled) if scaled.is_finite() => Ok(Scaled::Double(scaled)),
            _ => Err(format!("`{}` does not scale to a finite number", self.field)),
        }
    }

    #[inline]
    fn exact(&self, text: &[u8]) -> Option<Decimal> {
        let (factor, offset) = self.decimal?;
        Decimal::parse(text)?.scaled(factor, offset)
    }

    #[cold]
    fn exact_long(&self, text: &[u8]) -> Option<LongDecimal> {
        let (factor, offset) = self.decimal?;
        LongDecimal::parse(text)?.scaled(factor, offset)
    }

    /// Returns the reason for a field that is not a number.
    #[cold]
    pub(crate) fn is_no_number(&self) -> String {
        format!("`{}` is not a number and cannot be scaled", self.field)
    }
}

impl Scaled {
    pub(crate) fn write(self, out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Exact(decimal) => {
                decimal.write(out);
                Ok(())
            }
            Self::Long(decimal) => {
                decimal.write(out);
                Ok(())
            }
            Self::Double(number) => write!(out, "{number}").map_err(|e| e.to_string()),
        }
    }
}
