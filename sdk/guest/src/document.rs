//! A JSON document, parsed and checked as a whole; its parts refer to places in its text.
//!
//! For modules that change a document or must validate all of it. Text that is not JSON to its last byte is
//! an error (RFC 8259), and so are duplicate names, which parsers treat differently. Parts not changed by
//! [`Edits`] keep their exact text, including the form of numbers and blanks. To read a field or two,
//! [`Json`](crate::Json) is faster.

use crate::path::Path;
use crate::text::unescape;
use std::borrow::Cow;
use std::ops::Range;

/// A validated document.
#[derive(Debug)]
pub struct Document<'a> {
    text: &'a [u8],
    root: Node<'a>,
}

/// A value in a document.
#[derive(Debug)]
pub struct Node<'a> {
    span: Range<usize>,
    value: Value<'a>,
}

/// A value by its type.
#[derive(Debug)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A number, as text.
    Number(&'a str),
    /// A string, unescaped.
    Text(Cow<'a, str>),
    /// An array.
    List(Vec<Node<'a>>),
    /// An object.
    Object(Vec<Field<'a>>),
}

/// A field of an object.
#[derive(Debug)]
pub struct Field<'a> {
    /// The name, unescaped.
    pub name: Cow<'a, str>,
    /// The value.
    pub node: Node<'a>,
    /// Place of the name in the text, quotes included.
    name_span: Range<usize>,
}

/// Maximum nesting depth; most parsers have such a limit.
pub(crate) const DEPTH_MAX: usize = 128;

impl<'a> Document<'a> {
    /// Parses all of `text`.
    ///
    /// # Errors
    /// The reason, if the text is not JSON to its end or an object has a name twice.
    pub fn parse(text: &'a [u8]) -> Result<Self, String> {
        let utf8 = std::str::from_utf8(text).map_err(|e| not_json(e.valid_up_to()))?;
        let mut parser = Parser { text: utf8, at: 0 };
        parser.blanks();
        let root = parser.value(0)?;
        parser.blanks();
        match parser.at == text.len() {
            true => Ok(Self { text, root }),
            false => Err(format!(
                "value is not JSON: something follows it at byte {}",
                parser.at
            )),
        }
    }

    /// Returns the outermost value.
    pub fn root(&self) -> &Node<'a> {
        &self.root
    }

    /// Returns the document's text.
    pub fn text(&self) -> &'a [u8] {
        self.text
    }
}

impl<'a> Node<'a> {
    /// Returns the value by its type.
    pub fn value(&self) -> &Value<'a> {
        &self.value
    }

    /// Returns the byte range of the value in the document's text.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Returns the fields of an object; empty for other values.
    pub fn fields(&self) -> &[Field<'a>] {
        match &self.value {
            Value::Object(fields) => fields,
            _ => &[],
        }
    }

    /// Returns the field `name` of an object, if there is one.
    pub fn field(&self, name: &str) -> Option<&Node<'a>> {
        self.fields().iter().find(|f| f.name == name).map(|f| &f.node)
    }

    /// Returns the value at `path`, by the rules of [`Json::at`](crate::Json::at).
    pub fn at(&self, path: &Path) -> Option<&Node<'a>> {
        path.names().try_fold(self, |node, name| match &node.value {
            Value::List(items) => items.get(place(name)?),
            _ => node.field(name),
        })
    }
}

/// Parses `name` as an index into an array: digits only.
fn place(name: &str) -> Option<usize> {
    let is_place = name.bytes().all(|b| b.is_ascii_digit());
    is_place.then(|| name.parse().ok()).flatten()
}

fn not_json(at: usize) -> String {
    format!("value is not JSON at byte {at}")
}

