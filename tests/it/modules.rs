//! The cases of the ready-made modules, run as components: what holds natively holds in the sandbox.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_runtime::Setting;
use weir_testkit::Testkit;
use weir_types::Record;

#[test]
fn every_case_holds_in_the_sandbox_at_any_batch_size() {
    let mut cases = 0;
    for name in ["threshold", "deadband", "convert", "route", "redact"] {
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
    let tested = kit.run(&records(case), batch, 0).unwrap();
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

fn records(case: &Value) -> Vec<Record> {
    let headers = |r: &Value| {
        r["headers"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), bytes(v)))
            .collect()
    };
    let record = |r: &Value| Record {
        key: bytes(&r["key"]),
        value: bytes(&r["value"]),
        timestamp: r["timestamp"].as_i64().unwrap_or(0),
        headers: headers(r),
    };
    case["input"].as_array().unwrap().iter().map(record).collect()
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
