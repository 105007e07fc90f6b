//! JSON Schema, draft 2020-12, of one document: <https://json-schema.org/draft/2020-12/json-schema-validation>.
//!
//! Compiled once, so that a record is only walked. What is not understood is refused when the schema is read, not passed over.

use regex_lite::Regex;
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Schemas that refer to each other without looking at anything further are stopped here.
const DEPTH_MAX: usize = 64;
/// Schemas within a schema.
const NODES_MAX: usize = 4_096;

/// Says something for people and nothing for machines.
const ANNOTATIONS: [&str; 15] = [
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "format",
    "contentEncoding",
    "contentMediaType",
];

/// A schema, and all within it: by their places, of which the first is the whole.
#[derive(Debug)]
pub(crate) struct Schema {
    nodes: Vec<Node>,
}

#[derive(Debug)]
enum Node {
    /// Being read.
    Open,
    Always(bool),
    All(Vec<Check>),
}

/// What a value must be. Numbers are places of schemas.
#[derive(Debug)]
enum Check {
    Types(Vec<Type>),
    Enum(Vec<Value>),
    Ref(usize),
    AllOf(Vec<usize>),
    AnyOf(Vec<usize>),
    OneOf(Vec<usize>),
    Not(usize),
    If {
        condition: usize,
        then: Option<usize>,
        other: Option<usize>,
    },
    Required(Vec<String>),
    DependentRequired(Vec<(String, Vec<String>)>),
    DependentSchemas(Vec<(String, usize)>),
    Properties {
        named: BTreeMap<String, usize>,
        patterns: Vec<(Regex, usize)>,
        others: Option<usize>,
    },
    PropertyNames(usize),
    PropertyCount(Range),
    Items {
        first: Vec<usize>,
        rest: Option<usize>,
    },
    Contains {
        schema: usize,
        count: Range,
    },
    ItemCount(Range),
    Unique,
    Length(Range),
    Pattern(Regex),
    Minimum(Number),
    Maximum(Number),
    Above(Number),
    Below(Number),
    MultipleOf(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Null,
    Boolean,
    Object,
    Array,
    Number,
    String,
    Integer,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    least: u64,
    most: u64,
}

impl Range {
    fn has(self, n: usize) -> bool {
        (self.least..=self.most).contains(&(n as u64))
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.least, self.most) {
            (least, u64::MAX) => write!(f, "at least {least}"),
            (0, most) => write!(f, "at most {most}"),
            (least, most) => write!(f, "{least} to {most}"),
        }
    }
}

/// Why a value does not fit: where in it, and what.
#[derive(Debug)]
pub(crate) struct Misfit {
    /// A JSON pointer, written from its end.
    place: Vec<String>,
    what: String,
}

impl Misfit {
    fn new(what: impl Into<String>) -> Self {
        Self {
            place: Vec::new(),
            what: what.into(),
        }
    }

    fn within(mut self, name: impl Into<String>) -> Self {
        self.place.push(name.into());
        self
    }
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.place.is_empty() {
            return write!(f, "it {}", self.what);
        }
        f.write_char('`')?;
        for name in self.place.iter().rev() {
            write!(f, "/{}", name.replace('~', "~0").replace('/', "~1"))?;
        }
        write!(f, "` {}", self.what)
    }
}

