//! Compiles a schema from its JSON.

use super::places::{Places, escaped};
use super::{Check, Kind, Node, Range, Type, pattern};
use crate::number::Number;
use crate::value::{Object, Value};
use std::collections::BTreeMap;

/// Maximum number of schemas within a schema.
const NODES_MAX: usize = 4_096;

/// Keywords for people, without effect on a check.
const ANNOTATIONS: [&str; 18] = [
    "$id",
    "$anchor",
    "$dynamicAnchor",
    "$schema",
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
    "contentSchema",
];

/// Compiles a schema.
pub(super) struct Reader<'a> {
    places: Places<'a>,
    nodes: Vec<Node>,
    /// Indexes of schemas already read, by pointer.
    known: BTreeMap<String, usize>,
}

impl<'a> Reader<'a> {
    /// Compiles all schemas of `whole`; the first result is `whole` itself.
    pub(super) fn read(whole: &'a Value) -> Result<Vec<Node>, String> {
        let mut reader = Self {
            places: Places::of(whole)?,
            nodes: Vec::new(),
            known: BTreeMap::new(),
        };
        reader.at("")?;
        Ok(reader.nodes)
    }

    /// Compiles the schema at `pointer` and returns its index.
    fn at(&mut self, pointer: &str) -> Result<usize, String> {
        if let Some(place) = self.known.get(pointer) {
            return Ok(*place);
        }
        if self.nodes.len() >= NODES_MAX {
            return Err(format!("a schema may contain at most {NODES_MAX} schemas"));
        }
        let found = self.places.get(pointer);
        let found = found.ok_or_else(|| format!("`{pointer}` is not a schema"))?;
        let (schema, resource) = (found.schema, found.resource);
        let place = self.nodes.len();
        self.nodes.push(Node {
            resource,
            kind: Kind::Open,
        });
        // Registered before its content is read, which may refer to it.
        self.known.insert(pointer.to_owned(), place);
        let kind = match schema {
            Value::Bool(always) => Kind::Always(*always),
            Value::Object(keywords) => {
                let mut checks = self.checks(pointer, keywords)?;
                // Last, after all checks that may evaluate parts.
                checks.sort_by_key(Check::looks_at_the_rest);
                Kind::All(checks)
            }
            _ => {
                return Err(format!(
                    "`{pointer}` is not a schema: use an object, `true` or `false`"
                ));
            }
        };
        if let Some(slot) = self.nodes.get_mut(place) {
            slot.kind = kind;
        }
        Ok(place)
    }

