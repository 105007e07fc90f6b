//! Renames, scales, converts and projects fields; JSON to CBOR and back. See README.md.

mod cbor;
mod fields;
mod json;
mod scale;
mod whole;

use fields::Fields;
use scale::Scale;
use weir_sdk::document::{Document, Field, Value};
use weir_sdk::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Cbor,
}

/// The module `convert`.
#[derive(Debug)]
pub struct Convert {
    from: Format,
    to: Format,
    scales: Vec<Scale>,
    fields: Fields,
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
            Parameter::preset::<String>("from", "json", "Format of the input: `json` or `cbor`."),
            Parameter::preset::<String>("to", "json", "Format of the output: `json` or `cbor`."),
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
            json("keep", "[]", "Fields to keep, by their new names; empty: all."),
            json("drop", "[]", "Fields to drop, by their new names."),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let format = |name| -> Result<Format, String> {
            let text: String = config.get(name)?;
            match text.as_str() {
                "json" => Ok(Format::Json),
                "cbor" => Ok(Format::Cbor),
                other => Err(format!("`{name}` cannot be `{other}`: use json or cbor")),
            }
        };
        let mut scales: Vec<Scale> = Vec::new();
        let units = object(config, "unit", unit)?;
        for (field, (factor, offset)) in object(config, "scale", factor_and_offset)?
            .into_iter()
            .chain(units)
        {
            let scale = Scale::new(field, factor, offset)?;
            if let Some(other) = scales.iter().find(|other| other.path == scale.path) {
                return Err(format!(
                    "`{}` and `{}` are the same field: scale each number once",
                    other.field, scale.field
                ));
            }
            scales.push(scale);
        }
        let rename = object(config, "rename", |json| match json {
            Value::Text(to) => Ok(to.clone().into_owned()),
            _ => Err("the new name must be a text".to_owned()),
        })?;
        let fields = Fields {
            rename,
            keep: list(config, "keep")?,
            drop: list(config, "drop")?,
        };
        let module = Self {
            from: format("from")?,
            to: format("to")?,
            scales,
            fields,
        };
        Ok((module, Interface::values()))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let i = record.index();
            let Some(value) = record.value() else {
                out.keep(i);
                continue;
            };
            if let Err(why) = out.emit_value(i, 1, |buf| self.convert(value, buf)) {
                out.reject(i, why);
            }
        }
        Ok(())
    }
}

impl Convert {
    fn convert(&self, value: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let Self { scales, fields, .. } = self;
        match (self.from, self.to) {
            (Format::Json, Format::Json) if fields.is_empty() => json::scale(value, scales, out),
            (Format::Json, Format::Json) => json::rewrite(value, scales, fields, out),
            (Format::Cbor, Format::Cbor) => cbor::rewrite(value, scales, fields, out),
            (Format::Json, Format::Cbor) => match self.changes_nothing() {
                true => cbor::from_json(value, out),
                false => {
                    let mut changed = Vec::with_capacity(value.len());
                    json::rewrite(value, scales, fields, &mut changed)?;
                    cbor::from_json(&changed, out)
                }
            },
            (Format::Cbor, Format::Json) => match self.changes_nothing() {
                true => cbor::read(value)?.write(out),
                false => {
                    let mut changed = Vec::with_capacity(value.len());
                    cbor::rewrite(value, scales, fields, &mut changed)?;
                    cbor::read(&changed)?.write(out)
                }
            },
        }
    }

    fn changes_nothing(&self) -> bool {
        self.scales.is_empty() && self.fields.is_empty()
    }
}

fn factor_and_offset(by: &Value<'_>) -> Result<(f64, f64), String> {
    let number = |value: &Value<'_>| match value {
        Value::Number(text) => text.parse::<f64>().ok().filter(|n| n.is_finite()),
        _ => None,
    };
    let pair = match by {
        Value::List(items) => match items.as_slice() {
            [factor, offset] => number(factor.value()).zip(number(offset.value())),
            _ => None,
        },
        factor => number(factor).map(|factor| (factor, 0.0)),
    };
    pair.ok_or_else(|| "expected a factor, or [factor, offset]".to_owned())
}

fn unit(name: &Value<'_>) -> Result<(f64, f64), String> {
    let found = match name {
        Value::Text(name) => UNITS.iter().find(|(n, ..)| n == name),
        _ => None,
    };
    let known: Vec<&str> = UNITS.iter().map(|(n, ..)| *n).collect();
    let (_, factor, offset) = found.ok_or_else(|| format!("expected one of {}", known.join(", ")))?;
    Ok((*factor, *offset))
}

/// Reads a parameter that is an object; `read` parses each field.
fn object<T>(
    config: &Config,
    name: &str,
    read: impl Fn(&Value<'_>) -> Result<T, String>,
) -> Result<Vec<(String, T)>, String> {
    let weir_sdk::JsonText(text) = config.get(name)?;
    let document = Document::parse(text.as_bytes()).map_err(|e| format!("`{name}`: {e}"))?;
    let Value::Object(fields) = document.root().value() else {
        return Err(format!("`{name}` must be an object, not {text}"));
    };
    let read = |field: &Field<'_>| {
        let value = read(field.node.value()).map_err(|why| format!("`{name}` of `{}`: {why}", field.name))?;
        Ok((field.name.clone().into_owned(), value))
    };
    fields.iter().map(read).collect()
}

fn list(config: &Config, name: &str) -> Result<Vec<String>, String> {
    let weir_sdk::JsonText(text) = config.get(name)?;
    let document = Document::parse(text.as_bytes()).map_err(|e| format!("`{name}`: {e}"))?;
    let names = match document.root().value() {
        Value::List(items) => items
            .iter()
            .map(|item| match item.value() {
                Value::Text(name) => Some(name.clone().into_owned()),
                _ => None,
            })
            .collect(),
        _ => None,
    };
    names.ok_or_else(|| format!("`{name}` is a list of names, not {text}"))
}

weir_sdk::export!(Convert);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::Convert>(env!("CARGO_MANIFEST_DIR"));
    }
}
