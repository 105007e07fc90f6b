//! Sends records to outputs by key, header or field. See README.md.

use table::Table;
use weir_sdk::prelude::*;

/// Where the text comes from that decides.
#[derive(Debug)]
enum By {
    Key,
    Header(String),
    Field(String),
}

/// The module.
#[derive(Debug)]
pub struct Route {
    by: By,
    table: Table,
    /// For what the table does not have; 0 drops.
    otherwise: u8,
}

impl Module for Route {
    const ABOUT: &'static str = "Sends records to outputs by key, header or field.";

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::preset::<String>("by", "key", "`key`, `header:NAME` or `field:PATH` of a JSON value."),
            Parameter::required::<weir_sdk::JsonText>(
                "table",
                "Object from text to output; a text that ends in `*` stands for all that begin so.",
            ),
            Parameter::preset::<String>("else", "main", "Output for all others, or `drop`."),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Plan), String> {
        let by: String = config.get("by")?;
        let (by, mut plan) = match by.split_once(':') {
            None if by == "key" => (By::Key, Plan::keys()),
            Some(("header", name)) => (By::Header(name.to_owned()), Plan::keys().with(false, false, true)),
            Some(("field", path)) => (By::Field(path.to_owned()), Plan::values()),
            _ => return Err(format!("`by` cannot be `{by}`: use key, header:NAME or field:PATH")),
        };
        let mut output = |name: &str| if name == "drop" { 0 } else { plan.output(name) };
        let weir_sdk::JsonText(text) = config.get("table")?;
        let mut table = Table::default();
        for (name, to) in Json::new(text.as_bytes()).fields() {
            let name = std::str::from_utf8(name).map_err(|e| e.to_string())?;
            let to = to.string().ok_or_else(|| format!("output of `{name}` in `table` is not text"))?;
            table.insert(name, output(&to));
        }
        let otherwise: String = config.get("else")?;
        let otherwise = output(&otherwise);
        Ok((Self { by, table, otherwise }, plan))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let output = match &self.by {
                By::Key => record.key().and_then(|key| self.table.find(key)),
                By::Header(name) => record.headers().last(name).and_then(|value| self.table.find(value)),
                By::Field(path) => {
                    let field = record.json(path);
                    match field.string() {
                        Some(text) => self.table.find(text.as_bytes()),
                        // Numbers and booleans by their text.
                        None => field.text().and_then(|text| self.table.find(text)),
                    }
                }
            };
            out.route(record.index(), output.unwrap_or(self.otherwise));
        }
        Ok(())
    }
}

weir_sdk::export!(Route);

mod table {
    //! Text to output, exact or by prefix.

    /// Entries by length of the text, so that most comparisons are of one number.
    #[derive(Debug, Default)]
    pub(crate) struct Table {
        exact: Vec<(Box<[u8]>, u8)>,
        prefixes: Vec<(Box<[u8]>, u8)>,
    }

    impl Table {
        pub(crate) fn insert(&mut self, text: &str, output: u8) {
            match text.strip_suffix('*') {
                Some(prefix) => self.prefixes.push((prefix.as_bytes().into(), output)),
                None => {
                    self.exact.push((text.as_bytes().into(), output));
                    self.exact.sort();
                }
            }
            // The longest prefix decides.
            self.prefixes.sort_by_key(|(p, _)| std::cmp::Reverse(p.len()));
        }

        #[inline]
        pub(crate) fn find(&self, text: &[u8]) -> Option<u8> {
            // A handful of entries is looked through faster than it is searched.
            let exact = if self.exact.len() <= 8 {
                self.exact.iter().find(|(t, _)| **t == *text)
            } else {
                self.exact.binary_search_by(|(t, _)| (**t).cmp(text)).ok().and_then(|i| self.exact.get(i))
            };
            let found = exact.or_else(|| self.prefixes.iter().find(|(p, _)| text.starts_with(p)));
            found.map(|(_, output)| *output)
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::Route>(env!("CARGO_MANIFEST_DIR"));
    }
}
