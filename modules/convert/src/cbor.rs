//! CBOR (RFC 8949): reads a value with the places of its parts, edits its bytes, and converts it to JSON.
//!
//! JSON cannot express byte strings, which become text in base64url (or as their tags say), or numbers of
//! more than 64 bits, whose digits are kept. Of the tags, 0 to 4, 21 to 24, 32 to 36 and 55799 are supported;
//! others are an error.

use crate::fields::Fields;
use crate::scale::{Scale, Scaled};
use crate::whole;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use std::borrow::Cow;
use std::ops::Range;
use weir_sdk::{Raw, Scaling};

/// Maximum nesting depth, as for JSON.
const DEPTH_MAX: usize = 128;
/// Limit of the exponent of a decimal fraction: its text has as many zeros.
const EXPONENT_MAX: i64 = 400;

/// A value and its place.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    span: Range<usize>,
    kind: Kind<'a>,
}

#[derive(Debug)]
enum Kind<'a> {
    Null,
    Boolean(bool),
    /// A whole number of up to 64 bits with a sign.
    Whole(i128),
    Float(Raw),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    List(Vec<Item<'a>>),
    Map(Vec<(Item<'a>, Item<'a>)>),
    Tagged(u64, Box<Item<'a>>),
    /// A simple value without a name.
    Simple,
}

/// Reads all of `bytes`.
pub(crate) fn read(bytes: &[u8]) -> Result<Item<'_>, String> {
    let mut decoder = Decoder::new(bytes);
    let item = item(&mut decoder, 0)?;
    match decoder.position() == bytes.len() {
        true => Ok(item),
        false => Err(format!(
            "value is not CBOR: something follows it at byte {}",
            decoder.position()
        )),
    }
}

fn item<'a>(from: &mut Decoder<'a>, depth: usize) -> Result<Item<'a>, String> {
    let start = from.position();
    let bad = |_: minicbor::decode::Error| format!("value is not CBOR at byte {start}");
    if depth >= DEPTH_MAX {
        return Err(format!("value is nested deeper than {DEPTH_MAX}"));
    }
    let kind = match from.datatype().map_err(bad)? {
        Type::Null => from.null().map(|()| Kind::Null).map_err(bad)?,
        Type::Undefined => from.undefined().map(|()| Kind::Null).map_err(bad)?,
        Type::Bool => Kind::Boolean(from.bool().map_err(bad)?),
        Type::U8
        | Type::U16
        | Type::U32
        | Type::U64
        | Type::I8
        | Type::I16
        | Type::I32
        | Type::I64
        | Type::Int => Kind::Whole(from.int().map_err(bad)?.into()),
        Type::F16 => {
            let bits = from
                .input()
                .get(start + 1..start + 3)
                .and_then(|b| b.first_chunk());
            let bits = bits.ok_or_else(|| format!("value is not CBOR at byte {start}"))?;
            from.set_position(start + 3);
            Kind::Float(Raw::Half(u16::from_be_bytes(*bits)))
        }
        Type::F32 => Kind::Float(Raw::Single(from.f32().map_err(bad)?)),
        Type::F64 => Kind::Float(Raw::Double(from.f64().map_err(bad)?)),
        Type::Simple => {
            let simple = from.simple().map_err(bad)?;
            // A simple value in a byte of its own is at least 32 (RFC 8949, section 3.3).
            if from.position() - start == 2 && simple < 32 {
                return Err(format!("value is not CBOR at byte {start}"));
            }
            Kind::Simple
        }
        Type::Bytes => Kind::Bytes(Cow::Borrowed(from.bytes().map_err(bad)?)),
        Type::BytesIndef => {
            let chunks = from.bytes_iter().map_err(bad)?;
            let chunks: Vec<&[u8]> = chunks.collect::<Result<_, _>>().map_err(bad)?;
            Kind::Bytes(Cow::Owned(chunks.concat()))
        }
        Type::String => Kind::Text(Cow::Borrowed(from.str().map_err(bad)?)),
        Type::StringIndef => {
            let chunks = from.str_iter().map_err(bad)?;
            let chunks: Vec<&str> = chunks.collect::<Result<_, _>>().map_err(bad)?;
            Kind::Text(Cow::Owned(chunks.concat()))
        }
        Type::Array | Type::ArrayIndef => list(from, depth)?,
        Type::Map | Type::MapIndef => map(from, depth)?,
        Type::Tag => {
            let tag = from.tag().map_err(bad)?;
            Kind::Tagged(tag.as_u64(), Box::new(item(from, depth + 1)?))
        }
        Type::Break | Type::Unknown(_) => return Err(format!("value is not CBOR at byte {start}")),
    };
    Ok(Item {
        span: start..from.position(),
        kind,
    })
}

