//! Fields of a JSON document without parsing the document.
//!
//! The structure is found 64 bytes at a time (the first stage of simdjson: Langdale and Lemire, "Parsing
//! Gigabytes of JSON per Second", VLDB Journal 28, 2019): unescaped quotes, bytes within strings, and the
//! depth of brackets. Single bytes are examined only where a key may begin.
//!
//! Only the requested field is checked: a document that is malformed elsewhere still yields the field, and
//! the first of duplicate names counts. [`Document`](crate::document::Document) validates a whole document.

use crate::check::check;
use crate::path::Path;
use crate::simd::{Masks, masks};
use crate::text::unescape;
use std::borrow::Cow;

/// The text of a value in a document, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<'a> {
    text: Option<&'a [u8]>,
}

impl<'a> Json<'a> {
    /// Wraps a whole document.
    pub fn new(document: &'a [u8]) -> Self {
        Self {
            text: Some(trim(document)),
        }
    }

    /// No value.
    pub const NONE: Self = Self { text: None };

    /// Returns the field at `path`. Dots separate the names of nested fields; a path that begins with `/` is
    /// a JSON Pointer, as in [`Path::new`].
    #[inline]
    pub fn get(self, path: &str) -> Json<'a> {
        let Some(text) = self.text else { return Self::NONE };
        if path.starts_with('/') {
            return self.at(&Path::new(path));
        }
        let (name, deeper) = match path.split_once('.') {
            Some((name, deeper)) => (name, Some(deeper)),
            None => (path, None),
        };
        let found = Self {
            text: field(text, name.as_bytes()),
        };
        match deeper {
            Some(deeper) => found.get(deeper),
            None => found,
        }
    }

    /// Returns the field at a parsed `path`.
    #[inline]
    pub fn at(self, path: &Path) -> Json<'a> {
        let mut text = self.text;
        for name in &path.names {
            text = text.and_then(|t| match t.first() {
                Some(b'[') => item(t, name),
                _ => field(t, name),
            });
        }
        Self { text }
    }

    /// Returns the field at a parsed `path` and checks the structure of the whole document: strings and
    /// brackets are closed, nothing follows, and no name on the path occurs twice. Other content is not
    /// validated; [`check`](crate::check) does that. Returns nothing if the document is neither an object nor
    /// an array.
    ///
    /// # Errors
    /// The reason, if the structure is invalid or a name is duplicate.
    #[inline]
    pub fn whole_at(self, path: &Path) -> Result<Json<'a>, String> {
        let document = self.text.unwrap_or_default();
        let (mut names, mut text) = (path.names.iter(), None);
        if let Some(name) = names.next() {
            text = match document.first() {
                Some(b'{') => sole_field(document, name)?,
                Some(b'[') => {
                    check(document)?;
                    item(document, name)
                }
                // Other values have no fields.
                _ => None,
            };
        }
        for name in names {
            text = match text.and_then(|t| Some((t, t.first()?))) {
                Some((t, b'{')) => sole_field(t, name)?,
                Some((t, b'[')) => item(t, name),
                _ => None,
            };
        }
        Ok(Self { text })
    }

    /// Returns the text as it stands in the document.
    pub fn text(self) -> Option<&'a [u8]> {
        self.text
    }

    /// Returns the offset of the value's text in `document`, which must contain it.
    pub fn offset_in(self, document: &[u8]) -> Option<usize> {
        let start = (self.text?.as_ptr() as usize).checked_sub(document.as_ptr() as usize)?;
        (start <= document.len()).then_some(start)
    }

    /// Returns true if there is a value, null included.
    pub fn exists(self) -> bool {
        self.text.is_some()
    }

    /// Returns true if the value is `null`.
    pub fn is_null(self) -> bool {
        self.text == Some(b"null")
    }

    /// Returns the value of a number.
    #[inline]
    pub fn number(self) -> Option<f64> {
        number(self.text?)
    }

    /// Returns the value of `true` or `false`.
    pub fn boolean(self) -> Option<bool> {
        match self.text? {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }

    /// Returns the value of a string; borrowed unless the string has escapes.
    pub fn string(self) -> Option<Cow<'a, str>> {
        let inner = self.text?.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        if !inner.contains(&b'\\') {
            return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
        }
        unescape(inner).map(Cow::Owned)
    }

    /// Returns the items of an array; empty for other values.
    pub fn items(self) -> impl Iterator<Item = Json<'a>> {
        let mut rest = self.text.and_then(|t| t.strip_prefix(b"[")).unwrap_or_default();
        std::iter::from_fn(move || {
            rest = trim_start(rest);
            rest = trim_start(rest.strip_prefix(b",").unwrap_or(rest));
            if rest.first().is_none_or(|b| *b == b']') {
                return None;
            }
            let value = value_text(rest).filter(|value| !value.is_empty())?;
            rest = rest.get(value.len()..)?;
            Some(Json { text: Some(value) })
        })
    }

    /// Returns name (raw, without quotes) and value of each field of an object; empty for other values.
    pub fn fields(self) -> impl Iterator<Item = (&'a [u8], Json<'a>)> {
        let mut rest = self.text.and_then(|t| t.strip_prefix(b"{")).unwrap_or_default();
        std::iter::from_fn(move || {
            rest = trim_start(rest);
            rest = trim_start(rest.strip_prefix(b",").unwrap_or(rest));
            if rest.first() != Some(&b'"') {
                return None;
            }
            let name = value_text(rest)?;
            let after = trim_start(rest.get(name.len()..)?);
            let value = value_text(trim_start(after.strip_prefix(b":")?))?;
            let end = value.as_ptr() as usize + value.len() - rest.as_ptr() as usize;
            rest = rest.get(end..)?;
            Some((name.get(1..name.len() - 1)?, Json { text: Some(value) }))
        })
    }
}

