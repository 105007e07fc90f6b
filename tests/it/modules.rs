//! The cases of the ready-made modules, run as components: what holds natively holds in the sandbox.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_runtime::{Setting, TimerClock};
use weir_testkit::{Tested, Testkit};
use weir_types::Record;

#[test]
fn every_case_holds_in_the_sandbox_at_any_batch_size() {
    let mut cases = 0;
    for entry in std::fs::read_dir(weir_tests::root().join("modules")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = name.as_str();
        let module = weir_tests::module(name);
        let dir = weir_tests::root().join("modules").join(name).join("cases");
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let case: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            assert_eq!(run(&module, &case, 1_000), case["output"], "{}", path.display());
            assert_eq!(
                run(&module, &case, 1),
                case["output"],
                "{} one by one",
                path.display()
            );
            cases += 1;
        }
    }
    assert!(cases >= 11, "only {cases} cases were found");
}

fn run(module: &[u8], case: &Value, batch: usize) -> Value {
    let config = case["config"].as_object().unwrap();
    let settings: BTreeMap<String, Setting> = config
        .iter()
        .map(|(k, v)| (k.clone(), serde_json::from_value(v.clone()).unwrap()))
        .collect();
    let mut kit = Testkit::new(module, settings, Arc::new(())).unwrap();
    let mut tested = Tested::default();
    for step in steps(case) {
        match step {
            Step::Records(records) => kit.run_on(&records, batch, &mut tested).unwrap(),
            Step::Advance(clock, to) => kit.advance(clock, to, &mut tested).unwrap(),
        }
    }
    let mut out = Map::new();
    for (output, records) in tested.outputs {
        out.insert(output, records.iter().map(render).collect());
    }
    if !tested.dead.is_empty() {
        out.insert(
            "dead".to_owned(),
            tested.dead.into_iter().map(|(_, why)| Value::from(why)).collect(),
        );
    }
    Value::Object(out)
}

/// What a case does next.
enum Step {
    Records(Vec<Record>),
    Advance(TimerClock, i64),
}

fn steps(case: &Value) -> Vec<Step> {
    let mut steps = Vec::new();
    for item in case["input"].as_array().unwrap() {
        if let Some(advance) = item["advance"].as_object() {
            for (clock, to) in advance {
                let clock = match clock.as_str() {
                    "event" => TimerClock::Event,
                    "processing" => TimerClock::Processing,
                    other => panic!("no clock `{other}`"),
                };
                steps.push(Step::Advance(clock, to.as_i64().unwrap()));
            }
        } else if let Some(Step::Records(records)) = steps.last_mut() {
            records.push(record(item));
        } else {
            steps.push(Step::Records(vec![record(item)]));
        }
    }
    steps
}

fn record(r: &Value) -> Record {
    let headers = r["headers"].as_object().into_iter().flatten();
    Record {
        key: bytes(&r["key"]),
        value: bytes(&r["value"]),
        timestamp: r["timestamp"].as_i64().unwrap_or(0),
        headers: headers.map(|(k, v)| (k.clone(), bytes(v))).collect(),
    }
}

fn bytes(value: &Value) -> Option<Bytes> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone().into()),
        Value::Object(o) if o.contains_key("base64") => {
            Some(STANDARD.decode(o["base64"].as_str().unwrap()).unwrap().into())
        }
        other => Some(other.to_string().into()),
    }
}

fn render(record: &Record) -> Value {
    let show = |b: &Option<Bytes>| match b {
        None => Value::Null,
        Some(b) => match serde_json::from_slice::<Value>(b) {
            Ok(value) if value.is_object() || value.is_array() => value,
            _ => match std::str::from_utf8(b) {
                Ok(text) => Value::from(text),
                Err(_) => json!({ "base64": STANDARD.encode(b) }),
            },
        },
    };
    json!({ "key": show(&record.key), "value": show(&record.value) })
}
