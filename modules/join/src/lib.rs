//! Joins two topics. See README.md.

use std::time::Duration;
use weir_sdk::Grouping;
use weir_sdk::check;
use weir_sdk::document::{Document, Edits};
use weir_sdk::join::{Join, Side};
use weir_sdk::prelude::*;
use weir_sdk::state::{KEY_BYTES_MAX, Map};
use weir_sdk::timers::Fired;

/// Handling of records without an entry in the table.
#[derive(Clone, Copy, Debug)]
enum Missing {
    Keep,
    Drop,
    Reject,
}

#[derive(Debug)]
enum How {
    /// Two streams: joins records close in time.
    Within(Join),
    /// A stream and a table: the last record of each key counts.
    Table {
        source: u32,
        rows: Map<Vec<u8>>,
        missing: Missing,
    },
}

/// The module `join`.
#[derive(Debug)]
pub struct Joined {
    by: Grouping,
    how: How,
    /// Field names of the two topics' values in the output.
    names: [String; 2],
}

impl Module for Joined {
    const ABOUT: &'static str = "Joins two topics by key: records close in time, or a stream with a table.";
    const STATE_VERSION: u32 = 1;

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::preset::<String>(
                "by",
                "key",
                "`key`, `header:NAME` or `field:PATH` of a JSON value.",
            ),
            Parameter::preset::<i64>(
                "within_ms",
                0,
                "Maximum time between joined records of two streams, in milliseconds; not for a table.",
            ),
            Parameter::preset::<String>(
                "table",
                "",
                "The source that is a table: the last record of each key counts.",
            ),
            Parameter::preset::<String>(
                "missing",
                "keep",
                "Handling of records without an entry in the table: `keep`, `drop` or `reject`.",
            ),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let (by, table, missing): (String, String, String) =
            (config.get("by")?, config.get("table")?, config.get("missing")?);
        let within_ms: i64 = config.get("within_ms")?;
        let by = Grouping::parse(&by)?;
        let [left, right] = config.sources() else {
            return Err(format!(
                "a join needs two sources, and the pipeline has {}",
                config.sources().len()
            ));
        };
        let missing = match missing.as_str() {
            "keep" => Missing::Keep,
            "drop" => Missing::Drop,
            "reject" => Missing::Reject,
            other => return Err(format!("`missing` cannot be `{other}`: use keep, drop or reject")),
        };
        let how = match (table.as_str(), within_ms) {
            ("", 1..) => How::Within(Join::new("join", Duration::from_millis(within_ms as u64))?),
            ("", _) => return Err("set `within_ms`, or the source that is the `table`".to_owned()),
            (_, ms) if ms != 0 => return Err("`within_ms` is for two streams, not for a table".to_owned()),
            (table, _) => {
                let source = config.sources().iter().position(|name| name == table);
                let source = source.ok_or_else(|| format!("`table` is `{table}`, which is not a source"))?;
                How::Table {
                    source: source as u32,
                    rows: Map::new("rows"),
                    missing,
                }
            }
        };
        let names = [left.clone(), right.clone()];
        let (keys, _, headers) = by.columns();
        let interface = Interface::values().with(keys, true, headers);
        Ok((Self { by, how, names }, interface))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        let Self { by, how, names } = self;
        for record in batch.records() {
            let index = record.index();
            let key = match by.of(&record) {
                Ok(Some(key)) => key,
                Ok(None) => {
                    out.reject(index, "it has no key, header or field to join by");
                    continue;
                }
                Err(why) => {
                    out.reject(index, why);
                    continue;
                }
            };
            let (value, source) = (record.value(), batch.source());
            match how {
                How::Within(join) => {
                    if let Some(Err(why)) = value.map(object_or_why) {
                        out.reject(index, why);
                        continue;
                    }
                    let side = match source {
                        0 => Side::Left,
                        _ => Side::Right,
                    };
                    let seen = join.add(side, &key, &record, |other| {
                        let (left, right) = other.in_order(side, value);
                        let both = object([(&names[0], left), (&names[1], right)]);
                        let joined = NewRecord::value(&both).at(record.timestamp().max(other.at));
                        out.emit(index, 1, &joined);
                    });
                    if let Err(why) = seen {
                        out.reject(index, why);
                    }
                }
                How::Table {
                    source: table, rows, ..
                } if source == *table => match value {
                    _ if key.len() > KEY_BYTES_MAX - 8 => out.reject(index, "its key is too long"),
                    Some(value) => match object_or_why(value) {
                        Ok(()) => rows.insert(&key, value.to_vec()),
                        Err(why) => out.reject(index, why),
                    },
                    // A tombstone, as in a compacted topic: the entry is removed.
                    None => rows.remove(&key),
                },
                How::Table {
                    source: table,
                    rows,
                    missing,
                } => {
                    let Some(value) = value else {
                        out.reject(index, "it has no value to add fields to");
                        continue;
                    };
                    if let Err(why) = object_or_why(value) {
                        out.reject(index, why);
                        continue;
                    }
                    let name = names.get(*table as usize).map_or("table", String::as_str);
                    rows.with(&key, |row| match (row, *missing) {
                        (Some(row), _) => match with_field(value, name, row) {
                            Ok(with) => out.emit(index, 1, &NewRecord::value(&with)),
                            Err(why) => out.reject(index, why),
                        },
                        (None, Missing::Keep) => out.keep(index),
                        (None, Missing::Drop) => {}
                        (None, Missing::Reject) => out.reject(index, format!("its key is not in `{name}`")),
                    });
                }
            }
        }
        Ok(())
    }

    fn on_timers(&mut self, fired: &Fired<'_>, _: &mut Out) -> Result<(), Fault> {
        if let How::Within(join) = &mut self.how {
            join.forget(fired);
        }
        Ok(())
    }
}

