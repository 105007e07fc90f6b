//! Modules that rewrite a record leave all other fields byte for byte as they came; and the order of readings
//! within the lateness does not change the results of windows.

use super::json_readers::json;
use proptest::prelude::*;
use weir_module_convert::Convert;
use weir_module_downsample::Downsample;
use weir_module_enrich::Enrich;
use weir_module_redact::Redact;
use weir_sdk::Module;
use weir_sdk::document::{Document, Value as Node};
use weir_sdk::testing::{Input, Native, Value};
use weir_sdk::timers::Clock;

/// Returns the output of a module for a value, or the reason of its dead letter.
fn through<M: Module>(set: &[(&str, Value)], key: &str, value: &str) -> Result<String, String> {
    let mut module = Native::<M>::new(set).unwrap();
    let input = Input {
        key: Some(key.as_bytes().to_vec()),
        ..Input::value(value)
    };
    let outcome = module.process(&[input]).unwrap();
    if let Some((_, why)) = outcome.reasons.first() {
        return Err(why.clone());
    }
    if outcome.routes.first() == Some(&1) {
        return Ok(value.to_owned());
    }
    let emitted = outcome.emits.first().unwrap();
    assert!(
        emitted.keys.is_none() && emitted.headers.is_none(),
        "key and headers stay"
    );
    let values = emitted.values.as_ref().unwrap();
    Ok(String::from_utf8(values.data.clone()).unwrap())
}

/// Returns names and values of an object as written, except those of the name `but`.
fn others(text: &str, but: &str) -> Vec<(String, String)> {
    let document = Document::parse(text.as_bytes()).unwrap();
    let fields = document.root().fields().iter().filter(|field| field.name != but);
    let fields = fields.map(|field| (field.name.to_string(), text[field.node.span()].to_owned()));
    fields.collect()
}

/// The object with a hole where the value of its field `ab` is.
fn around(text: &str) -> Option<(String, String)> {
    let document = Document::parse(text.as_bytes()).unwrap();
    let span = document.root().field("ab")?.span();
    Some((text[..span.start].to_owned(), text[span.end..].to_owned()))
}

fn is_object(text: &str) -> bool {
    Document::parse(text.as_bytes()).is_ok_and(|document| matches!(document.root().value(), Node::Object(_)))
}

fn of(text: &str) -> Value {
    Value::Json(text.to_owned())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, max_global_rejects: 400_000, ..ProptestConfig::default() })]

    #[test]
    fn modules_leave_other_fields_byte_for_byte(text in json()) {
        prop_assume!(is_object(&text));
        let (hole, rest) = (around(&text), others(&text, "ab"));

        match through::<Convert>(&[("scale", of(r#"{"ab":0.1}"#))], "k", &text) {
            Ok(scaled) => prop_assert_eq!(&around(&scaled), &hole, "scaled: {}", scaled),
            Err(_) => prop_assert!(hole.is_some(), "{}", text),
        }
        let dropped = through::<Convert>(&[("drop", of(r#"["ab"]"#))], "k", &text).unwrap();
        prop_assert_eq!(others(&dropped, ""), others(&text, "ab").into_iter().filter(|(name, _)| !name.is_empty()).collect::<Vec<_>>());
        if let Ok(renamed) = through::<Convert>(&[("rename", of(r#"{"ab":"zz"}"#))], "k", &text) {
            prop_assert_eq!(&others(&renamed, "zz"), &rest, "renamed: {}", renamed);
        }
        let kept = through::<Convert>(&[("keep", of(r#"["ab"]"#))], "k", &text).unwrap();
        prop_assert_eq!(others(&kept, "ab"), vec![]);
        prop_assert_eq!(Document::parse(kept.as_bytes()).unwrap().root().field("ab").map(|node| kept[node.span()].to_owned()),
            Document::parse(text.as_bytes()).unwrap().root().field("ab").map(|node| text[node.span()].to_owned()));

        for action in ["mask", "hash", "drop"] {
            let fields = format!(r#"{{"/ab":"{action}"}}"#);
            let redacted = through::<Redact>(&[("fields", of(&fields))], "k", &text).unwrap();
            prop_assert_eq!(&others(&redacted, "ab"), &rest, "{}: {}", action, redacted);
        }

        let table = of(r#"{"k":{"zz":1.10,"ab":2}}"#);
        let enriched = through::<Enrich>(&[("table", table)], "k", &text).unwrap();
        let added = others(&enriched, "zz");
        prop_assert_eq!(added.into_iter().filter(|(name, _)| name != "ab").collect::<Vec<_>>(), rest);
        if let Some((before, _)) = hole {
            prop_assert!(enriched.starts_with(&before), "{}", enriched);
        }
    }

    #[test]
    fn order_within_the_lateness_does_not_change_results(
        readings in prop::collection::vec((0..3u8, 0..600_000i64, -1_000..1_000i32), 1..60),
        seed in any::<u64>(),
    ) {
        let results = |readings: &[(u8, i64, i32)]| {
            let set = [("field", Value::Text("v".to_owned())), ("every_ms", Value::Integer(60_000))];
            let mut module = Native::<Downsample>::new(&set).unwrap();
            let inputs: Vec<_> = readings
                .iter()
                .map(|(key, at, v)| Input {
                    key: Some(vec![*key]),
                    timestamp: *at,
                    // Tenths, of which no sum is exact.
                    ..Input::value(format!("{{\"v\":{}}}", f64::from(*v) / 10.0))
                })
                .collect();
            for input in &inputs {
                assert!(module.process(std::slice::from_ref(input)).unwrap().reasons.is_empty());
            }
            let outcome = module.advance(Clock::Event, 1_000_000).unwrap();
            let emits = outcome.iter().flat_map(|outcome| &outcome.emits);
            let values = emits.filter_map(|run| run.values.as_ref());
            let mut told: Vec<String> = values.map(|v| String::from_utf8(v.data.clone()).unwrap()).collect();
            told.sort();
            told
        };
        let mut shuffled = readings.clone();
        let mut state = seed | 1;
        for n in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            shuffled.swap(n, (state >> 33) as usize % (n + 1));
        }
        prop_assert_eq!(results(&readings), results(&shuffled));
    }
}