/// Returns the item of an array at the index `name`.
#[cold]
fn item<'a>(list: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let place = std::str::from_utf8(name)
        .ok()
        .filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
    let place = place?.parse().ok()?;
    Json { text: Some(list) }.items().nth(place)?.text
}

/// Returns the value of `name` in the object `doc`.
#[inline]
fn field<'a>(doc: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    plain_field(doc, name).or_else(|| match doc.contains(&b'\\') || name.is_empty() {
        true => escaped_field(doc, name),
        false => None,
    })
}

/// Returns the masks of up to 64 bytes at `at`.
#[inline(always)]
fn masks_at(doc: &[u8], at: usize, needle: u8) -> Masks {
    let rest = doc.get(at..).unwrap_or_default();
    if let Some(block) = rest.first_chunk() {
        return masks(block, needle);
    }
    match doc.last_chunk() {
        // Reads a full block that ends with the document, and shifts out the bytes already examined.
        Some(block) => masks(block, needle).behind(64 - rest.len()),
        None => {
            let mut padded = [b' '; 64];
            if let Some(front) = padded.get_mut(..rest.len()) {
                front.copy_from_slice(rest);
            }
            masks(&padded, needle)
        }
    }
}

/// Returns the value of `name` in the object `doc`. Checks that the object is closed, that nothing follows,
/// and that the name occurs at most once.
#[inline]
fn sole_field<'a>(doc: &'a [u8], name: &[u8]) -> Result<Option<&'a [u8]>, String> {
    let Some(needle) = name.first().copied() else {
        return read_whole(doc, name);
    };
    let (mut in_string, mut depth, mut at) = (0u64, 0i32, 0);
    let mut found: Option<&[u8]> = None;
    while at < doc.len() {
        let m = masks_at(doc, at, needle);
        if m.backslashes != 0 {
            // The document may write the name with escapes.
            return read_whole(doc, name);
        }
        let strings = prefix_xor(m.quotes) ^ in_string;
        in_string = ((strings as i64) >> 63) as u64;
        let (opens, closes) = (m.opens & !strings, m.closes & !strings);
        let mut candidates = m.quotes & strings & ((m.needles >> 1) | 1 << 63);
        while candidates != 0 {
            let bit = candidates.trailing_zeros();
            candidates &= candidates - 1;
            let Some(value) = after_key(doc.get(at + bit as usize + 1..).unwrap_or_default(), name) else {
                continue;
            };
            let below = (1u64 << bit) - 1;
            let here = depth + (opens & below).count_ones() as i32 - (closes & below).count_ones() as i32;
            if here == 1 && found.replace(value).is_some() {
                return read_whole(doc, name);
            }
        }
        // The document ends at its last closing bracket.
        let end = doc.len() - 1 - at;
        let mut closing = if end < 64 { closes & !(1 << end) } else { closes };
        while closing != 0 {
            let bit = closing.trailing_zeros();
            closing &= closing - 1;
            let upto = u64::MAX >> (63 - bit);
            let here = depth + (opens & upto).count_ones() as i32 - (closes & upto).count_ones() as i32;
            if here <= 0 {
                return read_whole(doc, name);
            }
        }
        depth += opens.count_ones() as i32 - closes.count_ones() as i32;
        at += 64;
    }
    match depth == 0 && in_string == 0 && doc.last() == Some(&b'}') {
        true => {
            let Some(value) = found else { return Ok(None) };
            match value_text(value) {
                Some(text) if is_followed(value, text.len()) => Ok(Some(text)),
                _ => read_whole(doc, name),
            }
        }
        false => read_whole(doc, name),
    }
}