/// Checks that `value` is a single JSON object without duplicate names.
fn object_or_why(value: &[u8]) -> Result<(), String> {
    check(value)?;
    match value.trim_ascii_start().starts_with(b"{") {
        true => Ok(()),
        false => Err("value is not a JSON object".to_owned()),
    }
}

/// Builds an object of these fields.
fn object(fields: [(&String, Option<&[u8]>); 2]) -> Vec<u8> {
    let mut text = Vec::new();
    for (n, (name, value)) in fields.into_iter().enumerate() {
        text.push(if n == 0 { b'{' } else { b',' });
        weir_sdk::escape_into(&mut text, name);
        text.push(b':');
        text.extend_from_slice(value.unwrap_or(b"null").trim_ascii());
    }
    text.push(b'}');
    text
}

/// Returns the object `value` with another field at its end.
fn with_field(value: &[u8], name: &str, field: &[u8]) -> Result<Vec<u8>, String> {
    let document = Document::parse(value)?;
    let object = document.root();
    if object.field(name).is_some() {
        return Err(format!("value already has a field `{name}`"));
    }
    let mut edits = Edits::default();
    edits.add(object, [(name, field.trim_ascii())].into_iter());
    let mut text = Vec::with_capacity(value.len() + name.len() + field.len() + 4);
    edits.write(&document, &mut text);
    Ok(text)
}

weir_sdk::export!(Joined);

#[cfg(test)]
mod tests {
    use super::*;
    use weir_sdk::testing::{Native, Value};

    #[test]
    fn the_cases_hold_natively() {
        weir_sdk::testing::cases::run::<Joined>(env!("CARGO_MANIFEST_DIR"));
    }

    #[test]
    fn settings_that_do_not_fit_are_refused_in_words() {
        let refused = |sources: &[&str], set: &[(&str, Value)]| {
            Native::<Joined>::reading(sources, set).err().unwrap_or_default()
        };
        let two = ["a", "b"];
        assert!(refused(&["a"], &[]).contains("two sources, and the pipeline has 1"));
        assert!(refused(&two, &[]).contains("set `within_ms`"));
        let table = ("table", Value::Text("c".to_owned()));
        assert!(refused(&two, std::slice::from_ref(&table)).contains("`c`, which is not a source"));
        assert!(refused(&two, &[table, ("within_ms", Value::Integer(5))]).contains("not for a table"));
    }
}