/// Reads a schema.
struct Reader<'a> {
    whole: &'a Value,
    nodes: Vec<Node>,
    /// Places of those that something refers to, by pointer.
    known: BTreeMap<String, usize>,
}

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// Says where, and what is wrong or not understood.
    pub(crate) fn read(whole: &Value) -> Result<Self, String> {
        let mut reader = Reader {
            whole,
            nodes: Vec::new(),
            known: BTreeMap::new(),
        };
        reader.at("", whole)?;
        Ok(Self { nodes: reader.nodes })
    }

    /// Whether `value` fits.
    ///
    /// # Errors
    /// The first thing about it that does not.
    pub(crate) fn check(&self, value: &Value) -> Result<(), Misfit> {
        self.node(0, value, 0)
    }

    fn node(&self, place: usize, value: &Value, depth: usize) -> Result<(), Misfit> {
        if depth > DEPTH_MAX {
            return Err(Misfit::new(
                "cannot be looked at: the schema refers to itself too often",
            ));
        }
        match self.nodes.get(place) {
            Some(Node::All(checks)) => checks
                .iter()
                .try_for_each(|check| self.one(check, value, depth + 1)),
            Some(Node::Always(true)) => Ok(()),
            _ => Err(Misfit::new("is not allowed")),
        }
    }

    fn fits(&self, place: usize, value: &Value, depth: usize) -> bool {
        self.node(place, value, depth).is_ok()
    }

    fn one(&self, check: &Check, value: &Value, depth: usize) -> Result<(), Misfit> {
        let must =
            |fits: bool, what: &dyn Fn() -> String| if fits { Ok(()) } else { Err(Misfit::new(what())) };
        match check {
            Check::Types(types) => must(types.iter().any(|t| t.has(value)), &|| {
                let names: Vec<_> = types.iter().map(|t| t.name()).collect();
                format!("is {}, and should be {}", kind(value), names.join(" or "))
            }),
            Check::Enum(values) => must(values.iter().any(|v| is_same(v, value)), &|| {
                let told: Vec<_> = values.iter().take(8).map(Value::to_string).collect();
                format!("should be {}", told.join(" or "))
            }),
            Check::Ref(place) => self.node(*place, value, depth),
            Check::AllOf(all) => all.iter().try_for_each(|place| self.node(*place, value, depth)),
            Check::AnyOf(any) => must(any.iter().any(|place| self.fits(*place, value, depth)), &|| {
                "fits none of `anyOf`".to_owned()
            }),
            Check::OneOf(one) => {
                let fitting = one
                    .iter()
                    .filter(|place| self.fits(**place, value, depth))
                    .count();
                must(fitting == 1, &|| {
                    format!("fits {fitting} of `oneOf`, and should fit one")
                })
            }
            Check::Not(place) => must(!self.fits(*place, value, depth), &|| {
                "fits what it should not".to_owned()
            }),
            Check::If {
                condition,
                then,
                other,
            } => {
                let next = if self.fits(*condition, value, depth) {
                    then
                } else {
                    other
                };
                next.map_or(Ok(()), |place| self.node(place, value, depth))
            }
            _ => match value {
                Value::Object(fields) => self.object(check, fields, value, depth),
                Value::Array(items) => self.array(check, items, depth),
                Value::String(text) => string(check, text),
                Value::Number(number) => numeric(check, number),
                Value::Null | Value::Bool(_) => Ok(()),
            },
        }
    }

    fn object(
        &self,
        check: &Check,
        fields: &Map<String, Value>,
        value: &Value,
        depth: usize,
    ) -> Result<(), Misfit> {
        let missing = |names: &[String]| names.iter().find(|name| !fields.contains_key(*name)).cloned();
        match check {
            Check::Required(names) => match missing(names) {
                Some(name) => Err(Misfit::new(format!("has no `{name}`"))),
                None => Ok(()),
            },
            Check::DependentRequired(all) => {
                for (name, needs) in all.iter().filter(|(name, _)| fields.contains_key(name)) {
                    if let Some(lacks) = missing(needs) {
                        return Err(Misfit::new(format!("has `{name}` and no `{lacks}`")));
                    }
                }
                Ok(())
            }
            Check::DependentSchemas(all) => {
                let mut needed = all.iter().filter(|(name, _)| fields.contains_key(name));
                needed.try_for_each(|(_, place)| self.node(*place, value, depth))
            }
            Check::Properties {
                named,
                patterns,
                others,
            } => {
                for (name, value) in fields {
                    let mut is_known = false;
                    let own = named.get(name).into_iter();
                    let by_pattern = patterns.iter().filter(|(pattern, _)| pattern.is_match(name));
                    for place in own.chain(by_pattern.map(|(_, place)| place)) {
                        is_known = true;
                        self.node(*place, value, depth).map_err(|e| e.within(name))?;
                    }
                    if let (false, Some(place)) = (is_known, others) {
                        self.node(*place, value, depth).map_err(|e| e.within(name))?;
                    }
                }
                Ok(())
            }
            Check::PropertyNames(place) => {
                for name in fields.keys() {
                    let text = Value::String(name.clone());
                    self.node(*place, &text, depth).map_err(|e| {
                        Misfit::new(format!("has a name that does not fit: `{name}` {}", e.what))
                    })?;
                }
                Ok(())
            }
            Check::PropertyCount(range) if !range.has(fields.len()) => Err(Misfit::new(format!(
                "has {} fields, and should have {range}",
                fields.len()
            ))),
            _ => Ok(()),
        }
    }

    fn array(&self, check: &Check, items: &[Value], depth: usize) -> Result<(), Misfit> {
        match check {
            Check::Items { first, rest } => {
                for (n, item) in items.iter().enumerate() {
                    if let Some(place) = first.get(n).or(rest.as_ref()) {
                        self.node(*place, item, depth)
                            .map_err(|e| e.within(n.to_string()))?;
                    }
                }
                Ok(())
            }
            Check::Contains { schema, count } => {
                let fitting = items
                    .iter()
                    .filter(|item| self.fits(*schema, item, depth))
                    .count();
                match count.has(fitting) {
                    true => Ok(()),
                    false => Err(Misfit::new(format!(
                        "has {fitting} items that fit `contains`, and should have {count}"
                    ))),
                }
            }
            Check::ItemCount(range) if !range.has(items.len()) => Err(Misfit::new(format!(
                "has {} items, and should have {range}",
                items.len()
            ))),
            Check::Unique => {
                let is_again =
                    |(n, item): (usize, &Value)| items.iter().take(n).any(|before| is_same(before, item));
                match items.iter().enumerate().find(|each| is_again(*each)) {
                    Some((n, _)) => Err(Misfit::new("was there before").within(n.to_string())),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

fn string(check: &Check, text: &str) -> Result<(), Misfit> {
    match check {
        Check::Length(range) => {
            let len = text.chars().count();
            match range.has(len) {
                true => Ok(()),
                false => Err(Misfit::new(format!(
                    "has {len} characters, and should have {range}"
                ))),
            }
        }
        Check::Pattern(pattern) if !pattern.is_match(text) => {
            Err(Misfit::new(format!("does not match `{}`", pattern.as_str())))
        }
        _ => Ok(()),
    }
}

fn numeric(check: &Check, number: &Number) -> Result<(), Misfit> {
    use std::cmp::Ordering::{Greater, Less};
    let is = |than: &Number| compare(number, than);
    let (fits, what) = match check {
        Check::Minimum(least) => (
            is(least) != Less,
            format!("is {number}, and should be at least {least}"),
        ),
        Check::Maximum(most) => (
            is(most) != Greater,
            format!("is {number}, and should be at most {most}"),
        ),
        Check::Above(than) => (
            is(than) == Greater,
            format!("is {number}, and should be more than {than}"),
        ),
        Check::Below(than) => (
            is(than) == Less,
            format!("is {number}, and should be less than {than}"),
        ),
        Check::MultipleOf(of) => {
            let times = number.as_f64().unwrap_or(f64::NAN) / of;
            (
                times.fract() == 0.0,
                format!("is {number}, and should be a multiple of {of}"),
            )
        }
        _ => return Ok(()),
    };
    if fits { Ok(()) } else { Err(Misfit::new(what)) }
}

/// By value: whole numbers exactly, others as the floating-point numbers that they are.
fn compare(a: &Number, b: &Number) -> std::cmp::Ordering {
    let whole = |n: &Number| n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from));
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => {
            let (a, b) = (a.as_f64().unwrap_or(0.0), b.as_f64().unwrap_or(0.0));
            a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal)
        }
    }
}

