//! Comparison with another implementation, on generated schemas and values.

use super::{Misfit, Schema};
use proptest::prelude::*;
use serde_json::{Value, json};

pub(super) fn schema(schema: &Value) -> Result<Schema, String> {
    Schema::read(&crate::Value::parse(schema.to_string().as_bytes())?)
}

pub(super) fn check(schema: &Schema, value: &Value) -> Result<(), Misfit> {
    schema.check(&crate::Value::parse(value.to_string().as_bytes()).unwrap())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3..4i64).prop_map(Value::from),
        (-6..7i64).prop_map(|n| json!(n as f64 / 2.0)),
        "[abé]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[abc]{1}", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Generates a keyword with its value.
fn keyword(schema: BoxedStrategy<Value>) -> BoxedStrategy<(String, Value)> {
    let says =
        |name: &'static str, of: BoxedStrategy<Value>| of.prop_map(move |v| (name.to_owned(), v)).boxed();
    let small = || (0..3u64).prop_map(Value::from).boxed();
    let number = || {
        prop_oneof![
            (-3..4i64).prop_map(Value::from),
            (-4..5i64).prop_map(|n| json!(n as f64 / 2.0))
        ]
        .boxed()
    };
    let list = || {
        prop::collection::vec(schema.clone(), 1..3)
            .prop_map(Value::from)
            .boxed()
    };
    let fields = |names: &'static str| {
        prop::collection::vec((names, schema.clone()), 0..3)
            .prop_map(|fields| Value::Object(fields.into_iter().collect()))
            .boxed()
    };
    let names = || {
        prop::collection::btree_set("[abc]{1}", 0..3)
            .prop_map(|n| json!(n))
            .boxed()
    };
    let types = prop::sample::subsequence(
        vec![
            "null", "boolean", "object", "array", "number", "string", "integer",
        ],
        1..4,
    );
    prop::strategy::Union::new([
        says("type", types.prop_map(|t| json!(t)).boxed()),
        says(
            "enum",
            prop::collection::vec(value(), 1..4).prop_map(Value::from).boxed(),
        ),
        says("const", value().boxed()),
        says(
            "$ref",
            prop_oneof![Just(json!("#/$defs/a")), Just(json!("#/$defs/b"))].boxed(),
        ),
        says("allOf", list()),
        says("anyOf", list()),
        says("oneOf", list()),
        says("not", schema.clone()),
        says("if", schema.clone()),
        says("then", schema.clone()),
        says("else", schema.clone()),
        says("required", names()),
        says(
            "dependentRequired",
            names().prop_map(|n| json!({ "a": n })).boxed(),
        ),
        says("dependentSchemas", fields("[abc]{1}")),
        says("properties", fields("[abc]{1}")),
        says("patternProperties", fields("\\^?[ab]")),
        says("additionalProperties", schema.clone()),
        says("propertyNames", schema.clone()),
        says("unevaluatedProperties", schema.clone()),
        says("unevaluatedItems", schema.clone()),
        says("minProperties", small()),
        says("maxProperties", small()),
        says("items", schema.clone()),
        says("prefixItems", list()),
        says("contains", schema.clone()),
        says("minContains", small()),
        says("maxContains", small()),
        says("minItems", small()),
        says("maxItems", small()),
        says("uniqueItems", any::<bool>().prop_map(Value::from).boxed()),
        says("minLength", small()),
        says("maxLength", small()),
        says("pattern", "\\^?[ab]\\$?".prop_map(Value::from).boxed()),
        says("minimum", number()),
        says("maximum", number()),
        says("exclusiveMinimum", number()),
        says("exclusiveMaximum", number()),
        says(
            "multipleOf",
            prop_oneof![Just(json!(2)), Just(json!(0.5)), Just(json!(1.5))].boxed(),
        ),
    ])
    .boxed()
}

fn any_schema() -> impl Strategy<Value = Value> {
    let leaf = any::<bool>().prop_map(Value::from).boxed();
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop::collection::vec(keyword(inner.boxed()), 0..4)
            .prop_map(|keywords| Value::Object(keywords.into_iter().collect()))
    })
}

