//! Sends records to outputs by key, header or field. See README.md.

use table::Table;
use weir_sdk::Grouping;
use weir_sdk::prelude::*;

/// The module `route`.
#[derive(Debug)]
pub struct Route {
    by: Grouping,
    table: Table,
    /// Output for texts without an entry in the table; 0 drops.
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
                "Object from text to output; a text that ends in `*` is a prefix.",
            ),
            Parameter::preset::<String>("else", "main", "Output for other records, or `drop`."),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let by: String = config.get("by")?;
        let by = Grouping::parse(&by)?;
        let (keys, values, headers) = by.columns();
        let mut interface = Interface::keys().with(keys, values, headers);
        let mut output = |name: &str| if name == "drop" { 0 } else { interface.output(name) };
        let weir_sdk::JsonText(text) = config.get("table")?;
        if !text.trim_start().starts_with('{') {
            return Err(format!(
                "`table` must be an object from text to output, not {text}"
            ));
        }
        let mut table = Table::default();
        for (name, to) in Json::new(text.as_bytes()).fields() {
            let name = weir_sdk::name_of(name);
            let to = to
                .string()
                .ok_or_else(|| format!("the output of `{name}` in `table` must be text"))?;
            table.insert(&name, output(&to));
        }
        let otherwise: String = config.get("else")?;
        let otherwise = output(&otherwise);
        Ok((Self { by, table, otherwise }, interface))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        match &self.by {
            Grouping::Key => out.route_all(batch.keys().map(|key| self.output(key))),
            Grouping::Header(name) => {
                let values = batch.records().map(|record| record.headers().last(name));
                out.route_all(values.map(|value| self.output(value)));
            }
            Grouping::Field(path) => {
                for record in batch.records() {
                    let field = match record.whole_field(path) {
                        Ok(field) => field,
                        Err(why) => {
                            out.reject(record.index(), why);
                            continue;
                        }
                    };
                    let output = match field.string() {
                        Some(text) => self.output(Some(text.as_bytes())),
                        // Numbers and booleans as written.
                        None => self.output(field.text()),
                    };
                    out.route(record.index(), output);
                }
            }
        }
        Ok(())
    }
}

impl Route {
    #[inline]
    fn output(&self, text: Option<&[u8]>) -> u8 {
        text.map_or(self.otherwise, |text| self.table.find(text, self.otherwise))
    }
}

weir_sdk::export!(Route);

mod table {
    //! The table from text to output, exact or by prefix.

    #[derive(Debug, Default)]
    pub(crate) struct Table {
        /// Marks of the exact texts, ascending: most comparisons are of a single number.
        marks: Vec<u64>,
        /// Texts and outputs, in the order of their marks.
        exact: Vec<(Box<[u8]>, u8)>,
        prefixes: Vec<(Box<[u8]>, u8)>,
    }

    /// Up to this many entries a linear search is faster.
    const LINEAR: usize = 8;

    impl Table {
        pub(crate) fn insert(&mut self, text: &str, output: u8) {
            match text.strip_suffix('*') {
                Some(prefix) => self.prefixes.push((prefix.as_bytes().into(), output)),
                None => {
                    let mark = mark(text.as_bytes());
                    let at = self.marks.partition_point(|m| *m <= mark);
                    self.marks.insert(at, mark);
                    self.exact.insert(at, (text.as_bytes().into(), output));
                }
            }
            // The longest prefix wins.
            self.prefixes.sort_by_key(|(p, _)| std::cmp::Reverse(p.len()));
        }

        /// Returns the output for `text`; `otherwise` without an entry.
        #[inline(always)]
        pub(crate) fn find(&self, text: &[u8], otherwise: u8) -> u8 {
            let mark = mark(text);
            let found = if self.marks.len() <= LINEAR {
                self.marks.iter().position(|m| *m == mark)
            } else {
                let at = self.marks.partition_point(|m| *m < mark);
                (self.marks.get(at) == Some(&mark)).then_some(at)
            };
            match found.and_then(|at| self.exact.get(at)) {
                // For up to seven bytes the mark holds the whole text with its length.
                Some((_, output)) if text.len() <= 7 => *output,
                None if self.prefixes.is_empty() => otherwise,
                _ => self.find_whole(text, mark).unwrap_or(otherwise),
            }
        }

        /// Compares whole texts where the mark does not decide.
        #[inline(never)]
        fn find_whole(&self, text: &[u8], mark: u64) -> Option<u8> {
            let from = self.marks.partition_point(|m| *m < mark);
            let entries = self.marks.iter().zip(&self.exact).skip(from);
            let mut same = entries.take_while(|(m, _)| **m == mark).map(|(_, e)| e);
            let exact = same.find(|(t, _)| **t == *text);
            let found = exact.or_else(|| self.prefixes.iter().find(|(p, _)| text.starts_with(p)));
            found.map(|(_, output)| *output)
        }
    }

    /// Returns the first seven bytes and the length as a number: texts of up to seven bytes are equal if
    /// their marks are.
    #[inline]
    fn mark(text: &[u8]) -> u64 {
        let len = (text.len().min(255) as u64) << 56;
        let word = |b: Option<&[u8; 4]>| b.map_or(0, |b| u64::from(u32::from_le_bytes(*b)));
        match text.len() {
            0 => len,
            // Overlapping words compare all bytes of texts of equal length.
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
