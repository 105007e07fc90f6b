//! Sends records to outputs by key, header or field. See README.md.

use table::Table;
use weir_sdk::prelude::*;

/// Where the text comes from that decides.
#[derive(Debug)]
enum By {
    Key,
    Header(String),
    Field(Path),
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
            Parameter::preset::<String>(
                "by",
                "key",
                "`key`, `header:NAME` or `field:PATH` of a JSON value.",
            ),
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
            Some(("field", path)) => (By::Field(Path::new(path)), Plan::values()),
            _ => {
                return Err(format!(
                    "`by` cannot be `{by}`: use key, header:NAME or field:PATH"
                ));
            }
        };
        let mut output = |name: &str| if name == "drop" { 0 } else { plan.output(name) };
        let weir_sdk::JsonText(text) = config.get("table")?;
        let mut table = Table::default();
        for (name, to) in Json::new(text.as_bytes()).fields() {
            let name = std::str::from_utf8(name).map_err(|e| e.to_string())?;
            let to = to
                .string()
                .ok_or_else(|| format!("output of `{name}` in `table` is not text"))?;
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
                By::Header(name) => record
                    .headers()
                    .last(name)
                    .and_then(|value| self.table.find(value)),
                By::Field(path) => {
                    let field = record.field(path);
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

    /// An entry with the mark of its text, so that most comparisons are of one number.
    #[derive(Debug)]
    struct Entry {
        mark: u64,
        text: Box<[u8]>,
        output: u8,
    }

    #[derive(Debug, Default)]
    pub(crate) struct Table {
        /// Ordered by mark.
        exact: Vec<Entry>,
        prefixes: Vec<(Box<[u8]>, u8)>,
    }

    /// A handful of entries is looked through faster than it is searched.
    const LINEAR: usize = 8;

    impl Table {
        pub(crate) fn insert(&mut self, text: &str, output: u8) {
            match text.strip_suffix('*') {
                Some(prefix) => self.prefixes.push((prefix.as_bytes().into(), output)),
                None => {
                    let text: Box<[u8]> = text.as_bytes().into();
                    self.exact.push(Entry {
                        mark: mark(&text),
                        text,
                        output,
                    });
                    self.exact.sort_by_key(|e| e.mark);
                }
            }
            // The longest prefix decides.
            self.prefixes.sort_by_key(|(p, _)| std::cmp::Reverse(p.len()));
        }

        #[inline]
        pub(crate) fn find(&self, text: &[u8]) -> Option<u8> {
            let mark = mark(text);
            let from = if self.exact.len() <= LINEAR {
                0
            } else {
                self.exact.partition_point(|e| e.mark < mark)
            };
            for entry in self.exact.get(from..)?.iter() {
                // Up to seven bytes the mark is the whole text, and the length with it.
                if entry.mark == mark && (text.len() <= 7 || *entry.text == *text) {
                    return Some(entry.output);
                }
                if entry.mark > mark {
                    break;
                }
            }
            let prefix = self.prefixes.iter().find(|(p, _)| text.starts_with(p));
            prefix.map(|(_, output)| *output)
        }
    }

    /// The first seven bytes and the length: texts of up to seven bytes are equal when their marks are.
    #[inline]
    fn mark(text: &[u8]) -> u64 {
        let len = (text.len().min(255) as u64) << 56;
        let word = |b: Option<&[u8; 4]>| b.map_or(0, |b| u64::from(u32::from_le_bytes(*b)));
        match text.len() {
            0 => len,
            // Words that overlap in the middle say the same as the bytes, for one length.
            4..=7 => {
                len | word(text.first_chunk()) | (word(text.last_chunk()) >> (8 * (8 - text.len()))) << 32
            }
            1..=3 => text.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)) | len,
            _ => {
                let first = text.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
                len | first & 0x00ff_ffff_ffff_ffff
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::mark;

        #[test]
        fn short_texts_have_marks_of_their_own() {
            let mut seen = std::collections::HashMap::new();
            let alphabet = [0u8, b'a', 0xff];
            let mut texts: Vec<Vec<u8>> = vec![vec![]];
            let mut from = 0;
            for _ in 0..7 {
                let to = texts.len();
                for i in from..to {
                    for b in alphabet {
                        texts.push([&texts[i][..], &[b]].concat());
                    }
                }
                from = to;
            }
            for text in texts {
                assert_eq!(seen.insert(mark(&text), text.clone()), None, "{text:?}");
            }
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
