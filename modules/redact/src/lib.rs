//! Drops, hashes or masks fields. See README.md.

use serde_json::Value;
use sha2::{Digest, Sha256};
use weir_sdk::prelude::*;

#[derive(Clone, Debug)]
enum Action {
    Drop,
    Hash,
    /// Leaves this many characters at the end.
    Mask(usize),
}

/// The module.
#[derive(Debug)]
pub struct Redact {
    fields: Vec<(Vec<String>, Action)>,
    salt: String,
}

/// Hexadecimal digits of a hash that are kept: 64 bits tell a billion values apart.
const HASH_DIGITS: usize = 16;

impl Module for Redact {
    const ABOUT: &'static str = "Drops, hashes or masks fields of JSON values.";

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::required::<weir_sdk::JsonText>(
                "fields",
                "Object from path to `drop`, `hash`, `mask` or `mask:N`, which leaves the last N characters.",
            ),
            Parameter::preset::<String>(
                "salt",
                "",
                "Hashed with each value, so that hashes cannot be looked up.",
            ),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Plan), String> {
        let weir_sdk::JsonText(text) = config.get("fields")?;
        let fields: serde_json::Map<String, Value> =
            serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let mut parsed = Vec::new();
        for (path, action) in fields {
            let action = match action.as_str().unwrap_or_default() {
                "drop" => Action::Drop,
                "hash" => Action::Hash,
                "mask" => Action::Mask(0),
                other => match other.strip_prefix("mask:").and_then(|n| n.parse().ok()) {
                    Some(n) => Action::Mask(n),
                    None => {
                        return Err(format!(
                            "`{path}` cannot be `{action}`: use drop, hash, mask or mask:N"
                        ));
                    }
                },
            };
            parsed.push((path.split('.').map(str::to_owned).collect(), action));
        }
        Ok((
            Self {
                fields: parsed,
                salt: config.get("salt")?,
            },
            Plan::values(),
        ))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        let mut text = Vec::new();
        for record in batch.records() {
            let i = record.index();
            let Some(value) = record.value() else {
                out.keep(i);
                continue;
            };
            // What cannot be read cannot be shown to hold nothing secret: it does not pass.
            let Ok(mut document) = serde_json::from_slice::<Value>(value) else {
                out.reject(i, "value is not JSON");
                continue;
            };
            let mut changed = false;
            for (path, action) in &self.fields {
                changed |= self.redact(&mut document, path, action);
            }
            if !changed {
                out.keep(i);
                continue;
            }
            text.clear();
            serde_json::to_writer(&mut text, &document).map_err(|e| Fault::Poison(i, e.to_string()))?;
            out.emit(i, 1, &NewRecord::value(&text));
        }
        Ok(())
    }
}

impl Redact {
    fn redact(&self, at: &mut Value, path: &[String], action: &Action) -> bool {
        match (at, path) {
            // A path means every element of a list.
            (Value::Array(items), path) => {
                let mut changed = false;
                for item in items {
                    changed |= self.redact(item, path, action);
                }
                changed
            }
            (Value::Object(fields), [last]) => match (action, fields.get_mut(last)) {
                (_, None) => false,
                (Action::Drop, Some(_)) => fields.shift_remove(last).is_some(),
                (Action::Hash, Some(value)) => {
                    *value = Value::from(self.hash(value));
                    true
                }
                (Action::Mask(n), Some(value)) => {
                    *value = Value::from(mask(&plain(value), *n));
                    true
                }
            },
            (Value::Object(fields), [first, rest @ ..]) => fields
                .get_mut(first)
                .is_some_and(|inner| self.redact(inner, rest, action)),
            _ => false,
        }
    }

    fn hash(&self, value: &Value) -> String {
        let digest = Sha256::new()
            .chain_update(&self.salt)
            .chain_update(plain(value))
            .finalize();
        let mut hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        hex.truncate(HASH_DIGITS);
        hex
    }
}

/// Text without its quotes, anything else as JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn mask(text: &str, keep: usize) -> String {
    let hidden = text.chars().count().saturating_sub(keep);
    text.chars()
        .enumerate()
        .map(|(i, c)| if i < hidden { '*' } else { c })
        .collect()
}

weir_sdk::export!(Redact);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::Redact>(env!("CARGO_MANIFEST_DIR"));
    }
}
