//! JSON Schema, draft 2020-12, of one document: <https://json-schema.org/draft/2020-12/json-schema-validation>.
//!
//! Compiled once, so that a record is only walked. What is not understood is refused when the schema is read, not passed over.

mod read;

use crate::number::{Decimal, Real, is_multiple, order};
use read::Reader;
use regex_lite::Regex;
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Schemas within each other while a value is looked at, all that it holds included: far more than a value needs that nests as deep as
/// JSON is read here (128), by three or four schemas a level, and what fits on a stack.
const DEPTH_MAX: usize = 500;
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
    MultipleOf(Number),
}

impl Check {
    /// Schemas that have to fit the very value that this is about.
    fn of_the_same(&self) -> Vec<usize> {
        match self {
            Self::Ref(place) | Self::Not(place) => vec![*place],
            Self::AllOf(places) | Self::AnyOf(places) | Self::OneOf(places) => places.clone(),
            Self::If {
                condition,
                then,
                other,
            } => [Some(*condition), *then, *other].into_iter().flatten().collect(),
            Self::DependentSchemas(all) => all.iter().map(|(_, place)| *place).collect(),
            _ => Vec::new(),
        }
    }
}

/// Of a walk over schemas: whether it has been at one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Not,
    Within,
    Done,
}

enum Step {
    Enter(usize),
    /// From one that is not left yet.
    Within(usize),
    Leave(usize),
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
    /// It could not be looked at, so that nobody can say whether it fits: not even `not` makes that good.
    is_final: bool,
}

impl Misfit {
    fn new(what: impl Into<String>) -> Self {
        Self {
            place: Vec::new(),
            what: what.into(),
            is_final: false,
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

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// Says where, and what is wrong or not understood.
    pub(crate) fn read(whole: &Value) -> Result<Self, String> {
        let read = Self {
            nodes: Reader::read(whole)?,
        };
        read.ends()?;
        Ok(read)
    }

    /// Whether `value` fits.
    ///
    /// # Errors
    /// The first thing about it that does not.
    pub(crate) fn check(&self, value: &Value) -> Result<(), Misfit> {
        self.node(0, value, 0)
    }

    /// Whether no schema comes back to itself before it has looked at anything: for then it would say nothing, and never end.
    fn ends(&self) -> Result<(), String> {
        let mut seen = vec![Seen::Not; self.nodes.len()];
        // Places yet to be looked at, and those to be left after what they hold.
        let mut todo: Vec<_> = (0..self.nodes.len()).map(Step::Enter).collect();
        while let Some(step) = todo.pop() {
            match step {
                Step::Leave(place) => seen[place] = Seen::Done,
                Step::Enter(place) if seen[place] == Seen::Not => {
                    seen[place] = Seen::Within;
                    todo.push(Step::Leave(place));
                    if let Some(Node::All(checks)) = self.nodes.get(place) {
                        todo.extend(checks.iter().flat_map(Check::of_the_same).map(Step::Within));
                    }
                }
                Step::Within(place) if seen[place] == Seen::Within => {
                    return Err("the schema refers to itself without looking at anything".to_owned());
                }
                Step::Within(place) => todo.push(Step::Enter(place)),
                Step::Enter(_) => {}
            }
        }
        Ok(())
    }

    fn node(&self, place: usize, value: &Value, depth: usize) -> Result<(), Misfit> {
        if depth > DEPTH_MAX {
            let mut misfit = Misfit::new("cannot be looked at: it nests too deep for this schema");
            misfit.is_final = true;
            return Err(misfit);
        }
        match self.nodes.get(place) {
            Some(Node::All(checks)) => checks
                .iter()
                .try_for_each(|check| self.one(check, value, depth + 1)),
            Some(Node::Always(true)) => Ok(()),
            _ => Err(Misfit::new("is not allowed")),
        }
    }

    fn fits(&self, place: usize, value: &Value, depth: usize) -> Result<bool, Misfit> {
        match self.node(place, value, depth) {
            Ok(()) => Ok(true),
            Err(misfit) if misfit.is_final => Err(misfit),
            Err(_) => Ok(false),
        }
    }

    /// How many of `places` fit.
    fn fitting(&self, places: &[usize], value: &Value, depth: usize) -> Result<usize, Misfit> {
        places.iter().try_fold(0, |n, place| {
            Ok(n + usize::from(self.fits(*place, value, depth)?))
        })
    }

    fn one(&self, check: &Check, value: &Value, depth: usize) -> Result<(), Misfit> {
        let must =
            |fits: bool, what: &dyn Fn() -> String| if fits { Ok(()) } else { Err(Misfit::new(what())) };
        match check {
            Check::Types(types) => must(types.iter().any(|t| t.has(value)), &|| {
                let names: Vec<_> = types.iter().map(|t| t.name()).collect();
                format!("is {}, and should be {}", kind(value), names.join(" or "))
            }),
            Check::Enum(values) => must(values.iter().any(|v| order(v, value).is_eq()), &|| {
                let told: Vec<_> = values.iter().take(8).map(Value::to_string).collect();
                format!("should be {}", told.join(" or "))
            }),
            Check::Ref(place) => self.node(*place, value, depth),
            Check::AllOf(all) => all.iter().try_for_each(|place| self.node(*place, value, depth)),
            Check::AnyOf(any) => {
                for place in any {
                    if self.fits(*place, value, depth)? {
                        return Ok(());
                    }
                }
                Err(Misfit::new("fits none of `anyOf`"))
            }
            Check::OneOf(one) => {
                let fitting = self.fitting(one, value, depth)?;
                must(fitting == 1, &|| {
                    format!("fits {fitting} of `oneOf`, and should fit one")
                })
            }
            Check::Not(place) => must(!self.fits(*place, value, depth)?, &|| {
                "fits what it should not".to_owned()
            }),
            Check::If {
                condition,
                then,
                other,
            } => {
                let next = if self.fits(*condition, value, depth)? {
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
                    self.node(*place, &text, depth).map_err(|e| Misfit {
                        what: format!("has a name that does not fit: `{name}` {}", e.what),
                        ..e
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
                let mut fitting = 0;
                for item in items {
                    fitting += usize::from(self.fits(*schema, item, depth)?);
                }
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
                let mut by_value: Vec<_> = items.iter().enumerate().collect();
                // Stable: of those that are the same, the first one stays the first.
                by_value.sort_by(|(_, a), (_, b)| order(a, b));
                let pairs = by_value.windows(2).filter_map(|pair| match pair {
                    [(_, a), (n, b)] if order(a, b).is_eq() => Some(n),
                    _ => None,
                });
                match pairs.min() {
                    Some(n) => Err(Misfit::new("was there before").within(n.to_string())),
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
    let is = |than: &Number| Real::of(number).cmp(&Real::of(than));
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
        Check::MultipleOf(of) => (
            is_multiple(Decimal::of(number), Decimal::of(of)),
            format!("is {number}, and should be a multiple of {of}"),
        ),
        _ => return Ok(()),
    };
    if fits { Ok(()) } else { Err(Misfit::new(what)) }
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

#[cfg(test)]
mod tests;
