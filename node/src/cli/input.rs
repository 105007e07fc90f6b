//! Input of `weir produce`: lines, JSON or CSV, made into records. Malformed input is refused, with its line
//! or row.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use weir_client::Record;
use weir_types::{TimeUnit, parse_time, time_of_number};

use super::Usage;

/// Format of the input, and its fields for key and time.
#[derive(Debug, Args)]
pub(crate) struct Input {
    /// File to read instead of standard input.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Text with a record a line, JSON with a value a line, or CSV with a heading, each row a JSON object.
    #[arg(long, value_enum, default_value = "lines")]
    format: Format,
    /// Field of the JSON object for the record's key.
    #[arg(long, value_name = "F")]
    key_field: Option<String>,
    /// Field for the record's time: RFC 3339, a date, or a number since 1970.
    #[arg(long, value_name = "F")]
    time_field: Option<String>,
    /// Unit of a number in `--time-field`; milliseconds when not given.
    #[arg(long, value_name = "U", value_enum, requires = "time_field")]
    time_unit: Option<Unit>,
    /// Delimiter of CSV cells: a character, or `tab`.
    #[arg(long, value_name = "C", value_parser = delimiter)]
    delimiter: Option<u8>,
    /// Numbers in CSV have a decimal comma.
    #[arg(long)]
    decimal_comma: bool,
    /// Encoding of text: `utf-8`, `windows-1252`, `utf-16le`, or another name of the WHATWG standard.
    #[arg(long, value_name = "NAME", value_parser = encoding)]
    encoding: Option<&'static encoding_rs::Encoding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Lines,
    Json,
    Csv,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Unit {
    S,
    Ms,
    Us,
    Ns,
}

fn delimiter(text: &str) -> Result<u8, String> {
    match (text, text.as_bytes()) {
        ("tab" | "\\t", _) => Ok(b'\t'),
        (_, [b'"' | b'\r' | b'\n']) => Err("that has a meaning of its own in CSV".to_owned()),
        (_, [one]) if one.is_ascii() => Ok(*one),
        _ => Err("it is one character, or `tab`".to_owned()),
    }
}

fn encoding(name: &str) -> Result<&'static encoding_rs::Encoding, String> {
    let known = encoding_rs::Encoding::for_label(name.as_bytes());
    known.ok_or_else(|| "no such encoding is known: try utf-8, windows-1252 or utf-16le".to_owned())
}

