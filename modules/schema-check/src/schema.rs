//! JSON Schema, draft 2020-12, for a single document:
//! <https://json-schema.org/draft/2020-12/json-schema-validation>.
//!
//! A schema is compiled once, so that a record needs only a walk. Unsupported keywords are rejected when the
//! schema is read, never ignored.

mod pattern;
mod places;
mod read;

use crate::number::Number;
use crate::order::order;
use crate::value::{Object, Value};
use read::Reader;
use regex_lite::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Maximum depth of nested schemas during a check. Far more than a value of the maximum JSON depth (128)
/// needs with three or four schemas per level, and small enough for the stack.
const DEPTH_MAX: usize = 500;
/// A schema with all schemas in it; the first is the whole.
#[derive(Debug)]
pub(crate) struct Schema {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    /// Index of the schema's resource (a schema with an `$id`).
    resource: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Being read.
    Open,
    Always(bool),
    All(Vec<Check>),
}

/// A condition on a value. Numbers are indexes of schemas.
#[derive(Debug)]
enum Check {
    Types(Vec<Type>),
    Enum(Vec<Value>),
    Ref(usize),
    /// Resolves to the first of these schemas, by resource, that encloses the current schema dynamically.
    DynamicRef {
        fallback: usize,
        candidates: Vec<(usize, usize)>,
    },
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
    /// Applies to properties that no other keyword evaluated.
    OtherProperties(usize),
    PropertyNames(usize),
    PropertyCount(Range),
    Items {
        first: Vec<usize>,
        rest: Option<usize>,
    },
    /// Applies to items that no other keyword evaluated.
    OtherItems(usize),
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
    /// Returns the schemas that apply to the same value as this check.
    fn of_the_same(&self) -> Vec<usize> {
        match self {
            Self::Ref(place) | Self::Not(place) => vec![*place],
            Self::DynamicRef { fallback, candidates } => {
                let candidates = candidates.iter().map(|(_, place)| *place);
                candidates.chain([*fallback]).collect()
            }
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

    /// Returns true if the check applies to parts that the schema's other checks did not evaluate.
    fn looks_at_the_rest(&self) -> bool {
        matches!(self, Self::OtherProperties(_) | Self::OtherItems(_))
    }
}

/// The parts of a value evaluated by matching schemas (JSON Schema core, section 11).
#[derive(Debug, Default)]
struct Evaluated {
    fields: BTreeSet<String>,
    items: BTreeSet<usize>,
}

impl Evaluated {
    fn merge(&mut self, other: Self) {
        self.fields.extend(other.fields);
        self.items.extend(other.items);
    }
}

/// State of a schema during a walk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Not,
    Within,
    Done,
}

enum Step {
    Enter(usize),
    /// Entered from another schema and not left yet.
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

/// The reason for a mismatch: its place in the value, and a text.
#[derive(Debug)]
pub(crate) struct Misfit {
    /// A JSON Pointer, from its end to its start.
    place: Vec<String>,
    what: String,
    /// True if the value could not be checked at all: then not even `not` succeeds.
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
    /// The place of the first invalid or unsupported part, and the reason.
    pub(crate) fn read(whole: &Value) -> Result<Self, String> {
        let read = Self {
            nodes: Reader::read(whole)?,
        };
        read.ends()?;
        Ok(read)
    }

    /// Checks `value` against the schema.
    ///
    /// # Errors
    /// The first mismatch.
    pub(crate) fn check(&self, value: &Value) -> Result<(), Misfit> {
        let mut walk = Walk {
            nodes: &self.nodes,
            scope: Vec::new(),
        };
        walk.node(0, value, 0, None)
    }

    /// Checks that no schema refers to itself on the same value: such a schema would say nothing and never
    /// end.
    fn ends(&self) -> Result<(), String> {
        let mut seen = vec![Seen::Not; self.nodes.len()];
        // Schemas to enter, and schemas to leave after their content.
        let mut todo: Vec<_> = (0..self.nodes.len()).map(Step::Enter).collect();
        while let Some(step) = todo.pop() {
            match step {
                Step::Leave(place) => seen[place] = Seen::Done,
                Step::Enter(place) if seen[place] == Seen::Not => {
                    seen[place] = Seen::Within;
                    todo.push(Step::Leave(place));
                    if let Some(Kind::All(checks)) = self.nodes.get(place).map(|node| &node.kind) {
                        todo.extend(checks.iter().flat_map(Check::of_the_same).map(Step::Within));
                    }
                }
                Step::Within(place) if seen[place] == Seen::Within => {
                    return Err("the schema refers to itself without checking anything".to_owned());
                }
                Step::Within(place) => todo.push(Step::Enter(place)),
                Step::Enter(_) => {}
            }
        }
        Ok(())
    }
}

/// A check of a value.
struct Walk<'s> {
    nodes: &'s [Node],
    /// The enclosing resources, the outermost first.
    scope: Vec<usize>,
}

impl<'s> Walk<'s> {
    /// Checks `value` against the schema with index `place`, and returns the parts that were evaluated.
    fn node(
        &mut self,
        place: usize,
        value: &Value,
        depth: usize,
        seen: Option<&mut Evaluated>,
    ) -> Result<(), Misfit> {
        if depth > DEPTH_MAX {
            let mut misfit = Misfit::new("cannot be checked: it is nested too deep for this schema");
            misfit.is_final = true;
            return Err(misfit);
        }
        let nodes: &'s [Node] = self.nodes;
        let Some(node) = nodes.get(place) else {
            return Err(Misfit::new("is not allowed"));
        };
        let checks = match &node.kind {
            Kind::All(checks) => checks,
            Kind::Always(true) => return Ok(()),
            Kind::Always(false) | Kind::Open => return Err(Misfit::new("is not allowed")),
        };
        let is_other = self.scope.last() != Some(&node.resource);
        if is_other {
            self.scope.push(node.resource);
        }
        let is_wanted = seen.is_some() || checks.iter().any(Check::looks_at_the_rest);
        let mut own = is_wanted.then(Evaluated::default);
        let fits = checks
            .iter()
            .try_for_each(|check| self.one(check, value, depth + 1, own.as_mut()));
        if is_other {
            self.scope.pop();
        }
        if let (Ok(()), Some(seen), Some(own)) = (&fits, seen, own) {
            seen.merge(own);
        }
        fits
    }