/// Returns true if another part follows, of `left` parts or until a break.
fn more(from: &mut Decoder<'_>, left: &mut Option<u64>) -> Result<bool, String> {
    match left {
        Some(0) => Ok(false),
        Some(left) => {
            *left -= 1;
            Ok(true)
        }
        None => {
            let at = from.position();
            let kind = from.datatype();
            let kind = kind.map_err(|_| format!("value is not CBOR at byte {at}"))?;
            if kind == Type::Break {
                from.set_position(at + 1);
            }
            Ok(kind != Type::Break)
        }
    }
}

fn list<'a>(from: &mut Decoder<'a>, depth: usize) -> Result<Kind<'a>, String> {
    let at = from.position();
    let left = from.array();
    let mut left = left.map_err(|_| format!("value is not CBOR at byte {at}"))?;
    // Reserves nothing for the announced length: each item takes at least a byte.
    let mut items = Vec::new();
    while more(from, &mut left)? {
        items.push(item(from, depth + 1)?);
    }
    Ok(Kind::List(items))
}

fn map<'a>(from: &mut Decoder<'a>, depth: usize) -> Result<Kind<'a>, String> {
    let at = from.position();
    let left = from.map();
    let mut left = left.map_err(|_| format!("value is not CBOR at byte {at}"))?;
    let mut fields = Vec::new();
    while more(from, &mut left)? {
        fields.push((item(from, depth + 1)?, item(from, depth + 1)?));
    }
    let mut names: Vec<&str> = fields.iter().filter_map(|(name, _)| name.name()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("value has the name `{}` twice", pair[0].escape_debug()));
    }
    // Other types by their initial byte.
    let input = from.input();
    let mut others: Vec<&[u8]> = fields
        .iter()
        .filter(|(name, _)| name.name().is_none())
        .filter_map(|(name, _)| input.get(name.span.clone()))
        .collect();
    others.sort_unstable();
    match others.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err(format!("value has a name twice in the map at byte {at}")),
        false => Ok(Kind::Map(fields)),
    }
}

impl<'a> Item<'a> {
    /// Returns the text if the item can be a field name.
    fn name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the fields of an object.
    fn fields(&self) -> Option<&[(Item<'a>, Item<'a>)]> {
        match &self.kind {
            Kind::Map(fields) => Some(fields),
            _ => None,
        }
    }