impl Input {
    /// Returns the fault of options that do not go together.
    pub(crate) fn check(&self) -> Result<(), Usage> {
        let not = |what: &str, with: &str| Err(Usage(format!("{what} need `--format {with}`")));
        let has_fields = self.key_field.is_some() || self.time_field.is_some();
        if self.format == Format::Lines && has_fields {
            return not("`--key-field` and `--time-field`", "json` or `csv");
        }
        if self.format != Format::Csv && (self.delimiter.is_some() || self.decimal_comma) {
            return not("`--delimiter` and `--decimal-comma`", "csv");
        }
        if self.decimal_comma && self.delimiter.unwrap_or(b',') == b',' {
            return Err(Usage(
                "with `--decimal-comma` cells are separated by something else: say `--delimiter ';'`"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Reads the input, and passes each record to `to` until nobody receives them. Blocks.
    ///
    /// # Errors
    /// The part that cannot be read, and the number of records before it.
    pub(crate) fn read(&self, to: &mpsc::Sender<Record>) -> Result<()> {
        let taken = Cell::new(0u64);
        let read = self.read_all(&|record| {
            let is_taken = to.blocking_send(record).is_ok();
            taken.set(taken.get() + u64::from(is_taken));
            is_taken
        });
        read.with_context(|| format!("{} records before this are taken", taken.get()))
    }

    fn read_all(&self, take: &dyn Fn(Record) -> bool) -> Result<()> {
        let input: Box<dyn Read> = match &self.file {
            Some(path) => {
                Box::new(File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?)
            }
            None => Box::new(io::stdin()),
        };
        // Lines may have any bytes. In the other formats, a byte order mark gives the encoding and is
        // skipped.
        let input: Box<dyn Read> = match (self.format, self.encoding) {
            (Format::Lines, None) => input,
            (_, encoding) => Box::new(
                encoding_rs_io::DecodeReaderBytesBuilder::new()
                    .encoding(encoding)
                    .bom_sniffing(true)
                    .utf8_passthru(true)
                    .strip_bom(true)
                    .build(input),
            ),
        };
        match self.format {
            Format::Csv => self.read_csv(input, take),
            Format::Lines | Format::Json => self.read_lines(input, take),
        }
    }

    fn read_lines(&self, input: Box<dyn Read>, take: &dyn Fn(Record) -> bool) -> Result<()> {
        for (n, line) in BufReader::new(input).split(b'\n').enumerate() {
            let mut line = line?;
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            let record = match self.format {
                Format::Json if line.is_empty() => continue,
                Format::Json => {
                    let value: &RawValue =
                        serde_json::from_slice(&line).with_context(|| not_json(n + 1, &line))?;
                    let fields = match self.key_field.is_some() || self.time_field.is_some() {
                        true => fields_of(value)?,
                        false => Vec::new(),
                    };
                    let fields: Vec<(&str, Field)> = fields
                        .iter()
                        .map(|(name, field)| (&**name, field.clone()))
                        .collect();
                    self.record(line.clone().into(), &fields)
                        .with_context(|| format!("line {}", n + 1))?
                }
                Format::Lines | Format::Csv => Record {
                    value: Some(line.into()),
                    timestamp: now_ms(),
                    ..Record::default()
                },
            };
            if !take(record) {
                break;
            }
        }
        Ok(())
    }

    fn read_csv(&self, input: Box<dyn Read>, take: &dyn Fn(Record) -> bool) -> Result<()> {
        let delimiter = self.delimiter.unwrap_or(b',');
        let is_open = Rc::new(Cell::new(false));
        let quotes = Quotes {
            inner: input,
            delimiter,
            at: At::Begin,
            is_open: Rc::clone(&is_open),
        };
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(quotes);
        let not_text = |e: csv::Error| match e.kind() {
            csv::ErrorKind::Utf8 { .. } => {
                anyhow::anyhow!("{e}: it is not UTF-8; say `--encoding`, for instance windows-1252")
            }
            _ => e.into(),
        };
        let headings = reader.headers().map_err(not_text)?.clone();
        self.check_columns(&headings)?;
        for (n, row) in reader.records().enumerate() {
            let row = row.map_err(not_text)?;
            if is_open.get() {
                bail!("row {}: a quote is opened and never closed", n + 1);
            }
            let cells: Vec<(&str, Field)> = headings
                .iter()
                .zip(&row)
                .map(|(name, cell)| (name, self.cell(cell)))
                .collect();
            let record = self
                .record(object_of(&cells).into(), &cells)
                .with_context(|| format!("row {}", n + 1))?;
            if !take(record) {
                break;
            }
        }
        Ok(())
    }

    fn check_columns(&self, headings: &csv::StringRecord) -> Result<()> {
        let names: Vec<&str> = headings.iter().collect();
        let listed = || {
            names
                .iter()
                .map(|n| format!("`{n}`"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        if names.first().is_some_and(|name| name.starts_with("sep=")) {
            bail!(
                "the first line begins with `sep=`, Excel's word for `--delimiter`, and names no columns: take it out"
            );
        }
        if let Some(n) = names.iter().position(|name| name.is_empty()) {
            bail!("column {} has no name: give it one, or take it out", n + 1);
        }
        if let Some((n, twice)) = names
            .iter()
            .enumerate()
            .find(|(n, name)| names[..*n].contains(name))
        {
            bail!(
                "column {} has the name of another, `{twice}`: give it one of its own",
                n + 1
            );
        }
        if let [one] = names[..]
            && let Some(other) = [';', '\t', '|'].iter().find(|c| one.contains(**c))
        {
            let name = if *other == '\t' {
                "tab".to_owned()
            } else {
                format!("'{other}'")
            };
            bail!(
                "there is one column, `{}`: say `--delimiter {name}`",
                one.escape_debug()
            );
        }
        let fields = [
            ("--key-field", &self.key_field),
            ("--time-field", &self.time_field),
        ];
        for (option, field) in fields {
            if let Some(field) = field
                && !names.contains(&field.as_str())
            {
                bail!("`{option}`: there is no column `{field}`, there are {}", listed());
            }
        }
        Ok(())
    }

    /// Returns a number where JSON allows its spelling, so that no digit of an id is lost; text otherwise.
    fn cell(&self, cell: &str) -> Field {
        if self.decimal_comma && cell.contains(',') && !cell.contains('.') {
            let point = cell.replacen(',', ".", 1);
            return match is_number(&point) {
                true => Field::Number(point),
                false => Field::Text(cell.to_owned()),
            };
        }
        match is_number(cell) {
            true => Field::Number(cell.to_owned()),
            false => Field::Text(cell.to_owned()),
        }
    }

    /// Makes a record of a text with these fields.
    fn record(&self, text: Bytes, fields: &[(&str, Field)]) -> Result<Record> {
        let key = match &self.key_field {
            None => None,
            Some(field) => Some(match there(&text, fields, field)?.into_owned() {
                Field::Text(text) | Field::Number(text) | Field::Other(text) => Bytes::from(text),
            }),
        };
        let timestamp = match &self.time_field {
            None => now_ms(),
            Some(field) => self
                .timestamp(there(&text, fields, field)?.as_ref())
                .with_context(|| format!("field `{field}`"))?,
        };
        Ok(Record {
            key,
            value: Some(text),
            timestamp,
            headers: Vec::new(),
        })
    }

    fn timestamp(&self, field: &Field) -> Result<i64> {
        let unit = self.time_unit.map(|unit| match unit {
            Unit::S => TimeUnit::S,
            Unit::Ms => TimeUnit::Ms,
            Unit::Us => TimeUnit::Us,
            Unit::Ns => TimeUnit::Ns,
        });
        match field {
            Field::Number(number) => match time_of_number(number, unit) {
                Err(e @ weir_types::TimeError::Unlikely { .. }) => bail!("{e}, with `--time-unit`"),
                read => Ok(read?),
            },
            Field::Text(text) => Ok(parse_time(text)?),
            Field::Other(other) => bail!("`{other}` is no time"),
        }
    }
}

/// Returns the field `name` of `fields`, or the field at this path in `text`, the record as JSON. A missing
/// field is an error: a record without a key, or with the current time, would pass unnoticed.
fn there<'a>(text: &[u8], fields: &'a [(&str, Field)], name: &str) -> Result<Cow<'a, Field>> {
    let mut found = fields.iter().filter(|(field, _)| *field == name);
    match (found.next(), found.next()) {
        (Some((_, field)), None) => return Ok(Cow::Borrowed(field)),
        (Some(_), Some(_)) => bail!("`{name}` is there twice"),
        (None, _) => {}
    }
    if name.contains('.') || name.starts_with('/') {
        let at = weir_pipeline::json::at(text, name).map_err(anyhow::Error::msg)?;
        if let Some(json) = at.filter(|json| *json != "null") {
            return field_of(json).map(Cow::Owned);
        }
    }
    if fields.is_empty() {
        bail!("there is nothing in `{name}`, or it is no object");
    }
    let names: Vec<String> = fields
        .iter()
        .take(20)
        .map(|(field, _)| format!("`{field}`"))
        .collect();
    bail!("there is nothing in `{name}`, of {}", names.join(", "))
}

/// Reads a field from JSON.
fn field_of(json: &str) -> Result<Field> {
    Ok(match json {
        text if text.starts_with('"') => Field::Text(serde_json::from_str(text)?),
        text if text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => Field::Number(text.to_owned()),
        text => Field::Other(text.to_owned()),
    })
}

/// A field as written.
#[derive(Clone, Debug, PartialEq)]
enum Field {
    Number(String),
    Text(String),
    /// Another JSON value, as written.
    Other(String),
}

/// Returns the fields of a JSON object that are not null; no fields of another value.
fn fields_of(line: &RawValue) -> Result<Vec<(Cow<'_, str>, Field)>> {
    if !line.get().starts_with('{') {
        return Ok(Vec::new());
    }
    let Pairs(pairs) = serde_json::from_str(line.get())?;
    let mut fields = Vec::new();
    for (name, value) in pairs {
        if value.get() == "null" {
            continue;
        }
        let field = field_of(value.get())?;
        fields.push((name, field));
    }
    Ok(fields)
}

/// The fields of an object in their order; names may repeat.
struct Pairs<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    pairs.push((pair.0.0, pair.1));
                }
                Ok(pairs)
            }
        }

        json.deserialize_map(Fields).map(Self)
    }
}

