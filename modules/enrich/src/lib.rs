//! Adds to records what a table says of them. See README.md.

use std::collections::BTreeMap;
use weir_sdk::prelude::*;

/// Where the text comes from that is looked up.
#[derive(Debug)]
enum By {
    Key,
    Header(String),
    Field(Path),
}

/// What becomes of what the table does not have.
#[derive(Clone, Copy, Debug)]
enum Otherwise {
    Keep,
    Drop,
    Reject,
}

/// A name, and a value as JSON.
type Field = (String, String);

/// The module.
#[derive(Debug)]
pub struct Enrich {
    by: By,
    /// Fields to add.
    table: BTreeMap<Vec<u8>, Vec<Field>>,
    otherwise: Otherwise,
}

impl Module for Enrich {
    const ABOUT: &'static str = "Adds the fields that a table has for a record's key, header or field.";

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::preset::<String>(
                "by",
                "key",
                "`key`, `header:NAME` or `field:PATH` of a JSON value.",
            ),
            Parameter::required::<weir_sdk::JsonText>(
                "table",
                "Object from text to an object of the fields that are added.",
            ),
            Parameter::preset::<String>("else", "keep", "For all others: `keep`, `drop` or `reject`."),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Plan), String> {
        let (by, otherwise): (String, String) = (config.get("by")?, config.get("else")?);
        let by = match by.split_once(':') {
            None if by == "key" => By::Key,
            Some(("header", name)) => By::Header(name.to_owned()),
            Some(("field", path)) => By::Field(Path::new(path)),
            _ => {
                return Err(format!(
                    "`by` cannot be `{by}`: use key, header:NAME or field:PATH"
                ));
            }
        };
        let otherwise = match otherwise.as_str() {
            "keep" => Otherwise::Keep,
            "drop" => Otherwise::Drop,
            "reject" => Otherwise::Reject,
            other => return Err(format!("`else` cannot be `{other}`: use keep, drop or reject")),
        };
        let weir_sdk::JsonText(text) = config.get("table")?;
        let mut table = BTreeMap::new();
        let own = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for (name, fields) in Json::new(text.as_bytes()).fields() {
            if !fields.text().is_some_and(|t| t.starts_with(b"{")) {
                return Err(format!("`table` has no object for `{}`", own(name)));
            }
            let fields = fields
                .fields()
                .map(|(n, v)| (own(n), own(v.text().unwrap_or(b"null"))));
            table.insert(name.to_vec(), fields.collect());
        }
        let plan = Plan::values().with(matches!(by, By::Key), true, matches!(by, By::Header(_)));
        let module = Self { by, table, otherwise };
        Ok((module, plan))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let index = record.index();
            let found = match &self.by {
                By::Key => record.key().and_then(|key| self.table.get(key)),
                By::Header(name) => record.headers().last(name).and_then(|v| self.table.get(v)),
                By::Field(path) => {
                    let field = record.field(path);
                    match field.string() {
                        Some(text) => self.table.get(text.as_bytes()),
                        // Numbers and booleans by their text.
                        None => field.text().and_then(|text| self.table.get(text)),
                    }
                }
            };
            match (found, self.otherwise) {
                (Some(fields), _) => {
                    let value = record.value().unwrap_or_default();
                    let added = out.emit_value(index, 1, |to| add(value, fields, to));
                    if let Err(why) = added {
                        out.reject(index, why);
                    }
                }
                (None, Otherwise::Keep) => out.keep(index),
                (None, Otherwise::Drop) => {}
                (None, Otherwise::Reject) => out.reject(index, "the table does not have it"),
            }
        }
        Ok(())
    }
}

/// Writes the object `value` with those of `fields` that it does not have.
fn add(value: &[u8], fields: &[Field], to: &mut Vec<u8>) -> Result<(), &'static str> {
    let object = value.trim_ascii();
    let open = object.strip_suffix(b"}").filter(|o| o.starts_with(b"{"));
    let open = open.ok_or("its value is no JSON object")?.trim_ascii_end();
    to.extend_from_slice(open);
    let mut is_empty = open == b"{";
    for (name, added) in fields {
        let has = Json::new(object).fields().any(|(n, _)| n == name.as_bytes());
        if has {
            continue;
        }
        if !std::mem::take(&mut is_empty) {
            to.push(b',');
        }
        to.push(b'"');
        to.extend_from_slice(name.as_bytes());
        to.extend_from_slice(b"\":");
        to.extend_from_slice(added.as_bytes());
    }
    to.push(b'}');
    Ok(())
}

weir_sdk::export!(Enrich);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::Enrich>(env!("CARGO_MANIFEST_DIR"));
    }
}