/// Generates schemas. References lead to schemas without references: cycles have a test of their own.
fn whole() -> impl Strategy<Value = Value> {
    let plain = prop_oneof![
        Just(json!(true)),
        Just(json!({ "type": "integer" })),
        Just(json!({ "required": ["a"] })),
        Just(json!({ "maxLength": 1 })),
    ];
    (any_schema(), plain.clone(), plain)
        .prop_map(|(schema, a, b)| json!({ "allOf": [schema], "$defs": { "a": a, "b": b } }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn it_says_what_another_says(schema in whole(), values in prop::collection::vec(value(), 1..8)) {
        let ours = super::tests::schema(&schema).unwrap();
        let (mut compiler, mut all) = (boon::Compiler::new(), boon::Schemas::new());
        compiler.add_resource("mem:///schema", schema.clone()).unwrap();
        let theirs = compiler.compile("mem:///schema", &mut all).unwrap();
        for value in values {
            let fits = all.validate(&value, theirs).is_ok();
            prop_assert_eq!(check(&ours, &value).is_ok(), fits, "{} of {}", schema, value);
        }
    }

    #[test]
    fn whatever_is_given_as_a_schema_does_no_harm(schema in value(), value in value()) {
        if let Ok(schema) = super::tests::schema(&schema) {
            let _ = check(&schema, &value);
        }
    }
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    for (schema, why) in [
        (json!({ "minimun": 1 }), "has `minimun`, which is not supported"),
        (
            json!({ "$schema": "http://json-schema.org/draft-07/schema#" }),
            "only https://json-schema.org/draft/2020-12/schema is supported",
        ),
        (
            json!({ "properties": { "a": { "type": "int" } } }),
            "`/properties/a/type` must be the name of a type",
        ),
        (
            json!({ "$ref": "https://example.com/s" }),
            "`https://example.com/s` is outside of this schema",
        ),
        (
            json!({ "$ref": "#/$defs/none" }),
            "there is no schema at `#/$defs/none`",
        ),
        (json!({ "pattern": "(?=x)" }), "is not supported"),
        (json!({ "minimum": "1" }), "`/minimum` must be a number"),
        (json!({ "maxItems": -1 }), "`/maxItems` must be a whole number"),
        (json!({ "multipleOf": 0 }), "must be a number above 0"),
        (json!({ "allOf": [] }), "`/allOf` must be a list of schemas"),
        (json!([1]), "is not a schema"),
        (
            json!({ "$defs": { "a": { "$id": "mem:///a" }, "b": { "$id": "mem:///a" } } }),
            "`/$defs/b/$id`: duplicate `mem:///a`",
        ),
        (json!({ "$id": "a#b" }), "has a fragment"),
    ] {
        let refused = super::tests::schema(&schema).unwrap_err();
        assert!(refused.contains(why), "{schema}: {refused}");
    }
}

#[test]
fn a_unit_of_too_many_digits_is_refused() {
    let schema = crate::Value::parse(br#"{ "multipleOf": 0.1234567890123456789 }"#).unwrap();
    let refused = Schema::read(&schema).unwrap_err();
    assert!(refused.contains("a number of at most 18 digits"), "{refused}");
}

#[test]
fn schemas_that_go_in_circles_end() {
    let tree =
        json!({ "type": "object", "properties": { "next": { "$ref": "#" } }, "additionalProperties": false });
    let tree = schema(&tree).unwrap();
    assert!(check(&tree, &json!({ "next": { "next": {} } })).is_ok());
    let misfit = check(&tree, &json!({ "next": { "next": { "other": 1 } } })).unwrap_err();
    assert_eq!(misfit.to_string(), "`/next/next/other` is not allowed");
    for circle in [
        json!({ "$ref": "#" }),
        json!({ "not": { "anyOf": [{ "required": ["a"] }, { "$ref": "#" }] } }),
        json!({ "$ref": "#/$defs/a", "$defs": { "a": { "if": { "$ref": "#/$defs/b" } }, "b": { "dependentSchemas": { "x": { "$ref": "#/$defs/a" } } } } }),
    ] {
        let refused = schema(&circle).unwrap_err();
        assert_eq!(refused, "the schema refers to itself without checking anything");
    }
    // Two paths to a schema are not a cycle.
    let twice = json!({ "allOf": [{ "$ref": "#/$defs/a" }, { "$ref": "#/$defs/b" }],
        "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "type": "integer" } } });
    assert!(check(&schema(&twice).unwrap(), &json!(1)).is_ok());
}

fn nested(levels: usize, inner: Value) -> Value {
    (0..levels).fold(inner, |value, _| json!({ "c": value }))
}

#[test]
fn what_nests_deep_is_looked_at_to_its_end() {
    // No `secret` at any depth: three schemas per level.
    let hidden = json!({ "not": { "$ref": "#/$defs/s" }, "$defs": { "s": { "anyOf": [
        { "required": ["secret"] },
        { "required": ["c"], "properties": { "c": { "$ref": "#/$defs/s" } } },
    ] } } });
    let hidden = schema(&hidden).unwrap();
    for levels in [0, 1, 30, 120] {
        assert!(
            check(&hidden, &nested(levels, json!({ "secret": 1 }))).is_err(),
            "{levels}"
        );
        assert!(
            check(&hidden, &nested(levels, json!({ "other": 1 }))).is_ok(),
            "{levels}"
        );
    }
    // A value that cannot be checked does not match, neither plainly nor under `not`.
    let mut long = json!({ "properties": { "c": { "$ref": "#" } } });
    for _ in 0..20 {
        long = json!({ "allOf": [long] });
    }
    for schema in [
        long.clone(),
        json!({ "not": long }),
        json!({ "anyOf": [{ "not": long }, true] }),
    ] {
        let read = super::tests::schema(&schema).unwrap();
        let misfit = check(&read, &nested(120, json!(1))).unwrap_err();
        assert!(
            misfit.to_string().contains("nested too deep"),
            "{schema}: {misfit}"
        );
    }
}

#[test]
fn numbers_are_what_they_say() {
    for (of, number, fits) in [
        ("0.01", "19.99", true),
        ("0.01", "0.07", true),
        ("0.01", "4.35", true),
        ("0.1", "0.3", true),
        ("0.01", "19.995", false),
        ("2", "9007199254740993", false),
        ("3", "9007199254740993", true),
        ("10", "1e25", true),
        ("7", "1e25", false),
        ("1e-300", "1", true),
        ("1e300", "1", false),
        (
            "7",
            "12345678901234567890123456789012345678901234567890123",
            false,
        ),
        ("3", "1e400", false),
        ("5", "1e99999999999999999999", true),
        ("0.5", "1e308", true),
        ("0.123456789", "1e308", false),
        ("1e300", "0", true),
        ("2.5", "-7.5", true),
        ("0.3", "-1", false),
        ("1", "18446744073709551615", true),
        ("4", "18446744073709551615", false),
    ] {
        let written = |text: &str| crate::Value::parse(text.as_bytes()).unwrap();
        let schema = written(&format!(r#"{{ "multipleOf": {of} }}"#));
        let value = written(number);
        assert_eq!(
            Schema::read(&schema).unwrap().check(&value).is_ok(),
            fits,
            "{number} of {of}"
        );
    }
    let unique = schema(&json!({ "uniqueItems": true })).unwrap();
    for (items, fits) in [
        ("[9007199254740993, 9007199254740992.0]", true),
        ("[12345678901234567890123, 12345678901234567890124]", true),
        ("[1.0e2, 100, 7]", false),
        ("[-0, 0.0]", false),
        ("[9007199254740992, 9007199254740992.0]", false),
        ("[1e300, -1e300, 18446744073709551615, 0.5, 0]", true),
        (r#"[{"a": 1, "b": 2}, {"b": 2.0, "a": 1}]"#, false),
        (
            r#"[{"a": [1, 2]}, {"a": [2, 1]}, {"a": 1}, [], {}, "", null, false]"#,
            true,
        ),
    ] {
        let items = crate::Value::parse(items.as_bytes()).unwrap();
        assert_eq!(unique.check(&items).is_ok(), fits, "{items}");
    }
    let misfit = check(&unique, &json!([3, 1, 2, 1, 3, 1])).unwrap_err();
    assert_eq!(misfit.to_string(), "`/3` is a duplicate");
}