    fn fits(
        &mut self,
        place: usize,
        value: &Value,
        depth: usize,
        seen: Option<&mut Evaluated>,
    ) -> Result<bool, Misfit> {
        match self.node(place, value, depth, seen) {
            Ok(()) => Ok(true),
            Err(misfit) if misfit.is_final => Err(misfit),
            Err(_) => Ok(false),
        }
    }

    fn one(
        &mut self,
        check: &Check,
        value: &Value,
        depth: usize,
        mut seen: Option<&mut Evaluated>,
    ) -> Result<(), Misfit> {
        let must =
            |fits: bool, what: &dyn Fn() -> String| if fits { Ok(()) } else { Err(Misfit::new(what())) };
        match check {
            Check::Types(types) => must(types.iter().any(|t| t.has(value)), &|| {
                let names: Vec<_> = types.iter().map(|t| t.name()).collect();
                format!("is {} but should be {}", kind(value), names.join(" or "))
            }),
            Check::Enum(values) => must(values.iter().any(|v| order(v, value).is_eq()), &|| {
                let told: Vec<_> = values.iter().take(8).map(Value::to_string).collect();
                format!("should be {}", told.join(" or "))
            }),
            Check::Ref(place) => self.node(*place, value, depth, seen),
            Check::DynamicRef { fallback, candidates } => {
                let of = |resource: &usize| candidates.iter().find(|(of, _)| of == resource);
                let place = self
                    .scope
                    .iter()
                    .find_map(of)
                    .map_or(*fallback, |(_, place)| *place);
                self.node(place, value, depth, seen)
            }
            Check::AllOf(all) => all
                .iter()
                .try_for_each(|place| self.node(*place, value, depth, seen.as_deref_mut())),
            Check::AnyOf(any) => {
                let mut fits = false;
                for place in any {
                    fits |= self.fits(*place, value, depth, seen.as_deref_mut())?;
                    // Parts evaluated by other schemas count, too.
                    if fits && seen.is_none() {
                        break;
                    }
                }
                must(fits, &|| "matches none of `anyOf`".to_owned())
            }
            Check::OneOf(one) => {
                let mut fitting = 0;
                for place in one {
                    fitting += usize::from(self.fits(*place, value, depth, seen.as_deref_mut())?);
                }
                must(fitting == 1, &|| {
                    format!("matches {fitting} of `oneOf` but should match one")
                })
            }
            Check::Not(place) => must(!self.fits(*place, value, depth, None)?, &|| {
                "matches the schema in `not`".to_owned()
            }),
            Check::If {
                condition,
                then,
                other,
            } => {
                let next = if self.fits(*condition, value, depth, seen.as_deref_mut())? {
                    then
                } else {
                    other
                };
                next.map_or(Ok(()), |place| self.node(place, value, depth, seen))
            }
            _ => match value {
                Value::Object(fields) => self.object(check, fields, value, depth, seen),
                Value::Array(items) => self.array(check, items, depth, seen),
                Value::String(text) => string(check, text),
                Value::Number(number) => numeric(check, number),
                Value::Null | Value::Bool(_) => Ok(()),
            },
        }
    }