/// Returns true if the value in the first `len` bytes of `rest` is followed by another field or the end of
/// the object.
#[inline(always)]
fn is_followed(rest: &[u8], len: usize) -> bool {
    match rest.get(len) {
        Some(b',' | b'}') => true,
        Some(b' ' | b'\t' | b'\n' | b'\r') => is_followed_at_last(rest, len),
        _ => false,
    }
}

#[cold]
fn is_followed_at_last(rest: &[u8], len: usize) -> bool {
    matches!(
        trim_start(rest.get(len..).unwrap_or_default()).first(),
        Some(b',' | b'}')
    )
}

/// Does the work of [`sole_field`] with the full parser: for unusual documents and for the wording of errors.
#[cold]
fn read_whole<'a>(doc: &'a [u8], name: &[u8]) -> Result<Option<&'a [u8]>, String> {
    check(doc)?;
    Ok(field(doc, name))
}

/// Does the work of [`field`] if the document may write the name with escapes.
#[cold]
fn escaped_field<'a>(doc: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let is_it = |raw: &[u8]| match raw.contains(&b'\\') {
        true => unescape(raw).is_some_and(|plain| plain.as_bytes() == name),
        false => raw == name,
    };
    let mut fields = Json { text: Some(doc) }.fields();
    fields.find(|(raw, _)| is_it(raw))?.1.text
}

/// Does the work of [`field`] for a name written without escapes.
#[inline]
fn plain_field<'a>(doc: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    if doc.first() != Some(&b'{') || name.is_empty() {
        return None;
    }
    let needle = *name.first()?;
    let (mut in_string, mut escaped) = (0u64, false);
    let mut depth = 0i32;
    let mut at = 0;
    while at < doc.len() {
        let mut m = masks_at(doc, at, needle);
        if m.backslashes != 0 || escaped {
            m.quotes &= !escapes(m.backslashes, &mut escaped);
        }
        let strings = prefix_xor(m.quotes) ^ in_string;
        in_string = ((strings as i64) >> 63) as u64;
        let (opens, closes) = (m.opens & !strings, m.closes & !strings);
        // By this mask, an opening quote is inside a string and a closing quote is not. The name may begin in
        // the next block.
        let mut candidates = m.quotes & strings & ((m.needles >> 1) | 1 << 63);
        while candidates != 0 {
            let bit = candidates.trailing_zeros();
            candidates &= candidates - 1;
            let Some(value) = after_key(doc.get(at + bit as usize + 1..)?, name) else {
                continue;
            };
            let below = (1u64 << bit) - 1;
            let here = depth + (opens & below).count_ones() as i32 - (closes & below).count_ones() as i32;
            if here == 1 {
                return value_text(value);
            }
        }
        depth += opens.count_ones() as i32 - closes.count_ones() as i32;
        at += 64;
    }
    None
}