/// As JSON Schema compares: numbers by value, whatever they are written as.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare(a, b).is_eq(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, a)| b.get(name).is_some_and(|b| is_same(a, b)))
        }
        (a, b) => a == b,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

impl Type {
    const ALL: [(&str, Self, &str); 7] = [
        ("null", Self::Null, "null"),
        ("boolean", Self::Boolean, "a boolean"),
        ("object", Self::Object, "an object"),
        ("array", Self::Array, "an array"),
        ("number", Self::Number, "a number"),
        ("string", Self::String, "a string"),
        ("integer", Self::Integer, "a whole number"),
    ];

    fn read(name: &Value) -> Option<Self> {
        let name = name.as_str()?;
        let found = Self::ALL.into_iter().find(|(known, ..)| *known == name);
        found.map(|(_, found, _)| found)
    }

    fn name(self) -> &'static str {
        let found = Self::ALL.into_iter().find(|(_, known, _)| *known == self);
        found.map_or("", |(.., name)| name)
    }

    fn has(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Null, Value::Null)
            | (Self::Boolean, Value::Bool(_))
            | (Self::Object, Value::Object(_))
            | (Self::Array, Value::Array(_))
            | (Self::Number, Value::Number(_))
            | (Self::String, Value::String(_)) => true,
            (Self::Integer, Value::Number(n)) => !n.is_f64() || n.as_f64().is_some_and(|n| n.fract() == 0.0),
            _ => false,
        }
    }
}