    fn object(
        &mut self,
        check: &Check,
        fields: &Object,
        value: &Value,
        depth: usize,
        mut seen: Option<&mut Evaluated>,
    ) -> Result<(), Misfit> {
        let missing = |names: &[String]| names.iter().find(|name| !fields.has(name)).cloned();
        match check {
            Check::Required(names) => match missing(names) {
                Some(name) => Err(Misfit::new(format!("has no `{name}`"))),
                None => Ok(()),
            },
            Check::DependentRequired(all) => {
                for (name, needs) in all.iter().filter(|(name, _)| fields.has(name)) {
                    if let Some(lacks) = missing(needs) {
                        return Err(Misfit::new(format!("has `{name}` but no `{lacks}`")));
                    }
                }
                Ok(())
            }
            Check::DependentSchemas(all) => {
                let mut needed = all.iter().filter(|(name, _)| fields.has(name));
                needed.try_for_each(|(_, place)| self.node(*place, value, depth, seen.as_deref_mut()))
            }
            Check::Properties {
                named,
                patterns,
                others,
            } => {
                for (name, value) in fields.iter() {
                    let mut is_known = false;
                    let own = named.get(name).into_iter();
                    let by_pattern = patterns.iter().filter(|(pattern, _)| pattern.is_match(name));
                    for place in own.chain(by_pattern.map(|(_, place)| place)) {
                        is_known = true;
                        self.node(*place, value, depth, None)
                            .map_err(|e| e.within(name))?;
                    }
                    if let (false, Some(place)) = (is_known, others) {
                        is_known = true;
                        self.node(*place, value, depth, None)
                            .map_err(|e| e.within(name))?;
                    }
                    if let (true, Some(seen)) = (is_known, seen.as_deref_mut()) {
                        seen.fields.insert(name.clone());
                    }
                }
                Ok(())
            }
            Check::OtherProperties(place) => {
                let Some(seen) = seen else { return Ok(()) };
                for (name, value) in fields.iter() {
                    if seen.fields.insert(name.clone()) {
                        self.node(*place, value, depth, None)
                            .map_err(|e| e.within(name))?;
                    }
                }
                Ok(())
            }
            Check::PropertyNames(place) => {
                for (name, _) in fields.iter() {
                    let text = Value::String(name.clone());
                    self.node(*place, &text, depth, None).map_err(|e| Misfit {
                        what: format!("has an invalid name: `{name}` {}", e.what),
                        ..e
                    })?;
                }
                Ok(())
            }
            Check::PropertyCount(range) if !range.has(fields.len()) => Err(Misfit::new(format!(
                "has {} fields but should have {range}",
                fields.len()
            ))),
            _ => Ok(()),
        }
    }

    fn array(
        &mut self,
        check: &Check,
        items: &[Value],
        depth: usize,
        mut seen: Option<&mut Evaluated>,
    ) -> Result<(), Misfit> {
        match check {
            Check::Items { first, rest } => {
                for (n, item) in items.iter().enumerate() {
                    if let Some(place) = first.get(n).or(rest.as_ref()) {
                        self.node(*place, item, depth, None)
                            .map_err(|e| e.within(n.to_string()))?;
                        if let Some(seen) = seen.as_deref_mut() {
                            seen.items.insert(n);
                        }
                    }
                }
                Ok(())
            }
            Check::OtherItems(place) => {
                let Some(seen) = seen else { return Ok(()) };
                for (n, item) in items.iter().enumerate() {
                    if seen.items.insert(n) {
                        self.node(*place, item, depth, None)
                            .map_err(|e| e.within(n.to_string()))?;
                    }
                }
                Ok(())
            }
            Check::Contains { schema, count } => {
                let mut fitting = 0;
                for (n, item) in items.iter().enumerate() {
                    if !self.fits(*schema, item, depth, None)? {
                        continue;
                    }
                    fitting += 1;
                    if let Some(seen) = seen.as_deref_mut() {
                        seen.items.insert(n);
                    }
                }
                match count.has(fitting) {
                    true => Ok(()),
                    false => Err(Misfit::new(format!(
                        "has {fitting} items that match `contains` but should have {count}"
                    ))),
                }
            }
            Check::ItemCount(range) if !range.has(items.len()) => Err(Misfit::new(format!(
                "has {} items but should have {range}",
                items.len()
            ))),
            Check::Unique => {
                let mut by_value: Vec<_> = items.iter().enumerate().collect();
                // A stable sort: the first of equal values stays first.
                by_value.sort_by(|(_, a), (_, b)| order(a, b));
                let pairs = by_value.windows(2).filter_map(|pair| match pair {
                    [(_, a), (n, b)] if order(a, b).is_eq() => Some(n),
                    _ => None,
                });
                match pairs.min() {
                    Some(n) => Err(Misfit::new("is a duplicate").within(n.to_string())),
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
                    "has {len} characters but should have {range}"
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
    let is = |than: &Number| number.cmp(than);
    let (fits, what) = match check {
        Check::Minimum(least) => (
            is(least) != Less,
            format!("is {number} but should be at least {least}"),
        ),
        Check::Maximum(most) => (
            is(most) != Greater,
            format!("is {number} but should be at most {most}"),
        ),
        Check::Above(than) => (
            is(than) == Greater,
            format!("is {number} but should be more than {than}"),
        ),
        Check::Below(than) => (
            is(than) == Less,
            format!("is {number} but should be less than {than}"),
        ),
        Check::MultipleOf(of) => (
            number.is_multiple(of),
            format!("is {number} but should be a multiple of {of}"),
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
            (Self::Integer, Value::Number(n)) => n.is_whole(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod suite;
#[cfg(test)]
mod tests;