/// Returns true if the text is a JSON number.
pub(crate) fn is_number(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    let mut parser = Parser { text, at: 0 };
    parser.number().is_ok() && parser.at == text.len()
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    fn blanks(&mut self) {
        self.at += self
            .rest()
            .iter()
            .take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'))
            .count();
    }

    fn take(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    fn value(&mut self, depth: usize) -> Result<Node<'a>, String> {
        let start = self.at;
        if depth >= DEPTH_MAX {
            return Err(format!("value is nested deeper than {DEPTH_MAX}"));
        }
        let value = match self.peek() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Value::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => self.word()?,
        };
        Ok(Node {
            span: start..self.at,
            value,
        })
    }

    fn word(&mut self) -> Result<Value<'a>, String> {
        for (word, value) in [
            ("null", Value::Null),
            ("true", Value::Boolean(true)),
            ("false", Value::Boolean(false)),
        ] {
            if self.rest().starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(not_json(self.at))
    }

    fn digits(&mut self) -> usize {
        let count = self.rest().iter().take_while(|b| b.is_ascii_digit()).count();
        self.at += count;
        count
    }

    fn number(&mut self) -> Result<Value<'a>, String> {
        let start = self.at;
        self.take(b'-');
        let leads = self.peek();
        let whole = self.digits();
        let mut is_good = whole > 0 && (leads != Some(b'0') || whole == 1);
        if self.take(b'.') {
            is_good &= self.digits() > 0;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            is_good &= self.digits() > 0;
        }
        match self.text.get(start..self.at).filter(|_| is_good) {
            Some(text) => Ok(Value::Number(text)),
            None => Err(not_json(start)),
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, String> {
        let start = self.at;
        let (mut len, mut has_escapes) = (1, false);
        loop {
            match self.rest().get(len) {
                None | Some(0..0x20) => return Err(not_json(start + len)),
                Some(b'"') => break,
                Some(b'\\') => {
                    has_escapes = true;
                    len += 2;
                }
                Some(_) => len += 1,
            }
        }
        let inner = self
            .text
            .get(start + 1..start + len)
            .ok_or_else(|| not_json(start))?;
        self.at = start + len + 1;
        match has_escapes {
            true => unescape(inner.as_bytes())
                .map(Cow::Owned)
                .ok_or_else(|| not_json(start)),
            false => Ok(Cow::Borrowed(inner)),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value<'a>, String> {
        self.at += 1;
        let mut items = Vec::new();
        self.blanks();
        if self.take(b']') {
            return Ok(Value::List(items));
        }
        loop {
            self.blanks();
            items.push(self.value(depth + 1)?);
            self.blanks();
            if self.take(b']') {
                return Ok(Value::List(items));
            }
            if !self.take(b',') {
                return Err(not_json(self.at));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, String> {
        self.at += 1;
        let mut fields: Vec<Field<'a>> = Vec::new();
        self.blanks();
        if self.take(b'}') {
            return Ok(Value::Object(fields));
        }
        loop {
            self.blanks();
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(not_json(start));
            }
            let name = self.string()?;
            let name_span = start..self.at;
            self.blanks();
            if !self.take(b':') {
                return Err(not_json(self.at));
            }
            self.blanks();
            let node = self.value(depth + 1)?;
            fields.push(Field {
                name,
                node,
                name_span,
            });
            self.blanks();
            if self.take(b'}') {
                break;
            }
            if !self.take(b',') {
                return Err(not_json(self.at));
            }
        }
        match twice(&fields) {
            Some(name) => Err(format!("value has the name `{}` twice", name.escape_debug())),
            None => Ok(Value::Object(fields)),
        }
    }
}

/// Objects with more fields are sorted to find duplicate names.
pub(crate) const FEW: usize = 16;

fn twice<'f>(fields: &'f [Field<'_>]) -> Option<&'f str> {
    if fields.len() <= FEW {
        let mut rest = fields;
        while let Some((first, others)) = rest.split_first() {
            if others.iter().any(|other| other.name == first.name) {
                return Some(&first.name);
            }
            rest = others;
        }
        return None;
    }
    let mut names: Vec<&str> = fields.iter().map(|f| &*f.name).collect();
    names.sort_unstable();
    names
        .windows(2)
        .find(|pair| pair[0] == pair[1])
        .map(|pair| pair[0])
}

/// Changes to a document's text. All other text stays as it is.
#[derive(Debug, Default)]
pub struct Edits(Vec<(Range<usize>, Vec<u8>)>);

impl Edits {
    /// Returns true if there are no changes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Replaces a value by JSON text.
    pub fn replace(&mut self, node: &Node<'_>, json: Vec<u8>) {
        self.0.push((node.span(), json));
    }

    /// Renames a field.
    pub fn rename(&mut self, field: &Field<'_>, name: &str) {
        let mut text = Vec::new();
        crate::escape_into(&mut text, name);
        self.0.push((field.name_span.clone(), text));
    }

    /// Removes the fields of an object for which `goes` returns true.
    pub fn remove(&mut self, object: &Node<'_>, goes: impl Fn(&Field<'_>) -> bool) {
        let fields = object.fields();
        let mut kept_end = None;
        let mut run: Option<Range<usize>> = None;
        for field in fields {
            match goes(field) {
                true => {
                    let start = run.map_or(field.name_span.start, |run| run.start);
                    run = Some(start..field.node.span.end);
                }
                false => {
                    // Together with the comma behind the field.
                    self.0.extend(
                        run.take()
                            .map(|run| (run.start..field.name_span.start, Vec::new())),
                    );
                    kept_end = Some(field.node.span.end);
                }
            }
        }
        // At the end, together with the comma in front.
        self.0
            .extend(run.map(|run| (kept_end.unwrap_or(run.start)..run.end, Vec::new())));
    }

    /// Appends fields to an object: names, with values as JSON text.
    pub fn add<'f>(&mut self, object: &Node<'_>, fields: impl Iterator<Item = (&'f str, &'f [u8])>) {
        let mut text = Vec::new();
        let mut is_first = object.fields().is_empty();
        for (name, json) in fields {
            if !std::mem::take(&mut is_first) {
                text.push(b',');
            }
            crate::escape_into(&mut text, name);
            text.push(b':');
            text.extend_from_slice(json);
        }
        let at = match object.fields().last() {
            Some(last) => last.node.span.end,
            None => object.span.end.saturating_sub(1),
        };
        if !text.is_empty() {
            self.0.push((at..at, text));
        }
    }

    /// Appends the changed document to `out`. A change that contains others replaces them.
    pub fn write(&mut self, document: &Document<'_>, out: &mut Vec<u8>) {
        self.0
            .sort_by_key(|(span, _)| (span.start, std::cmp::Reverse(span.end)));
        let mut done = 0;
        for (span, text) in &self.0 {
            if span.start < done {
                done = done.max(span.end);
                continue;
            }
            out.extend_from_slice(document.text.get(done..span.start).unwrap_or_default());
            out.extend_from_slice(text);
            done = span.end;
        }
        out.extend_from_slice(document.text.get(done..).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;
    use proptest::prelude::*;

    fn edited(text: &str, edit: impl Fn(&Node<'_>, &mut Edits)) -> String {
        let document = Document::parse(text.as_bytes()).unwrap();
        let mut edits = Edits::default();
        edit(document.root(), &mut edits);
        let mut out = Vec::new();
        edits.write(&document, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_not_touched_stays() {
        let text = r#" { "a" : 1.10 , "b":[1e5, -0], "c" : "x" } "#;
        assert_eq!(edited(text, |_, _| {}), text);
        let without = |names: &'static [&'static str]| {
            edited(text, |root, edits| {
                edits.remove(root, |f| names.contains(&&*f.name))
            })
        };
        assert_eq!(without(&["a"]), r#" { "b":[1e5, -0], "c" : "x" } "#);
        assert_eq!(without(&["b"]), r#" { "a" : 1.10 , "c" : "x" } "#);
        assert_eq!(without(&["c"]), r#" { "a" : 1.10 , "b":[1e5, -0] } "#);
        assert_eq!(without(&["b", "c"]), r#" { "a" : 1.10 } "#);
        assert_eq!(without(&["a", "c"]), r#" { "b":[1e5, -0] } "#);
        assert_eq!(without(&["a", "b", "c"]), " {  } ");
        let more = |text| {
            edited(text, |root, edits| {
                edits.add(root, [("d\"", &b"7"[..]), ("e", b"[]")].into_iter());
            })
        };
        assert_eq!(more(r#"{"a":1 }"#), r#"{"a":1,"d\"":7,"e":[] }"#);
        assert_eq!(more("{ }"), r#"{ "d\"":7,"e":[]}"#);
        let other = edited(text, |root, edits| {
            edits.replace(root.field("a").unwrap(), b"2".to_vec())
        });
        assert_eq!(other, r#" { "a" : 2 , "b":[1e5, -0], "c" : "x" } "#);
    }

    #[test]
    fn what_is_not_json_to_its_end_is_refused() {
        for (text, why) in [
            ("", "not JSON"),
            ("{\"a\":1}garbage", "something follows it at byte 7"),
            ("{\"a\":1,}", "not JSON at byte 7"),
            ("{\"a\":1}{\"b\":2}", "something follows"),
            ("{garbage}", "not JSON at byte 1"),
            ("[01]", "not JSON"),
            ("[1.]", "not JSON"),
            ("[+1]", "not JSON"),
            ("[NaN]", "not JSON"),
            ("\"\u{1}\"", "not JSON"),
            (r#""\ud800""#, "not JSON"),
            (r#"{"a":1,"a":2}"#, "`a` twice"),
            (r#"{"a":1,"\u0061":2}"#, "`a` twice"),
        ] {
            let error = Document::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        let many: Vec<String> = (0..40).map(|n| format!("\"{}\":0", n % 39)).collect();
        let error = Document::parse(format!("{{{}}}", many.join(",")).as_bytes()).unwrap_err();
        assert!(error.contains("`0` twice"), "{error}");
        assert!(Document::parse("[".repeat(1_000_000).as_bytes()).is_err());
    }

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("-0.5e-3".to_owned()),
            "[a-z\\\\\"é\u{1}]{0,6}".prop_map(|text| serde_json::to_string(&text).unwrap()),
            any::<i64>().prop_map(|n| n.to_string()),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5)
                    .prop_map(|items| format!("[{}]", items.join(" , "))),
                prop::collection::btree_map("[a-c.]{0,2}", inner, 0..5).prop_map(|fields| {
                    let fields = fields.iter().map(|(name, value)| format!("\"{name}\" :{value}"));
                    format!("{{ {}}}", fields.collect::<Vec<_>>().join(","))
                }),
            ]
        })
    }

    proptest! {
        /// This parser accepts the same texts as another parser, except for duplicate names.
        #[test]
        fn it_agrees_with_another_parser(text in json(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let agrees = |text: &[u8]| {
                let ours = Document::parse(text);
                assert_eq!(check(text), ours.as_ref().map(|_| ()).map_err(Clone::clone));
                let theirs = serde_json::from_slice::<serde_json::Value>(text);
                let is_twice = ours.as_ref().err().is_some_and(|why| why.contains("twice"));
                // A number too large for a double is valid JSON all the same.
                let is_large = theirs.as_ref().err().is_some_and(|why| why.to_string().contains("out of range"));
                ours.is_ok() == theirs.is_ok() || (is_twice && theirs.is_ok()) || is_large
            };
            prop_assert!(agrees(text.as_bytes()));
            let mut broken = text.into_bytes();
            let at = at.index(broken.len());
            broken[at] = byte;
            prop_assert!(agrees(&broken), "{:?}", String::from_utf8_lossy(&broken));
            broken.truncate(at);
            prop_assert!(agrees(&broken));
        }
    }
}