/// A name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Returns a JSON object of these fields.
fn object_of(fields: &[(&str, Field)]) -> String {
    let mut object = String::from("{");
    for (n, (name, field)) in fields.iter().enumerate() {
        if n > 0 {
            object.push(',');
        }
        object.push_str(&Value::from(*name).to_string());
        object.push(':');
        match field {
            Field::Number(text) | Field::Other(text) => object.push_str(text),
            Field::Text(text) => object.push_str(&Value::from(text.as_str()).to_string()),
        }
    }
    object.push('}');
    object
}

/// Tells whether JSON allows this spelling of a number.
fn is_number(text: &str) -> bool {
    let begins = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    begins && text.ends_with(|c: char| c.is_ascii_digit()) && serde_json::from_str::<&RawValue>(text).is_ok()
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as i64)
}

fn not_json(n: usize, line: &[u8]) -> String {
    let start = String::from_utf8_lossy(line.get(..40).unwrap_or(line)).into_owned();
    format!("line {n} is not JSON: `{start}`; `--format lines` takes any text")
}

/// Detects a quote that is still open at the end: the CSV reader would take the rest of a file for a single
/// cell.
struct Quotes<R> {
    inner: R,
    delimiter: u8,
    at: At,
    is_open: Rc<Cell<bool>>,
}

