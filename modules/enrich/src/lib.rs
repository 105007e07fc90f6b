//! Adds to records what a table says of them. See README.md.

use std::collections::BTreeMap;
use weir_sdk::By;
use weir_sdk::prelude::*;

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
        let by = By::parse(&by)?;
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
        let (keys, _, headers) = by.columns();
        let plan = Plan::values().with(keys, true, headers);
        let module = Self { by, table, otherwise };
        Ok((module, plan))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let index = record.index();
            let found = self.by.of(&record).and_then(|text| self.table.get(&*text));
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
