//! Adds fields from a table to records. See README.md.

use std::collections::BTreeMap;
use weir_sdk::Grouping;
use weir_sdk::document::{Document, Edits, Value};
use weir_sdk::prelude::*;

/// A name, and a value as JSON.
type Field = (String, String);

/// The module `enrich`.
#[derive(Debug)]
pub struct Enrich {
    by: Grouping,
    /// Fields to add, by the record's text.
    table: BTreeMap<Vec<u8>, Vec<Field>>,
    /// For records without an entry in the table.
    otherwise: Verdict,
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
                "Object from text to an object with the fields to add.",
            ),
            Parameter::preset::<String>(
                "else",
                "keep",
                "Handling of other records: `keep`, `drop` or `reject`.",
            ),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let (by, otherwise): (String, String) = (config.get("by")?, config.get("else")?);
        let by = Grouping::parse(&by)?;
        let otherwise = Verdict::parse(&otherwise, "no entry in the table")
            .ok_or_else(|| format!("`else` cannot be `{otherwise}`: use keep, drop or reject"))?;
        let weir_sdk::JsonText(text) = config.get("table")?;
        let document = Document::parse(text.as_bytes()).map_err(|why| format!("`table`: {why}"))?;
        let Value::Object(rows) = document.root().value() else {
            return Err(format!("`table` must be an object, not {text}"));
        };
        let mut table = BTreeMap::new();
        for row in rows {
            let Value::Object(fields) = row.node.value() else {
                return Err(format!(
                    "the entry of `{}` in `table` must be an object",
                    row.name
                ));
            };
            let json = |field: &weir_sdk::document::Field<'_>| text.get(field.node.span()).map(str::to_owned);
            let fields = fields
                .iter()
                .filter_map(|field| Some((field.name.clone().into_owned(), json(field)?)));
            table.insert(row.name.as_bytes().to_vec(), fields.collect());
        }
        let (keys, _, headers) = by.columns();
        let interface = Interface::values().with(keys, true, headers);
        let module = Self { by, table, otherwise };
        Ok((module, interface))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let index = record.index();
            // A record without a value has no field: handled like a text without an entry.
            let text = match self.by.of(&record) {
                Ok(text) => text,
                Err(why) => {
                    out.reject(index, why);
                    continue;
                }
            };
            let found = text.and_then(|text| self.table.get(&*text));
            match found {
                Some(fields) => {
                    let Some(value) = record.value() else {
                        out.keep(index);
                        continue;
                    };
                    let added = out.emit_value(index, 1, |to| add(value, fields, to));
                    if let Err(why) = added {
                        out.reject(index, why);
                    }
                }
                None => self.otherwise.apply(index, out),
            }
        }
        Ok(())
    }
}

/// Writes the object `value` with those of `fields` that it lacks.
fn add(value: &[u8], fields: &[Field], to: &mut Vec<u8>) -> Result<(), String> {
    let document = Document::parse(value)?;
    let object = document.root();
    if !matches!(object.value(), Value::Object(_)) {
        return Err("value is not a JSON object".to_owned());
    }
    let mut edits = Edits::default();
    let new = fields.iter().filter(|(name, _)| object.field(name).is_none());
    edits.add(object, new.map(|(name, json)| (name.as_str(), json.as_bytes())));
    edits.write(&document, to);
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
