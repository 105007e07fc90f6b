//! Rejects records that do not match a JSON Schema. See README.md.

mod number;
mod order;
mod schema;
mod value;

use schema::Schema;
use value::Value;
use weir_sdk::prelude::*;

/// The module `schema-check`.
#[derive(Debug)]
pub struct SchemaCheck {
    schema: Schema,
}

impl Module for SchemaCheck {
    const ABOUT: &'static str = "Rejects records whose value does not match a JSON Schema.";

    fn parameters() -> Vec<Parameter> {
        vec![Parameter::required::<weir_sdk::JsonText>(
            "schema",
            "A JSON Schema, draft 2020-12, without references to other documents.",
        )]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let weir_sdk::JsonText(text) = config.get("schema")?;
        let whole = Value::parse(text.as_bytes()).map_err(|e| format!("`schema`: {e}"))?;
        let schema = Schema::read(&whole).map_err(|e| format!("`schema`: {e}"))?;
        Ok((Self { schema }, Interface::values()))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let Some(value) = record.value() else {
                out.reject(record.index(), "it has no value");
                continue;
            };
            match Value::parse(value).map(|value| self.schema.check(&value)) {
                Ok(Ok(())) => out.keep(record.index()),
                Ok(Err(misfit)) => out.reject(record.index(), misfit.to_string()),
                Err(why) => out.reject(record.index(), why),
            }
        }
        Ok(())
    }
}

weir_sdk::export!(SchemaCheck);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::SchemaCheck>(env!("CARGO_MANIFEST_DIR"));
    }
}
