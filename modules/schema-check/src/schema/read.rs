//! A schema, read from its JSON.

use super::{Check, Node, Range, Type};
use regex_lite::Regex;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Schemas within a schema.
const NODES_MAX: usize = 4_096;

/// Says something for people and nothing for machines.
const ANNOTATIONS: [&str; 14] = [
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
];

/// Reads a schema.
pub(super) struct Reader<'a> {
    whole: &'a Value,
    nodes: Vec<Node>,
    /// Places of those that something refers to, by pointer.
    known: BTreeMap<String, usize>,
}

impl<'a> Reader<'a> {
    /// All schemas of `whole`, of which it is the first.
    pub(super) fn read(whole: &'a Value) -> Result<Vec<Node>, String> {
        let mut reader = Self {
            whole,
            nodes: Vec::new(),
            known: BTreeMap::new(),
        };
        reader.at("", whole)?;
        Ok(reader.nodes)
    }

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
                "$id" if at.is_empty() => continue,
                "$id" => return Err(format!("`{here}`: only the whole schema may have an `$id` here")),
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
                    let of = number()?;
                    if of.as_f64().is_none_or(|of| of <= 0.0) {
                        return Err(want("a number above 0"));
                    }
                    Check::MultipleOf(of)
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
        // What is within a schema with an `$id` of its own would mean other places by its references.
        let within = pointer.match_indices('/').skip(1).map(|(end, _)| &pointer[..end]);
        if let Some(other) = within
            .filter(|place| whole.pointer(place).is_some_and(|v| v["$id"].is_string()))
            .last()
        {
            return Err(format!(
                "`{here}`: `#{other}` has an `$id` of its own, which is not understood here"
            ));
        }
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