/// Returns the text after `name`, its quote and a colon.
#[inline]
fn after_key<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    // A loop is faster: a call of `memcmp` costs more than the few bytes of a name.
    if text.len() <= name.len() || !name.iter().zip(text).all(|(a, b)| a == b) {
        return None;
    }
    let rest = text.get(name.len()..)?.strip_prefix(b"\"")?;
    let rest = match rest.strip_prefix(b":") {
        Some(rest) => rest,
        None => trim_start(rest).strip_prefix(b":")?,
    };
    Some(if rest.first().is_some_and(|b| *b <= b' ') {
        trim_start(rest)
    } else {
        rest
    })
}

/// Returns the value at the start of `text`.
#[inline]
fn value_text(text: &[u8]) -> Option<&[u8]> {
    let len = match text.first()? {
        b'"' => string_len(text)?,
        b'{' | b'[' => bracket_len(text)?,
        _ => text
            .iter()
            .position(|b| matches!(b, b',' | b'}' | b']') || *b <= b' ')
            .unwrap_or(text.len()),
    };
    text.get(..len).filter(|t| !t.is_empty())
}

fn string_len(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn bracket_len(text: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0usize);
    loop {
        match text.get(at)? {
            b'"' => at += string_len(text.get(at..)?)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth -= 1;
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => at += 1,
        }
    }
}

/// Returns the escaped bytes, and carries an escape into the next block.
fn escapes(backslashes: u64, escaped: &mut bool) -> u64 {
    let mut out = u64::from(*escaped);
    let mut skip = *escaped;
    *escaped = false;
    for bit in 0..64 {
        if skip {
            skip = false;
        } else if backslashes >> bit & 1 == 1 {
            skip = true;
            match bit {
                63 => *escaped = true,
                _ => out |= 1 << (bit + 1),
            }
        }
    }
    out
}

/// Computes for each bit the parity of all bits up to it: ones from an opening quote to before the closing
/// quote.
fn prefix_xor(mut bits: u64) -> u64 {
    bits ^= bits << 1;
    bits ^= bits << 2;
    bits ^= bits << 4;
    bits ^= bits << 8;
    bits ^= bits << 16;
    bits ^ bits << 32
}

/// Parses a JSON number. Exact and fast for typical sensor values; other numbers go to the standard library.
#[inline]
fn number(text: &[u8]) -> Option<f64> {
    const POWERS: [f64; 16] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    ];
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, text),
    };
    // Up to 15 digits fit a double exactly, and so do these powers: one division rounds once (Clinger 1990).
    if digits.len() <= 16 {
        let (mut mantissa, mut count, mut scale, mut point) = (0u64, 0usize, 0usize, false);
        for b in digits {
            match b {
                b'0'..=b'9' => {
                    mantissa = mantissa * 10 + u64::from(b - b'0');
                    count += 1;
                    scale += usize::from(point);
                }
                b'.' if !point && count > 0 => point = true,
                _ => return slow_number(text),
            }
        }
        // JSON has no `01` and no `1.`.
        if (digits.first() == Some(&b'0') && digits.get(1).is_some_and(u8::is_ascii_digit))
            || (point && scale == 0)
        {
            return None;
        }
        if count > 0
            && count <= 15
            && let Some(power) = POWERS.get(scale)
        {
            let value = mantissa as f64 / power;
            return Some(if negative { -value } else { value });
        }
    }
    slow_number(text)
}

#[cold]
fn slow_number(text: &[u8]) -> Option<f64> {
    // Rust also reads `inf`, `nan`, `+1`, `.5` and `1.`, which JSON does not have.
    crate::document::is_number(text)
        .then(|| std::str::from_utf8(text).ok()?.parse().ok())
        .flatten()
}

/// A number as JSON text; infinities and NaN are written as `null`.
#[derive(Clone, Copy, Debug)]
pub struct JsonNumber(pub f64);

impl std::fmt::Display for JsonNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            n if !n.is_finite() => f.write_str("null"),
            n if is_long(n) => std::fmt::LowerExp::fmt(&n, f),
            n => n.fmt(f),
        }
    }
}

/// Returns true if a number is shorter with an exponent. Such a number is written with an exponent instead of
/// a row of zeros.
pub(crate) fn is_long(number: f64) -> bool {
    number != 0.0 && !(1e-7..1e17).contains(&number.abs())
}