    fn at(&self, path: &weir_sdk::Path) -> Option<&Item<'a>> {
        path.names().try_fold(self, |item, name| match &item.kind {
            Kind::List(items) if name.bytes().all(|b| b.is_ascii_digit()) => {
                items.get(name.parse::<usize>().ok()?)
            }
            _ => {
                let mut fields = item.fields()?.iter();
                fields.find(|(key, _)| key.name() == Some(name)).map(|(_, v)| v)
            }
        })
    }

    /// Returns the text of a number.
    fn number(&self) -> Option<Result<String, String>> {
        match &self.kind {
            Kind::Whole(number) => Some(Ok(number.to_string())),
            Kind::Float(raw) => Some(float(*raw)),
            Kind::Tagged(2..=4, _) => {
                let mut text = Vec::new();
                let written = self.write(&mut text);
                Some(written.map(|()| String::from_utf8_lossy(&text).into_owned()))
            }
            _ => None,
        }
    }

    /// Writes the item as JSON.
    pub(crate) fn write(&self, out: &mut Vec<u8>) -> Result<(), String> {
        match &self.kind {
            Kind::Null => out.extend_from_slice(b"null"),
            Kind::Boolean(is) => out.extend_from_slice(if *is { b"true" } else { b"false" }),
            Kind::Whole(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Kind::Float(raw) => out.extend_from_slice(float(*raw)?.as_bytes()),
            Kind::Text(text) => weir_sdk::escape_into(out, text),
            Kind::Bytes(bytes) => weir_sdk::escape_into(out, &URL_SAFE_NO_PAD.encode(bytes)),
            Kind::List(items) => {
                out.push(b'[');
                for (n, item) in items.iter().enumerate() {
                    out.extend((n > 0).then_some(b','));
                    item.write(out)?;
                }
                out.push(b']');
            }
            Kind::Map(fields) => {
                out.push(b'{');
                for (n, (name, value)) in fields.iter().enumerate() {
                    out.extend((n > 0).then_some(b','));
                    let name = name.name().ok_or("value has a name that is not a text")?;
                    weir_sdk::escape_into(out, name);
                    out.push(b':');
                    value.write(out)?;
                }
                out.push(b'}');
            }
            Kind::Tagged(tag, item) => item.write_tagged(*tag, out)?,
            Kind::Simple => {
                return Err("value has a simple value that JSON cannot express".to_owned());
            }
        }
        Ok(())
    }

    /// Writes the item as JSON under a tag (RFC 8949, section 3.4).
    fn write_tagged(&self, tag: u64, out: &mut Vec<u8>) -> Result<(), String> {
        let text = match (tag, &self.kind) {
            (0 | 32..=36, Kind::Text(_)) | (1, Kind::Whole(_) | Kind::Float(_)) | (55_799, _) => {
                return self.write(out);
            }
            (2 | 3, Kind::Bytes(bytes)) if bytes.len() > whole::BYTES_MAX => {
                return Err(format!(
                    "value has a number of more than {} bytes",
                    whole::BYTES_MAX
                ));
            }
            (2, Kind::Bytes(bytes)) => {
                out.extend_from_slice(whole::digits(bytes).as_bytes());
                return Ok(());
            }
            (3, Kind::Bytes(bytes)) => {
                out.push(b'-');
                out.extend_from_slice(whole::digits(&whole::next(bytes)).as_bytes());
                return Ok(());
            }
            (4, Kind::List(parts)) => return fraction(parts, out),
            (22, Kind::Bytes(bytes)) => STANDARD.encode(bytes),
            (23, Kind::Bytes(bytes)) => bytes.iter().map(|b| format!("{b:02x}")).collect(),
            (21 | 24, Kind::Bytes(bytes)) => URL_SAFE_NO_PAD.encode(bytes),
            _ => return Err(format!("value has the tag {tag}, which JSON cannot express")),
        };
        weir_sdk::escape_into(out, &text);
        Ok(())
    }
}

