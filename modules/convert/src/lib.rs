//! Renames, scales, converts and projects fields; JSON to CBOR and back. See README.md.

use serde_json::{Map, Number, Value};
use std::io::Write;
use weir_sdk::decimal::Decimal;
use weir_sdk::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Cbor,
}

/// `y = x * factor + offset`.
#[derive(Clone, Debug)]
struct Scale {
    field: String,
    path: Path,
    factor: f64,
    offset: f64,
    /// Both as decimals, where they are short ones.
    decimal: Option<(Decimal, Decimal)>,
}

/// A number that was scaled.
#[derive(Clone, Copy, Debug)]
enum Scaled {
    Exact(Decimal),
    Double(f64),
}

/// The module.
#[derive(Debug)]
pub struct Convert {
    from: Format,
    to: Format,
    scale: Vec<Scale>,
    rename: Vec<(String, String)>,
    keep: Vec<String>,
    drop: Vec<String>,
}

/// Units by name: `y = x * factor + offset`.
const UNITS: [(&str, f64, f64); 8] = [
    ("C->F", 1.8, 32.0),
    ("F->C", 1.0 / 1.8, -32.0 / 1.8),
    ("C->K", 1.0, 273.15),
    ("K->C", 1.0, -273.15),
    ("bar->kPa", 100.0, 0.0),
    ("kPa->bar", 0.01, 0.0),
    ("psi->kPa", 6.894_757_293_168, 0.0),
    ("kPa->psi", 1.0 / 6.894_757_293_168, 0.0),
];

impl Module for Convert {
    const ABOUT: &'static str = "Renames, scales, converts and projects fields; JSON to CBOR and back.";

    fn parameters() -> Vec<Parameter> {
        let json = |name, preset: &str, about| Parameter::preset::<weir_sdk::JsonText>(name, preset, about);
        vec![
            Parameter::preset::<String>("from", "json", "What values are: `json` or `cbor`."),
            Parameter::preset::<String>("to", "json", "What they become: `json` or `cbor`."),
            json(
                "scale",
                "{}",
                "Object from field to factor, or to [factor, offset].",
            ),
            json(
                "unit",
                "{}",
                "Object from field to C->F, F->C, C->K, K->C, bar->kPa, kPa->bar, psi->kPa, kPa->psi.",
            ),
            json("rename", "{}", "Object from field to its new name."),
            json(
                "keep",
                "[]",
                "Only these fields stay, by their new names; none given: all.",
            ),
            json("drop", "[]", "These fields go, by their new names."),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Plan), String> {
        let format = |name| -> Result<Format, String> {
            let text: String = config.get(name)?;
            match text.as_str() {
                "json" => Ok(Format::Json),
                "cbor" => Ok(Format::Cbor),
                other => Err(format!("`{name}` cannot be `{other}`: use json or cbor")),
            }
        };
        let mut scale = Vec::new();
        for (field, by) in object(config, "scale")? {
            let pair = by.as_array().map(|a| {
                (
                    a.first().and_then(Value::as_f64),
                    a.get(1).and_then(Value::as_f64),
                )
            });
            let (factor, offset) = match (by.as_f64(), pair) {
                (Some(factor), _) => (factor, 0.0),
                (None, Some((Some(factor), Some(offset)))) => (factor, offset),
                _ => {
                    return Err(format!(
                        "`scale` of `{field}` is neither a factor nor [factor, offset]"
                    ));
                }
            };
            scale.push(Scale::new(field, factor, offset));
        }
        for (field, unit) in object(config, "unit")? {
            let name = unit.as_str().unwrap_or_default();
            let found = UNITS.iter().find(|(n, ..)| *n == name);
            let (_, factor, offset) =
                found.ok_or_else(|| format!("`unit` of `{field}` is not known: {unit}"))?;
            scale.push(Scale::new(field, *factor, *offset));
        }
        let mut rename = Vec::new();
        for (field, to) in object(config, "rename")? {
            let to = to
                .as_str()
                .ok_or_else(|| format!("`rename` of `{field}` is not text"))?;
            rename.push((field, to.to_owned()));
        }
        let (keep, drop) = (list(config, "keep")?, list(config, "drop")?);
        Ok((
            Self {
                from: format("from")?,
                to: format("to")?,
                scale,
                rename,
                keep,
                drop,
            },
            Plan::values(),
        ))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        let in_place = (self.from, self.to) == (Format::Json, Format::Json)
            && self.rename.is_empty()
            && self.keep.is_empty()
            && self.drop.is_empty();
        for record in batch.records() {
            let i = record.index();
            let Some(value) = record.value() else {
                out.keep(i);
                continue;
            };
            let result = match in_place {
                true => out.emit_value(i, 1, |buf| self.scale_text(value, buf)),
                false => out.emit_value(i, 1, |buf| self.rebuild(value, buf)),
            };
            if let Err(why) = result {
                out.reject(i, why);
            }
        }
        Ok(())
    }
}

impl Scale {
    fn new(field: String, factor: f64, offset: f64) -> Self {
        Self {
            path: Path::new(&field),
            field,
            factor,
            offset,
            decimal: Decimal::of(factor).zip(Decimal::of(offset)),
        }
    }