    fn checks(&mut self, at: &str, keywords: &Object) -> Result<Vec<Check>, String> {
        let mut checks = Vec::new();
        for (name, value) in keywords.iter() {
            let here = format!("{at}/{}", escaped(name));
            let want = |what: &str| format!("`{here}` must be {what}");
            let number = || value.as_number().cloned().ok_or_else(|| want("a number"));
            let check = match name.as_str() {
                name if ANNOTATIONS.contains(&name) => continue,
                // Read together with their main keyword.
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
                    let listed = value.as_array().unwrap_or(std::slice::from_ref(value));
                    let types: Option<Vec<_>> = listed.iter().map(Type::read).collect();
                    Check::Types(types.ok_or_else(|| want("the name of a type, or a list of them"))?)
                }
                "enum" => Check::Enum(value.as_array().ok_or_else(|| want("a list"))?.to_vec()),
                "const" => Check::Enum(vec![value.clone()]),
                "$ref" => Check::Ref(self.refer(at, value, &here)?.0),
                "$dynamicRef" => match self.refer(at, value, &here)? {
                    (place, None) => Check::Ref(place),
                    (fallback, Some(name)) => Check::DynamicRef {
                        fallback,
                        candidates: self.dynamic(&name)?,
                    },
                },
                "allOf" => Check::AllOf(self.list(&here, value)?),
                "anyOf" => Check::AnyOf(self.list(&here, value)?),
                "oneOf" => Check::OneOf(self.list(&here, value)?),
                "not" => Check::Not(self.at(&here)?),
                "if" => Check::If {
                    condition: self.at(&here)?,
                    then: self.member(at, keywords, "then")?,
                    other: self.member(at, keywords, "else")?,
                },
                "required" => Check::Required(names(value).ok_or_else(|| want("a list of names"))?),
                "dependentRequired" => {
                    let all = value.as_object().and_then(|all| all.iter().map(needs).collect());
                    Check::DependentRequired(all.ok_or_else(|| want("an object of lists of names"))?)
                }
                // From an earlier draft; combines its two successors.
                "dependencies" => {
                    let all = value.as_object().ok_or_else(|| want("an object"))?;
                    let lists = all.iter().filter(|(_, needed)| needed.as_array().is_some());
                    let lists = lists.map(needs).collect::<Option<_>>();
                    checks.push(Check::DependentRequired(
                        lists.ok_or_else(|| want("an object of lists of names, or schemas"))?,
                    ));
                    let mut schemas = Vec::new();
                    for (name, _) in all.iter().filter(|(_, needed)| needed.as_array().is_none()) {
                        schemas.push((name.clone(), self.at(&format!("{here}/{}", escaped(name)))?));
                    }
                    Check::DependentSchemas(schemas)
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
                "unevaluatedProperties" => Check::OtherProperties(self.at(&here)?),
                "unevaluatedItems" => Check::OtherItems(self.at(&here)?),
                "propertyNames" => Check::PropertyNames(self.at(&here)?),
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
                    if !keywords.has("minContains") {
                        count.least = 1;
                    }
                    Check::Contains {
                        schema: self.at(&here)?,
                        count,
                    }
                }
                // Without effect if the main keyword is missing.
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
                    let of = number()?;
                    if !of.is_positive() {
                        return Err(want("a number above 0"));
                    }
                    if !of.is_divisor() {
                        return Err(want("a number of at most 18 digits"));
                    }
                    Check::MultipleOf(of)
                }
                unknown => return Err(format!("`{at}` has `{unknown}`, which is not supported")),
            };
            checks.push(check);
        }
        Ok(checks)
    }

    /// Compiles the schema under `name` in `keywords`, which are at `at`.
    fn member(&mut self, at: &str, keywords: &Object, name: &str) -> Result<Option<usize>, String> {
        let schema = keywords.get(name);
        schema.map(|_| self.at(&format!("{at}/{name}"))).transpose()
    }

    fn list(&mut self, at: &str, value: &Value) -> Result<Vec<usize>, String> {
        let all = value.as_array().filter(|all| !all.is_empty());
        let all = all.ok_or_else(|| format!("`{at}` must be a list of schemas"))?;
        (0..all.len()).map(|n| self.at(&format!("{at}/{n}"))).collect()
    }

    fn map(&mut self, at: &str, value: &Value) -> Result<Vec<(String, usize)>, String> {
        let all = value
            .as_object()
            .ok_or_else(|| format!("`{at}` must be an object of schemas"))?;
        let mut read = Vec::new();
        for (name, _) in all.iter() {
            read.push((name.clone(), self.at(&format!("{at}/{}", escaped(name)))?));
        }
        Ok(read)
    }

    /// Resolves the reference `value` in the schema at `at`: the schema's index, and the name of the dynamic
    /// anchor, if any.
    fn refer(&mut self, at: &str, value: &Value, here: &str) -> Result<(usize, Option<String>), String> {
        let reference = value.as_str();
        let reference = reference
            .ok_or_else(|| format!("`{here}` must be a reference within this schema, such as `#/$defs/…`"))?;
        let target = self.places.find(at, reference);
        let target = target.map_err(|why| format!("`{here}`: {why}"))?;
        Ok((self.at(&target.pointer)?, target.dynamic))
    }

    /// Returns resource and index of each schema with a dynamic anchor of this name.
    fn dynamic(&mut self, name: &str) -> Result<Vec<(usize, usize)>, String> {
        let all = self.places.dynamic(name).into_iter();
        all.map(|(resource, pointer)| Ok((resource, self.at(&pointer)?)))
            .collect()
    }
}

/// Parses a name with the names that it requires.
fn needs((name, needed): (&String, &Value)) -> Option<(String, Vec<String>)> {
    Some((name.clone(), names(needed)?))
}

/// Returns true if `name` is read together with another of `keywords`.
fn belongs(name: &str, keywords: &Object) -> bool {
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
    with.iter().any(|other| keywords.has(other))
}

fn names(value: &Value) -> Option<Vec<String>> {
    let name = |v: &Value| v.as_str().map(str::to_owned);
    value.as_array()?.iter().map(name).collect()
}

fn regex(text: &str, here: &str) -> Result<regex_lite::Regex, String> {
    pattern::read(text).map_err(|why| format!("`{here}`: {why}"))
}

fn range(keywords: &Object, least: &str, most: &str, want: &dyn Fn(&str) -> String) -> Result<Range, String> {
    let bound = |name: &str, otherwise: u64| match keywords.get(name) {
        None => Ok(otherwise),
        // `2.0` counts as whole.
        Some(value) => {
            let whole = value.as_number().and_then(Number::as_u64);
            whole.ok_or_else(|| want("a whole number, 0 or more"))
        }
    };
    Ok(Range {
        least: bound(least, 0)?,
        most: bound(most, u64::MAX)?,
    })
}