/// Unescapes a field name as returned by [`Json::fields`].
pub fn name_of(written: &[u8]) -> String {
    let quoted = [b"\"", written, b"\""].concat();
    let name = Json::new(&quoted).string().map(Cow::into_owned);
    name.unwrap_or_else(|| String::from_utf8_lossy(written).into_owned())
}

fn trim_start(text: &[u8]) -> &[u8] {
    let blanks = text
        .iter()
        .take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'))
        .count();
    text.get(blanks..).unwrap_or_default()
}

fn trim(text: &[u8]) -> &[u8] {
    let text = trim_start(text);
    let end = text
        .iter()
        .rposition(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r'))
        .map_or(0, |i| i + 1);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>()
                .prop_filter("finite", |f| f.is_finite())
                .prop_map(Value::from),
            (-100_000i64..100_000).prop_map(|n| Value::from(n as f64 / 64.0)),
            any::<i32>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
            prop_oneof![Just("\"a\":1"), Just("\\"), Just("}{"), Just("a\\\"b")].prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map("[a-d]{1,2}", inner, 0..6)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_field_is_what_a_parser_finds(doc in json(), pretty in any::<bool>(), name in "[a-d]{1,2}") {
            let text = if pretty { serde_json::to_string_pretty(&doc) } else { serde_json::to_string(&doc) }.unwrap();
            let found = Json::new(text.as_bytes()).get(&name);
            let want = doc.get(&name);
            prop_assert_eq!(found.exists(), want.is_some());
            if let Some(want) = want {
                let got: Value = serde_json::from_slice(found.text().unwrap()).unwrap();
                prop_assert_eq!(&got, want);
                prop_assert_eq!(found.number(), want.as_f64());
                let string = found.string();
                prop_assert_eq!(string.as_deref(), want.as_str());
                prop_assert_eq!(found.boolean(), want.as_bool());
            }
        }

        #[test]
        fn all_fields_are_seen_in_order(doc in json()) {
            let text = serde_json::to_string(&doc).unwrap();
            let names: Vec<String> = Json::new(text.as_bytes()).fields()
                .map(|(n, _)| String::from_utf8_lossy(n).into_owned()).collect();
            let want: Vec<String> = doc.as_object().map_or(vec![], |o| o.keys().cloned().collect());
            prop_assert_eq!(names, want);
        }

        #[test]
        fn arbitrary_bytes_never_panic(doc in proptest::collection::vec(any::<u8>(), 0..200), braced in any::<bool>()) {
            let mut doc = doc;
            if braced { doc.insert(0, b'{'); }
            let json = Json::new(&doc);
            let field = json.get("a.b");
            let _ = (field.number(), field.string(), json.fields().count());
        }

        #[test]
        fn numbers_are_exact(n in any::<f64>().prop_filter("finite", |f| f.is_finite())) {
            prop_assert_eq!(number(n.to_string().as_bytes()), Some(n));
        }
    }

    #[test]
    fn items_are_seen_in_order() {
        let texts = |json: &'static str| -> Vec<_> {
            let items = Json::new(json.as_bytes()).items();
            items
                .map(|i| String::from_utf8(i.text().unwrap().to_vec()).unwrap())
                .collect()
        };
        assert_eq!(
            texts(r#" [ 1 , "a,]" , [2,[3]] , {"b":[4]} ] "#),
            ["1", "\"a,]\"", "[2,[3]]", r#"{"b":[4]}"#]
        );
        assert!(texts("[]").is_empty() && texts("{}").is_empty() && texts("[ ").is_empty());
    }

    #[test]
    fn paths_lead_into_objects() {
        let doc =
            Json::new(br#" {"x": {"temperature": 1}, "a": {"b": {"temperature": -2.5e1}}, "s":"\u00e9\n"} "#);
        assert_eq!(doc.get("a.b.temperature").number(), Some(-25.0));
        assert_eq!(doc.get("temperature").number(), None);
        assert_eq!(doc.get("s").string().as_deref(), Some("\u{e9}\n"));
        assert!(!doc.get("a.nothing").exists());
    }
}