/// Writes a decimal fraction: `[exponent, mantissa]`.
fn fraction(parts: &[Item<'_>], out: &mut Vec<u8>) -> Result<(), String> {
    let bad = || "value has an invalid decimal fraction".to_owned();
    let [exponent, mantissa] = parts else {
        return Err(bad());
    };
    let Kind::Whole(exponent) = exponent.kind else {
        return Err(bad());
    };
    let exponent = i64::try_from(exponent).ok().filter(|e| e.abs() <= EXPONENT_MAX);
    let exponent = exponent.ok_or_else(bad)?;
    let text = mantissa.number().ok_or_else(bad)??;
    if text.contains(['.', 'e']) {
        return Err(bad());
    }
    out.extend_from_slice(text.as_bytes());
    if exponent != 0 {
        out.extend_from_slice(format!("e{exponent}").as_bytes());
    }
    Ok(())
}

fn float(raw: Raw) -> Result<String, String> {
    let mut text = Vec::new();
    Scaling::NONE.write(raw, &mut text);
    match text.as_slice() {
        b"null" => Err("value has a number that is not finite".to_owned()),
        text => Ok(String::from_utf8_lossy(text).into_owned()),
    }
}

/// Scales, renames and removes fields of the object `value`, and writes the result as CBOR.
pub(crate) fn rewrite(
    value: &[u8],
    scales: &[Scale],
    fields: &Fields,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let root = read(value)?;
    if scales.is_empty() && fields.is_empty() {
        out.extend_from_slice(value);
        return Ok(());
    }
    let object = match &root.kind {
        // This tag only marks the bytes as CBOR.
        Kind::Tagged(55_799, inner) => inner,
        _ => &root,
    };
    let own = object.fields().ok_or("value is not a CBOR map")?;
    let mut edits: Vec<(Range<usize>, Vec<u8>)> = Vec::new();
    for scale in scales {
        let Some(item) = object.at(&scale.path) else {
            continue;
        };
        let text = item.number().ok_or_else(|| scale.is_no_number())??;
        let scaled = scale.number(text.as_bytes())?;
        let number = match scaled {
            Scaled::Double(number) => number_of_double(number)?,
            Scaled::Exact(exact) => match exact.whole() {
                Some(whole) => written(|to| to.i64(whole).map(|_| ()))?,
                None => number_of_double(exact.to_f64().unwrap_or_default())?,
            },
            Scaled::Long(_) => {
                let mut text = Vec::new();
                scaled.write(&mut text)?;
                let text = String::from_utf8_lossy(&text);
                match text.contains('.') {
                    true => number_of_double(text.parse().unwrap_or_default())?,
                    false => {
                        let mut whole = Vec::new();
                        number(&text, &mut Encoder::new(&mut whole))?;
                        whole
                    }
                }
            }
        };
        edits.push((item.span.clone(), number));
    }
    edits.sort_by_key(|(span, _)| span.start);
    if fields.is_empty() {
        // Only numbers change; even the form of lengths stays.
        let mut done = 0;
        for (span, new) in edits {
            out.extend_from_slice(value.get(done..span.start).unwrap_or_default());
            out.extend_from_slice(&new);
            done = span.end;
        }
        out.extend_from_slice(value.get(done..).unwrap_or_default());
        return Ok(());
    }
    out.extend_from_slice(value.get(..object.span.start).unwrap_or_default());
    fields.check(own.iter().filter_map(|(name, _)| name.name()))?;
    let stays = |name: &Item<'_>| match name.name() {
        Some(name) => fields.stays(name),
        // Settings can only name text keys.
        None => fields.keep.is_empty(),
    };
    let count = own.iter().filter(|(name, _)| stays(name)).count();
    out.extend(written(|to| to.map(count as u64).map(|_| ()))?);
    for (name, item) in own.iter().filter(|(name, _)| stays(name)) {
        match name.name().filter(|name| fields.renamed(name) != *name) {
            Some(text) => out.extend(written(|to| to.str(fields.renamed(text)).map(|_| ()))?),
            None => out.extend_from_slice(value.get(name.span.clone()).unwrap_or_default()),
        }
        let mut done = item.span.start;
        let within = edits
            .iter()
            .filter(|(span, _)| item.span.start <= span.start && span.end <= item.span.end);
        for (span, new) in within {
            out.extend_from_slice(value.get(done..span.start).unwrap_or_default());
            out.extend_from_slice(new);
            done = span.end;
        }
        out.extend_from_slice(value.get(done..item.span.end).unwrap_or_default());
    }
    Ok(())
}

fn number_of_double(number: f64) -> Result<Vec<u8>, String> {
    written(|to| to.f64(number).map(|_| ()))
}

