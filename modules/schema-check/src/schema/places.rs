//! Resolves references: resources and anchors of a schema by URI (JSON Schema core, sections 8 and 9).

use crate::value::{Object, Value};
use fluent_uri::{Uri, UriRef};
use std::collections::BTreeMap;

/// Base URI of a schema without an `$id`.
const BASE: &str = "schema:///";
/// The supported dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A schema within the whole, by JSON Pointer.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) schema: &'a Value,
    /// Index of the schema's resource.
    pub(super) resource: usize,
}

/// All schemas of the whole.
#[derive(Debug, Default)]
pub(super) struct Places<'a> {
    places: BTreeMap<String, Place<'a>>,
    /// URI and pointer of each resource, the whole first.
    resources: Vec<(String, String)>,
    /// Pointers by resource and anchor name.
    anchors: BTreeMap<(usize, String), String>,
    dynamic: BTreeMap<(usize, String), String>,
}

/// The target of a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) pointer: String,
    /// Name of the dynamic anchor, if the reference resolved to one.
    pub(super) dynamic: Option<String>,
}

impl<'a> Places<'a> {
    pub(super) fn of(whole: &'a Value) -> Result<Self, String> {
        let mut places = Self {
            resources: vec![(BASE.to_owned(), String::new())],
            ..Self::default()
        };
        places.walk(String::new(), whole, 0)?;
        Ok(places)
    }

    pub(super) fn get(&self, pointer: &str) -> Option<&Place<'a>> {
        self.places.get(pointer)
    }

    /// Returns pointer and resource of each schema with a dynamic anchor of this name.
    pub(super) fn dynamic(&self, name: &str) -> Vec<(usize, String)> {
        let all = self.dynamic.iter().filter(|((_, other), _)| other == name);
        all.map(|((resource, _), pointer)| (*resource, pointer.clone()))
            .collect()
    }

    fn walk(&mut self, pointer: String, schema: &'a Value, resource: usize) -> Result<(), String> {
        let Value::Object(keywords) = schema else {
            self.places.insert(pointer, Place { schema, resource });
            return Ok(());
        };
        let resource = self.resource(&pointer, keywords, resource)?;
        if let Some(dialect) = keywords.get("$schema").and_then(Value::as_str)
            && dialect.trim_end_matches('#') != DIALECT
        {
            return Err(format!(
                "`{pointer}/$schema` is `{dialect}`, but only {DIALECT} is supported: remove the keyword if the schema fits both"
            ));
        }
        for (keyword, anchors) in [
            ("$anchor", &mut self.anchors),
            ("$dynamicAnchor", &mut self.dynamic),
        ] {
            if let Some(name) = keywords.get(keyword).and_then(Value::as_str) {
                anchors.insert((resource, name.to_owned()), pointer.clone());
            }
        }
        self.places.insert(pointer.clone(), Place { schema, resource });
        for (below, schema) in schemas_in(keywords) {
            self.walk(format!("{pointer}{below}"), schema, resource)?;
        }
        Ok(())
    }

    /// Returns the resource of a schema: its own if it has an `$id`.
    fn resource(&mut self, pointer: &str, keywords: &Object, within: usize) -> Result<usize, String> {
        let Some(id) = keywords.get("$id") else {
            return Ok(within);
        };
        let here = format!("{pointer}/$id");
        let id = id.as_str().ok_or_else(|| format!("`{here}` must be a URI"))?;
        let base = self.resources.get(within).map_or(BASE, |(uri, _)| uri);
        let uri = resolve(base, id).map_err(|why| format!("`{here}`: {why}"))?;
        let uri = match uri.split_once('#') {
            Some((_, fragment)) if !fragment.is_empty() => {
                return Err(format!("`{here}` has a fragment, which `$id` must not have"));
            }
            Some((uri, _)) => uri.to_owned(),
            None => uri,
        };
        if self.resources.iter().any(|(other, _)| *other == uri) {
            return Err(format!("`{here}`: duplicate `{uri}`"));
        }
        if pointer.is_empty() {
            self.resources = vec![(uri, String::new())];
            return Ok(0);
        }
        self.resources.push((uri, pointer.to_owned()));
        Ok(self.resources.len() - 1)
    }

    /// Resolves `reference` from the schema at `pointer`.
    pub(super) fn find(&self, pointer: &str, reference: &str) -> Result<Target, String> {
        let resource = self.get(pointer).map_or(0, |place| place.resource);
        let base = self.resources.get(resource).map_or(BASE, |(uri, _)| uri);
        let uri = resolve(base, reference)?;
        let (uri, fragment) = uri.split_once('#').unwrap_or((&uri, ""));
        let found = self.resources.iter().position(|(other, _)| other == uri);
        let found = found.ok_or_else(|| {
            format!("`{reference}` is outside of this schema: only references within it are supported, such as `#/$defs/…`")
        })?;
        let fragment = decoded(fragment).ok_or_else(|| format!("`{reference}` is not valid text"))?;
        let root = self.resources.get(found).map_or("", |(_, pointer)| pointer);
        let none = || format!("there is no schema at `{reference}`");
        if fragment.is_empty() || fragment.starts_with('/') {
            let pointer = format!("{root}{fragment}");
            return match self.get(&pointer) {
                Some(_) => Ok(Target {
                    pointer,
                    dynamic: None,
                }),
                None => Err(none()),
            };
        }
        let key = (found, fragment.clone());
        if let Some(pointer) = self.dynamic.get(&key) {
            return Ok(Target {
                pointer: pointer.clone(),
                dynamic: Some(fragment),
            });
        }
        let pointer = self.anchors.get(&key).cloned().ok_or_else(none)?;
        Ok(Target {
            pointer,
            dynamic: None,
        })
    }
}

fn resolve(base: &str, reference: &str) -> Result<String, String> {
    let told = |e: &dyn std::fmt::Display| format!("`{reference}` is not a URI: {e}");
    let base = Uri::parse(base).map_err(|e| told(&e))?;
    let reference = UriRef::parse(reference).map_err(|e| told(&e))?;
    let resolved = reference.resolve_against(&base).map_err(|e| told(&e))?;
    Ok(resolved.into_string())
}

/// Decodes the percent signs of a fragment.
fn decoded(fragment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let Some((b, after)) = rest.split_first() {
        rest = after;
        if *b != b'%' {
            bytes.push(*b);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = rest.get(2..)?;
    }
    String::from_utf8(bytes).ok()
}

/// Returns the subschemas in the keywords, with their relative pointers.
fn schemas_in(keywords: &Object) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (name, value) in keywords.iter() {
        match name.as_str() {
            "not"
            | "if"
            | "then"
            | "else"
            | "items"
            | "contains"
            | "additionalProperties"
            | "propertyNames"
            | "unevaluatedItems"
            | "unevaluatedProperties"
            | "contentSchema" => {
                found.push((format!("/{name}"), value));
            }
            "allOf" | "anyOf" | "oneOf" | "prefixItems" => {
                let items = value.as_array().unwrap_or_default().iter().enumerate();
                found.extend(items.map(|(n, schema)| (format!("/{name}/{n}"), schema)));
            }
            "$defs" | "definitions" | "properties" | "patternProperties" | "dependentSchemas"
            | "dependencies" => {
                let fields = value.as_object().into_iter().flat_map(Object::iter);
                // A list of names is not a schema.
                let fields = fields.filter(|(_, schema)| schema.as_array().is_none());
                found.extend(fields.map(|(field, schema)| (format!("/{name}/{}", escaped(field)), schema)));
            }
            _ => {}
        }
    }
    found
}

/// Escapes a name for a JSON Pointer.
pub(super) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