    /// Where its number stands in `value`, how long that is, and what it becomes.
    #[inline]
    fn find(&self, value: &[u8]) -> Option<(usize, usize, Scaled)> {
        let field = Json::new(value).at(&self.path);
        let text = field.text()?;
        let scaled = match self.exact(text) {
            Some(exact) => Scaled::Exact(exact),
            None => Scaled::Double(field.number()? * self.factor + self.offset),
        };
        Some((field.offset_in(value)?, text.len(), scaled))
    }

    #[inline]
    fn exact(&self, text: &[u8]) -> Option<Decimal> {
        let (factor, offset) = self.decimal?;
        Decimal::parse(text)?.scaled(factor, offset)
    }

    /// What a number becomes that was parsed already; within, whether that is one.
    fn parsed(&self, number: &Number) -> Option<Option<Number>> {
        let exact = self.exact(number.to_string().as_bytes());
        if let Some(whole) = exact.and_then(Decimal::whole) {
            return Some(Some(whole.into()));
        }
        let double = exact.and_then(Decimal::to_f64);
        let scaled = double.or_else(|| Some(number.as_f64()? * self.factor + self.offset))?;
        Some(Number::from_f64(scaled))
    }
}

impl Convert {
    /// Replaces the numbers in the text and leaves the rest as it is. Fields nest by dots.
    fn scale_text(&self, value: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        if let [scale] = self.scale.as_slice() {
            // The common case needs no list of places.
            let Some((at, len, number)) = scale.find(value) else {
                out.extend_from_slice(value);
                return Ok(());
            };
            out.extend_from_slice(value.get(..at).unwrap_or_default());
            write_number(out, number)?;
            out.extend_from_slice(value.get(at + len..).unwrap_or_default());
            return Ok(());
        }
        let mut edits: Vec<_> = self.scale.iter().filter_map(|s| s.find(value)).collect();
        edits.sort_unstable_by_key(|(at, ..)| *at);
        let mut done = 0;
        for (at, len, number) in edits {
            if at < done {
                return Err("the same field is scaled twice".to_owned());
            }
            out.extend_from_slice(value.get(done..at).unwrap_or_default());
            write_number(out, number)?;
            done = at + len;
        }
        out.extend_from_slice(value.get(done..).unwrap_or_default());
        Ok(())
    }

    fn rebuild(&self, value: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let document: Value = match self.from {
            Format::Json => serde_json::from_slice(value).map_err(|e| format!("value is not JSON: {e}"))?,
            Format::Cbor => ciborium::from_reader(value).map_err(|e| format!("value is not CBOR: {e}"))?,
        };
        let document = match document {
            Value::Object(fields) => Value::Object(self.fields(fields)?),
            other => other,
        };
        match self.to {
            Format::Json => serde_json::to_writer(out, &document).map_err(|e| e.to_string()),
            Format::Cbor => ciborium::into_writer(&document, out).map_err(|e| e.to_string()),
        }
    }

    fn fields(&self, fields: Map<String, Value>) -> Result<Map<String, Value>, String> {
        let mut converted = Map::with_capacity(fields.len());
        for (name, mut value) in fields {
            for scale in self.scale.iter().filter(|s| s.field == name) {
                let Some(scaled) = value.as_number().and_then(|n| scale.parsed(n)) else {
                    continue;
                };
                value = Value::Number(scaled.ok_or_else(|| format!("`{name}` scales to no finite number"))?);
            }
            let renamed = self
                .rename
                .iter()
                .find(|(from, _)| *from == name)
                .map(|(_, to)| to.clone());
            let name = renamed.unwrap_or(name);
            let stays = (self.keep.is_empty() || self.keep.contains(&name)) && !self.drop.contains(&name);
            if stays {
                converted.insert(name, value);
            }
        }
        Ok(converted)
    }
}

fn write_number(out: &mut Vec<u8>, number: Scaled) -> Result<(), String> {
    match number {
        Scaled::Exact(decimal) => {
            decimal.write(out);
            Ok(())
        }
        Scaled::Double(number) if number.is_finite() => write!(out, "{number}").map_err(|e| e.to_string()),
        Scaled::Double(_) => Err("a field scales to no finite number".to_owned()),
    }
}

fn object(config: &Config, name: &str) -> Result<Map<String, Value>, String> {
    let weir_sdk::JsonText(text) = config.get(name)?;
    serde_json::from_str(&text).map_err(|e| format!("`{name}` is not an object: {e}"))
}

fn list(config: &Config, name: &str) -> Result<Vec<String>, String> {
    let weir_sdk::JsonText(text) = config.get(name)?;
    serde_json::from_str(&text).map_err(|e| format!("`{name}` is not a list of names: {e}"))
}

weir_sdk::export!(Convert);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::Convert>(env!("CARGO_MANIFEST_DIR"));
    }
}