/// Position in a cell.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Begin,
    Plain,
    Quoted,
    /// Behind a quote in a quoted cell: the end of the cell, or the first half of an escaped quote.
    Quote,
}

impl<R: Read> Read for Quotes<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(to)?;
        for byte in to.get(..got).unwrap_or_default() {
            let ends = *byte == self.delimiter || matches!(byte, b'\n' | b'\r');
            self.at = match (self.at, *byte) {
                (At::Begin | At::Quote, b'"') => At::Quoted,
                (At::Quoted, b'"') => At::Quote,
                (At::Quoted, _) => At::Quoted,
                _ if ends => At::Begin,
                _ => At::Plain,
            };
        }
        if got == 0 && !to.is_empty() {
            self.is_open.set(self.at == At::Quoted);
        }
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(args: &[&str]) -> Input {
        #[derive(clap::Parser)]
        struct Of {
            #[command(flatten)]
            input: Input,
        }
        <Of as clap::Parser>::parse_from(std::iter::once(&"test").chain(args)).input
    }

    fn read(args: &[&str], text: &[u8]) -> (Vec<String>, Option<String>) {
        let (to, mut records) = mpsc::channel(100);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let path = file.path().to_str().unwrap();
        let input = input(&[args, &["--file", path]].concat());
        let failed = input
            .check()
            .map_err(anyhow::Error::from)
            .and_then(|()| input.read(&to));
        drop(to);
        let mut all = Vec::new();
        while let Some(record) = records.blocking_recv() {
            let text = |bytes: Option<Bytes>| bytes.map(|b| String::from_utf8(b.to_vec()).unwrap());
            let key = text(record.key).map_or(String::new(), |key| format!("{key}="));
            all.push(format!("{key}{}", text(record.value).unwrap_or_default()));
        }
        (all, failed.err().map(|e| format!("{e:#}")))
    }

    #[test]
    fn cells_keep_their_digits() {
        let csv = |cell: &str| {
            read(
                &["--format", "csv", "--key-field", "c"],
                format!("c,d\n{cell},x\n").as_bytes(),
            )
        };
        let value = |cell: &str| {
            let record = csv(cell).0.remove(0);
            record
                .split_once("{\"c\":")
                .unwrap()
                .1
                .trim_end_matches(",\"d\":\"x\"}")
                .to_owned()
        };
        for (cell, want) in [
            ("1", "1"),
            ("-7", "-7"),
            ("12345678901234567", "12345678901234567"),
            ("21.5", "21.5"),
            ("21.50", "21.50"),
            ("-0", "-0"),
            ("1.2E-05", "1.2E-05"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("007", "\"007\""),
            ("+5", "\"+5\""),
            (".5", "\".5\""),
            ("1.", "\"1.\""),
            ("", "\"\""),
            ("press", "\"press\""),
            ("0.12345678901234567890", "0.12345678901234567890"),
        ] {
            assert_eq!(value(cell), want, "{cell}");
        }
        // Another spelling is another key.
        assert_eq!(csv("1.10").0, [r#"1.10={"c":1.10,"d":"x"}"#]);
        let json = read(
            &["--format", "json", "--key-field", "id"],
            b"{\"id\":1.50}\n{\"i\\u0064\":\"a\"}\n{\"id\":1,\"id\":2}\n",
        );
        assert_eq!(json.0, [r#"1.50={"id":1.50}"#, r#"a={"i\u0064":"a"}"#]);
        assert!(
            json.1
                .unwrap()
                .contains("2 records before this are taken: line 3: `id` is there twice")
        );
        // Paths work as in modules.
        let lines = b"{\"a\":{\"id\":\"x\"}}\n{\"a.id\":\"y\",\"a\":{\"id\":\"x\"}}\n{\"a\":{}}\n";
        let nested = read(&["--format", "json", "--key-field", "a.id"], lines);
        assert_eq!(
            nested.0,
            [r#"x={"a":{"id":"x"}}"#, r#"y={"a.id":"y","a":{"id":"x"}}"#]
        );
        assert!(
            nested
                .1
                .unwrap()
                .contains("line 3: there is nothing in `a.id`, of `a`")
        );
        let pointer = read(&["--format", "json", "--key-field", "/a/0"], b"{\"a\":[7]}\n");
        assert_eq!(pointer.0, [r#"7={"a":[7]}"#]);
    }

    #[test]
    fn csv_is_read_as_it_is_written_or_refused() {
        let csv = |args: &[&str], text: &str| read(&[&["--format", "csv"], args].concat(), text.as_bytes());
        for (text, why) in [
            ("sep=;\nid;v\n1;2\n", "Excel's word for `--delimiter`"),
            ("id;\n1;2\n", "column 2 has no name"),
        ] {
            let (all, failed) = csv(&["--delimiter", ";"], text);
            assert!(
                all.is_empty() && failed.as_deref().is_some_and(|told| told.contains(why)),
                "{failed:?}"
            );
        }
        let (all, failed) = csv(
            &["--key-field", "id"],
            "\u{feff}id,v\np1,2\n\"a,b\",\"say \"\"x\"\"\"\n",
        );
        assert_eq!(failed, None);
        assert_eq!(
            all,
            [r#"p1={"id":"p1","v":2}"#, r#"a,b={"id":"a,b","v":"say \"x\""}"#]
        );
        let (all, failed) = csv(
            &["--delimiter", ";", "--decimal-comma"],
            "id;v;w\np1;2,5;1.234,5\n",
        );
        assert_eq!(
            (all, failed),
            (vec![r#"{"id":"p1","v":2.5,"w":"1.234,5"}"#.to_owned()], None)
        );
        let (all, _) = csv(&["--delimiter", "tab"], "a\tb\n1\t2\n");
        assert_eq!(all, [r#"{"a":1,"b":2}"#]);
        for (args, text, why) in [
            (&["--key-field", "id"][..], "id;v\np1;2\n", "--delimiter ';'"),
            (&[], "id;v\np1;2\n", "--delimiter ';'"),
            (&[], "id\tv\np1\t2\n", "--delimiter tab"),
            (
                &["--key-field", "ID"],
                "id,v\np1,2\n",
                "no column `ID`, there are `id`, `v`",
            ),
            (&["--time-field", "t"], "id,v\np1,2\n", "no column `t`"),
            (&[], "id,v,id\n1,2,3\n", "column 3 has the name of another, `id`"),
            (
                &[],
                "id,v\n1,\"open\n2,3\n",
                "row 1: a quote is opened and never closed",
            ),
            (&["--time-field", "t"], "t\n2026-13-01\n", "row 1"),
            (&["--time-field", "t"], "t\n1700000000\n", "--time-unit"),
            (&["--decimal-comma"], "a\n1\n", "--delimiter"),
        ] {
            let (all, failed) = csv(args, text);
            assert!(
                failed.as_ref().is_some_and(|f| f.contains(why)),
                "{text}: {all:?} {failed:?}"
            );
        }
    }

    #[test]
    fn text_is_decoded_or_refused() {
        let latin = b"name,v\ngr\xf6\xdfe,1\n";
        let (all, failed) = read(&["--format", "csv"], latin);
        assert!(all.is_empty() && failed.unwrap().contains("--encoding"));
        let (all, _) = read(&["--format", "csv", "--encoding", "windows-1252"], latin);
        assert_eq!(all, [r#"{"name":"größe","v":1}"#]);
        let wide: Vec<u8> = "\u{feff}a,b\n1,2\n"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let (all, failed) = read(&["--format", "csv"], &wide);
        assert_eq!((all, failed), (vec![r#"{"a":1,"b":2}"#.to_owned()], None));
        // Lines may have any bytes.
        let (all, _) = read(&[], "\u{feff}x\r\ny".as_bytes());
        assert_eq!(all, ["\u{feff}x", "y"]);
    }

    #[test]
    fn a_record_without_the_field_is_refused() {
        for (args, text, why) in [
            (
                ["--key-field", "id"],
                r#"{"a":1}"#,
                "line 1: there is nothing in `id`, of `a`",
            ),
            (["--key-field", "id"], r#"{"id":null}"#, "nothing in `id`"),
            (["--key-field", "id"], "7", "no object"),
            (["--time-field", "t"], r#"{"t":true}"#, "no time"),
            (
                ["--time-field", "t"],
                r#"{"t":1700000000123456789}"#,
                "since 1970",
            ),
        ] {
            let (all, failed) = read(&[&["--format", "json"][..], &args].concat(), text.as_bytes());
            assert!(
                all.is_empty() && failed.as_ref().is_some_and(|f| f.contains(why)),
                "{text}: {failed:?}"
            );
        }
        let args = ["--format", "json", "--time-field", "t", "--time-unit", "s"];
        assert_eq!(read(&args, br#"{"t":1700000000}"#).1, None);
    }
}