type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn written(write: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> Written) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    write(&mut Encoder::new(&mut out)).map_err(|e| e.to_string())?;
    Ok(out)
}

/// Writes the JSON `value` as CBOR.
pub(crate) fn from_json(value: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let document = weir_sdk::document::Document::parse(value)?;
    encode(document.root(), &mut Encoder::new(out))
}

fn encode(node: &weir_sdk::document::Node<'_>, to: &mut Encoder<&mut Vec<u8>>) -> Result<(), String> {
    use weir_sdk::document::Value;
    let told = |e: minicbor::encode::Error<std::convert::Infallible>| e.to_string();
    match node.value() {
        Value::Null => to.null().map_err(told)?,
        Value::Boolean(is) => to.bool(*is).map_err(told)?,
        Value::Text(text) => to.str(text).map_err(told)?,
        Value::Number(text) => return number(text, to),
        Value::List(items) => {
            to.array(items.len() as u64).map_err(told)?;
            for item in items {
                encode(item, to)?;
            }
            return Ok(());
        }
        Value::Object(fields) => {
            to.map(fields.len() as u64).map_err(told)?;
            for field in fields {
                to.str(&field.name).map_err(told)?;
                encode(&field.node, to)?;
            }
            return Ok(());
        }
    };
    Ok(())
}

/// Writes a number: whole numbers with all digits, others as the smallest float of the same value.
fn number(text: &str, to: &mut Encoder<&mut Vec<u8>>) -> Result<(), String> {
    let told = |e: minicbor::encode::Error<std::convert::Infallible>| e.to_string();
    let is_whole = !text.contains(['.', 'e', 'E']) && text != "-0";
    if is_whole
        && let Ok(whole) = text
            .parse::<i128>()
            .map_err(|_| ())
            .and_then(|n| minicbor::data::Int::try_from(n).map_err(|_| ()))
    {
        to.int(whole).map_err(told)?;
        return Ok(());
    }
    if is_whole {
        let (tag, digits) = match text.strip_prefix('-') {
            Some(digits) => (3u64, digits),
            None => (2, text),
        };
        let bytes = whole::bytes(digits);
        let bytes =
            bytes.ok_or_else(|| format!("value has a number of more than {} bytes", whole::BYTES_MAX))?;
        let bytes = if tag == 3 { whole::previous(&bytes) } else { bytes };
        to.tag(minicbor::data::Tag::new(tag))
            .and_then(|to| to.bytes(&bytes))
            .map_err(told)?;
        return Ok(());
    }
    let double: f64 = text.parse().map_err(|_| format!("{text} is not a number"))?;
    if !double.is_finite() || !is_same(text, double) {
        return Err(format!("a float of 64 bits cannot hold the number {text}"));
    }
    let single = double as f32;
    let written = match f64::from(single) == double {
        true => match weir_sdk::half_of(single) {
            Some(bits) => {
                let [high, low] = bits.to_be_bytes();
                to.writer_mut().extend_from_slice(&[0xf9, high, low]);
                return Ok(());
            }
            None => to.f32(single),
        },
        false => to.f64(double),
    };
    written.map(|_| ()).map_err(told)
}

/// Returns true if the shortest text of `double` has the digits of `text`, so that no digit is lost.
fn is_same(text: &str, double: f64) -> bool {
    significant(text) == significant(&format!("{double:e}"))
}

/// Returns the significant digits of a number, without zeros around them, and the power of ten of the first
/// digit.
fn significant(text: &str) -> (String, i64) {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse().unwrap_or(i64::MAX / 2)),
        None => (text, 0i64),
    };
    let mantissa = mantissa.trim_start_matches('-');
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{part}");
    let zeros = digits.len() - digits.trim_start_matches('0').len();
    let digits = digits.trim_matches('0').to_owned();
    match digits.is_empty() {
        true => (digits, 0),
        false => (digits, exponent.saturating_add(whole.len() as i64 - zeros as i64)),
    }
}