impl Reader<'_> {
    /// Reads the schema at `pointer`, and returns its place.
    fn at(&mut self, pointer: &str, schema: &Value) -> Result<usize, String> {
        if let Some(place) = self.known.get(pointer) {
            return Ok(*place);
        }
        if self.nodes.len() >= NODES_MAX {
            return Err(format!("a schema may hold at most {NODES_MAX} others"));
        }
        let place = self.nodes.len();
        self.nodes.push(Node::Open);
        // Before what it holds is read: that may refer to it.
        self.known.insert(pointer.to_owned(), place);
        let node = match schema {
            Value::Bool(always) => Node::Always(*always),
            Value::Object(keywords) => Node::All(self.checks(pointer, keywords)?),
            _ => {
                return Err(format!(
                    "`{pointer}` is no schema: it has to be an object, `true` or `false`"
                ));
            }
        };
        if let Some(slot) = self.nodes.get_mut(place) {
            *slot = node;
        }
        Ok(place)
    }

    fn checks(&mut self, at: &str, keywords: &Map<String, Value>) -> Result<Vec<Check>, String> {
        let mut checks = Vec::new();
        for (name, value) in keywords {
            let here = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
            let want = |what: &str| format!("`{here}` has to be {what}");
            let number = || value.as_number().cloned().ok_or_else(|| want("a number"));
            let check = match name.as_str() {
                name if ANNOTATIONS.contains(&name) => continue,
                // Read with what they belong to.
                "then"
                | "else"
                | "patternProperties"
                | "additionalProperties"
                | "prefixItems"
                | "minContains"
                | "maxContains"
                | "minProperties"
                | "minItems"
                | "minLength"
                    if belongs(name, keywords) =>
                {
                    continue;
                }
                "type" => {
                    let listed = value
                        .as_array()
                        .map_or(std::slice::from_ref(value), Vec::as_slice);
                    let types: Option<Vec<_>> = listed.iter().map(Type::read).collect();
                    Check::Types(types.ok_or_else(|| want("the name of a type, or a list of them"))?)
                }
                "enum" => Check::Enum(value.as_array().ok_or_else(|| want("a list"))?.clone()),
                "const" => Check::Enum(vec![value.clone()]),
                "$ref" => Check::Ref(self.refer(value, &here)?),
                "allOf" => Check::AllOf(self.list(&here, value)?),
                "anyOf" => Check::AnyOf(self.list(&here, value)?),
                "oneOf" => Check::OneOf(self.list(&here, value)?),
                "not" => Check::Not(self.at(&here, value)?),
                "if" => Check::If {
                    condition: self.at(&here, value)?,
                    then: self.member(at, keywords, "then")?,
                    other: self.member(at, keywords, "else")?,
                },
                "required" => Check::Required(names(value).ok_or_else(|| want("a list of names"))?),
                "dependentRequired" => {
                    let of = |(name, needs): (&String, &Value)| Some((name.clone(), names(needs)?));
                    let all = value.as_object().and_then(|all| all.iter().map(of).collect());
                    Check::DependentRequired(all.ok_or_else(|| want("an object of lists of names"))?)
                }
                "dependentSchemas" => Check::DependentSchemas(self.map(&here, value)?),
                "properties" | "patternProperties" | "additionalProperties" => {
                    let own = keywords.get("properties");
                    let named = own
                        .map(|own| self.map(&format!("{at}/properties"), own))
                        .transpose()?;
                    let by_pattern = keywords.get("patternProperties");
                    let by_pattern = by_pattern.map(|p| self.map(&format!("{at}/patternProperties"), p));
                    let mut patterns = Vec::new();
                    for (pattern, place) in by_pattern.transpose()?.into_iter().flatten() {
                        patterns.push((regex(&pattern, &here)?, place));
                    }
                    Check::Properties {
                        named: named.into_iter().flatten().collect(),
                        patterns,
                        others: self.member(at, keywords, "additionalProperties")?,
                    }
                }
                "propertyNames" => Check::PropertyNames(self.at(&here, value)?),
                "minProperties" | "maxProperties" => {
                    Check::PropertyCount(range(keywords, "minProperties", "maxProperties", &want)?)
                }
                "items" | "prefixItems" => {
                    let first = keywords.get("prefixItems");
                    let first = first
                        .map(|first| self.list(&format!("{at}/prefixItems"), first))
                        .transpose()?;
                    Check::Items {
                        first: first.unwrap_or_default(),
                        rest: self.member(at, keywords, "items")?,
                    }
                }
                "contains" => {
                    let mut count = range(keywords, "minContains", "maxContains", &want)?;
                    if !keywords.contains_key("minContains") {
                        count.least = 1;
                    }
                    Check::Contains {
                        schema: self.at(&here, value)?,
                        count,
                    }
                }
                // Nothing without `contains`.
                "minContains" | "maxContains" | "then" | "else" => continue,
                "minItems" | "maxItems" => Check::ItemCount(range(keywords, "minItems", "maxItems", &want)?),
                "uniqueItems" => match value.as_bool().ok_or_else(|| want("`true` or `false`"))? {
                    true => Check::Unique,
                    false => continue,
                },
                "minLength" | "maxLength" => Check::Length(range(keywords, "minLength", "maxLength", &want)?),
                "pattern" => Check::Pattern(regex(value.as_str().ok_or_else(|| want("a pattern"))?, &here)?),
                "minimum" => Check::Minimum(number()?),
                "maximum" => Check::Maximum(number()?),
                "exclusiveMinimum" => Check::Above(number()?),
                "exclusiveMaximum" => Check::Below(number()?),
                "multipleOf" => {
                    let of = number()?.as_f64().filter(|of| *of > 0.0);
                    Check::MultipleOf(of.ok_or_else(|| want("a number above 0"))?)
                }
                unknown => return Err(format!("`{at}` has `{unknown}`, which is not understood here")),
            };
            checks.push(check);
        }
        Ok(checks)
    }

    /// The schema under `name` of `keywords`, which are at `at`.
    fn member(
        &mut self,
        at: &str,
        keywords: &Map<String, Value>,
        name: &str,
    ) -> Result<Option<usize>, String> {
        let schema = keywords.get(name);
        schema
            .map(|schema| self.at(&format!("{at}/{name}"), schema))
            .transpose()
    }

    fn list(&mut self, at: &str, value: &Value) -> Result<Vec<usize>, String> {
        let all = value.as_array().filter(|all| !all.is_empty());
        let all = all.ok_or_else(|| format!("`{at}` has to be a list of schemas"))?;
        let each = all.iter().enumerate();
        each.map(|(n, schema)| self.at(&format!("{at}/{n}"), schema))
            .collect()
    }

    fn map(&mut self, at: &str, value: &Value) -> Result<Vec<(String, usize)>, String> {
        let all = value
            .as_object()
            .ok_or_else(|| format!("`{at}` has to be an object of schemas"))?;
        let mut read = Vec::new();
        for (name, schema) in all {
            let here = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
            read.push((name.clone(), self.at(&here, schema)?));
        }
        Ok(read)
    }

    fn refer(&mut self, value: &Value, here: &str) -> Result<usize, String> {
        let pointer = value.as_str().and_then(|text| text.strip_prefix('#'));
        let pointer =
            pointer.ok_or_else(|| format!("`{here}` has to be a place in this schema, `#/$defs/…`"))?;
        let whole = self.whole;
        let found = whole.pointer(pointer);
        let found = found.ok_or_else(|| format!("`{here}`: there is nothing at `#{pointer}`"))?;
        self.at(pointer, found)
    }
}

