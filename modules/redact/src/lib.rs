//! Drops, hashes or masks fields. See README.md.

use sha2::{Digest, Sha256};
use weir_sdk::document::{Document, Edits, Field, Node, Value};
use weir_sdk::prelude::*;

#[derive(Clone, Debug)]
enum Action {
    Drop,
    Hash,
    /// Keeps this many characters at the end.
    Mask(usize),
}

/// The module `redact`.
#[derive(Debug)]
pub struct Redact {
    fields: Vec<(Vec<String>, Action)>,
    salt: String,
}

/// Hexadecimal digits kept of a hash: 64 bits distinguish a billion values.
const HASH_DIGITS: usize = 16;

impl Module for Redact {
    const ABOUT: &'static str = "Drops, hashes or masks fields of JSON values.";

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::required::<weir_sdk::JsonText>(
                "fields",
                "Object from path to `drop`, `hash`, `mask` or `mask:N`, which keeps the last N characters.",
            ),
            Parameter::preset::<String>(
                "salt",
                "",
                "Salt of the hashes, which prevents a look-up of hashed values.",
            ),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let weir_sdk::JsonText(text) = config.get("fields")?;
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&text).map_err(|e| e.to_string())?;
        if fields.is_empty() {
            return Err("`fields` is empty: the module would change nothing".to_owned());
        }
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
            let path = Path::read(&path)?;
            parsed.push((path.names().map(str::to_owned).collect(), action));
        }
        Ok((
            Self {
                fields: parsed,
                salt: config.get("salt")?,
            },
            Interface::values(),
        ))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        let rules: Vec<Rule<'_>> = self
            .fields
            .iter()
            .map(|(path, action)| (&path[..], action))
            .collect();
        for record in batch.records() {
            let i = record.index();
            let Some(value) = record.value() else {
                out.keep(i);
                continue;
            };
            // Unreadable values and duplicate names may hide secrets: reject the record.
            let document = match Document::parse(value) {
                Ok(document) => document,
                Err(why) => {
                    out.reject(i, why);
                    continue;
                }
            };
            let mut edits = Edits::default();
            self.redact(document.root(), &rules, &mut edits);
            if edits.is_empty() {
                out.keep(i);
                continue;
            }
            let written = out.emit_value(i, 1, |to| {
                edits.write(&document, to);
                Ok::<(), String>(())
            });
            if let Err(why) = written {
                out.reject(i, why);
            }
        }
        Ok(())
    }
}

/// The rest of a path, and the action at its end.
type Rule<'r> = (&'r [String], &'r Action);

impl Redact {
    /// Collects the edits of `rules` in `node`. Visits each object once.
    fn redact(&self, node: &Node<'_>, rules: &[Rule<'_>], edits: &mut Edits) {
        match node.value() {
            // A path applies to every item of a list; a number in a path also selects the item with that
            // index.
            Value::List(items) => {
                for (place, item) in items.iter().enumerate() {
                    let mut here = rules.to_vec();
                    here.extend(deeper(rules, &place.to_string()));
                    match here.iter().find(|(rest, _)| rest.is_empty()) {
                        // Removing the item would shift the others.
                        Some((_, Action::Drop)) => edits.replace(item, b"null".to_vec()),
                        Some((_, action)) => self.change(item, action, edits),
                        None => self.redact(item, &here, edits),
                    }
                }
            }
            Value::Object(fields) => {
                let of = |field: &Field<'_>| -> Vec<Rule<'_>> { deeper(rules, &field.name) };
                let is_there = |field: &Field<'_>, drops: bool| {
                    let mut own = of(field).into_iter().filter(|(rest, _)| rest.is_empty());
                    own.any(|(_, action)| matches!(action, Action::Drop) == drops)
                };
                edits.remove(node, |field| is_there(field, true));
                for field in fields.iter().filter(|field| !is_there(field, true)) {
                    let own = of(field);
                    match own.iter().find(|(rest, _)| rest.is_empty()) {
                        Some((_, action)) => self.change(&field.node, action, edits),
                        None => self.redact(&field.node, &own, edits),
                    }
                }
            }
            _ => {}
        }
    }

    fn change(&self, node: &Node<'_>, action: &Action, edits: &mut Edits) {
        let text = |text: &str| {
            let mut json = Vec::new();
            weir_sdk::escape_into(&mut json, text);
            json
        };
        match (action, node.value()) {
            (Action::Drop, _) | (_, Value::Null) => {}
            (Action::Hash, value) => edits.replace(node, text(&self.hash(&plain(value)))),
            // Masks each item.
            (Action::Mask(_), Value::List(items)) => {
                items.iter().for_each(|item| self.change(item, action, edits))
            }
            (Action::Mask(_), Value::Object(fields)) => {
                fields
                    .iter()
                    .for_each(|field| self.change(&field.node, action, edits));
            }
            (Action::Mask(n), value) => edits.replace(node, text(&mask(&plain(value), *n))),
        }
    }

    fn hash(&self, value: &str) -> String {
        let digest = Sha256::new()
            .chain_update(&self.salt)
            .chain_update(value)
            .finalize();
        let mut hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        hex.truncate(HASH_DIGITS);
        hex
    }
}

/// Returns the rules that lead through or to a field of this name. A name with dots matches several names of
/// a path.
fn deeper<'r>(rules: &[Rule<'r>], name: &str) -> Vec<Rule<'r>> {
    let mut found = Vec::new();
    for (path, action) in rules {
        for upto in 1..=path.len() {
            let (first, rest) = path.split_at(upto);
            if first.join(".") == name {
                found.push((rest, *action));
            }
        }
    }
    found
}

/// Returns a text without quotes, other values as JSON without blanks.
fn plain(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Boolean(is) => is.to_string(),
        Value::Number(text) => (*text).to_owned(),
        Value::Text(text) => text.clone().into_owned(),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(|item| json(item.value())).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|field| format!("{}:{}", quoted(&field.name), json(field.node.value())))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
    }
}

fn json(value: &Value<'_>) -> String {
    match value {
        Value::Text(text) => quoted(text),
        other => plain(other),
    }
}

fn quoted(text: &str) -> String {
    let mut json = Vec::new();
    weir_sdk::escape_into(&mut json, text);
    String::from_utf8_lossy(&json).into_owned()
}

/// Masks all but the last `keep` characters of a longer text.
fn mask(text: &str, keep: usize) -> String {
    let all = text.chars().count();
    let hidden = if all > keep { all - keep } else { all };
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