/// Whether `name` is read with another of `keywords`.
fn belongs(name: &str, keywords: &Map<String, Value>) -> bool {
    let with: &[&str] = match name {
        "then" | "else" => &["if"],
        "patternProperties" => &["properties"],
        "additionalProperties" => &["properties", "patternProperties"],
        "prefixItems" => &["items"],
        "minContains" | "maxContains" => &["contains"],
        "minProperties" => &["maxProperties"],
        "minItems" => &["maxItems"],
        "minLength" => &["maxLength"],
        _ => &[],
    };
    with.iter().any(|other| keywords.contains_key(*other))
}

fn names(value: &Value) -> Option<Vec<String>> {
    let name = |v: &Value| v.as_str().map(str::to_owned);
    value.as_array()?.iter().map(name).collect()
}

fn regex(pattern: &str, here: &str) -> Result<Regex, String> {
    Regex::new(pattern)
        .map_err(|e| format!("`{here}`: `{pattern}` is no pattern that is understood here: {e}"))
}

fn range(
    keywords: &Map<String, Value>,
    least: &str,
    most: &str,
    want: &dyn Fn(&str) -> String,
) -> Result<Range, String> {
    let bound = |name: &str, otherwise: u64| match keywords.get(name) {
        None => Ok(otherwise),
        // `2.0` is whole, too.
        Some(value) => {
            let whole = value
                .as_f64()
                .filter(|n| n.fract() == 0.0 && *n >= 0.0)
                .map(|n| n as u64);
            value
                .as_u64()
                .or(whole)
                .ok_or_else(|| want("a whole number, 0 or more"))
        }
    };
    Ok(Range {
        least: bound(least, 0)?,
        most: bound(most, u64::MAX)?,
    })
}

#[cfg(test)]
mod tests;
