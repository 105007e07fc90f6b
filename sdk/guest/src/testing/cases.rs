//! Test cases in files: input, settings and expected output. `weir-testkit` runs the same files against the
//! component, which shows that a module behaves the same natively and in the sandbox.
//!
//! ```json
//! { "config": { "limit": 50 },
//!   "input":  [ { "key": "m1", "value": { "temperature": 60 }, "timestamp": 0, "headers": { "h": "x" } } ],
//!   "output": { "main": [ { "key": "m1", "value": { "temperature": 60 } } ], "dead": [ "why" ] } }
//! ```
//!
//! Among the records of `input`, `{ "advance": { "processing": 60000 } }` advances the node's time, and
//! `event` the watermark, which otherwise follows the records' timestamps.
//!
//! A module with several topics lists their names in `"sources": ["a", "b"]`. A record names its topic with
//! `"source": "b"`; the default is the first.
//!
//! A text value stands for its bytes, `{"base64": "…"}` for any bytes, other JSON for its text. Outputs list
//! records in order; records in no output were dropped. An output document is compared as JSON, without
//! regard to blanks and the order of fields; if the case gives it as text, byte for byte.

use super::{Input, Native, Outcome, Value};
use crate::timers::Clock;
use crate::{FromValue, JsonText, Module};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};
use std::path::Path;

/// Runs all cases in the folder `cases` of the crate in `manifest_dir`, natively.
///
/// # Panics
/// At the first case whose output differs; the message shows both.
pub fn run<M: Module>(manifest_dir: &str) {
    let dir = Path::new(manifest_dir).join("cases");
    let mut count = 0;
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    for entry in entries {
        let path = entry.map(|e| e.path()).unwrap_or_default();
        let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let case: Json = serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let got = native::<M>(&case).unwrap_or_else(|e| json!({ "error": e }));
        assert_eq!(got, case["output"], "{}", path.display());
        count += 1;
    }
    assert!(count > 0, "no cases in {}", dir.display());
}

fn native<M: Module>(case: &Json) -> Result<Json, String> {
    let parameters = M::parameters();
    let mut set = Vec::new();
    for (name, value) in case["config"].as_object().into_iter().flatten() {
        let kind = parameters
            .iter()
            .map(crate::Parameter::to_wit)
            .find(|p| &p.name == name);
        let kind = kind.ok_or_else(|| format!("no parameter `{name}`"))?.kind;
        set.push((name.as_str(), setting(kind, value)?));
    }
    let sources = case["sources"].as_array();
    let mut sources: Vec<_> = sources.into_iter().flatten().filter_map(Json::as_str).collect();
    if sources.is_empty() {
        sources.push("test");
    }
    let mut module = Native::<M>::reading(&sources, &set)?;
    let (mut out, mut dead) = (Map::new(), Vec::new());
    let names = module.outputs().to_vec();
    let mut write = |outcome: &Outcome, sources: &[Input]| {
        for (output, record) in placed(outcome, sources) {
            let Some(name) = names.get(usize::from(output).wrapping_sub(1)) else {
                continue;
            };
            let of = out.entry(name.clone()).or_insert_with(|| json!([]));
            let wanted = |n: usize| &case["output"][name][n];
            if let Some(of) = of.as_array_mut() {
                of.push(render(&record, wanted(of.len())));
            }
        }
        dead.extend(outcome.reasons.iter().map(|(_, r)| Json::from(r.as_str())));
    };
    let fault = |e: super::Fault| format!("{e:?}");
    for step in steps(case, &sources) {
        match step {
            Step::Records(source, records) => {
                write(&module.process_from(source, &records).map_err(fault)?, &records);
                let latest = records.iter().map(|r| r.timestamp).max().unwrap_or(i64::MIN);
                if let Some(outcome) = module.advance(Clock::Event, latest).map_err(fault)? {
                    write(&outcome, module.fired());
                }
            }
            Step::Advance(clock, to) => {
                if let Some(outcome) = module.advance(clock, to).map_err(fault)? {
                    write(&outcome, module.fired());
                }
            }
        }
    }
    if !dead.is_empty() {
        out.insert("dead".to_owned(), Json::from(dead));
    }
    Ok(Json::from(out))
}

/// A step of a case.
enum Step {
    /// Records of one source.
    Records(u32, Vec<Input>),
    Advance(Clock, i64),
}

fn steps(case: &Json, sources: &[&str]) -> Vec<Step> {
    let mut steps = Vec::new();
    for item in case["input"].as_array().into_iter().flatten() {
        let source = item["source"].as_str();
        let source = source.and_then(|name| sources.iter().position(|s| *s == name));
        let source = source.unwrap_or(0) as u32;
        if let Some(advance) = item["advance"].as_object() {
            for (clock, to) in advance {
                let clock = match clock.as_str() {
                    "event" => Clock::Event,
                    _ => Clock::Processing,
                };
                steps.push(Step::Advance(clock, to.as_i64().unwrap_or(0)));
            }
            continue;
        }
        match steps.last_mut() {
            Some(Step::Records(of, records)) if *of == source => records.push(input(item)),
            _ => steps.push(Step::Records(source, vec![input(item)])),
        }
    }
    steps
}

/// Returns output and record of everything that an outcome sends on, in order of origin.
fn placed(outcome: &Outcome, input: &[Input]) -> Vec<(u8, Input)> {
    let mut placed: Vec<(u8, u32, Input)> = Vec::new();
    for (i, route) in outcome.routes.iter().enumerate() {
        placed.push((*route, i as u32, input[i].clone()));
    }
    for (i, output) in &outcome.copies {
        placed.push((*output, *i, input[*i as usize].clone()));
    }
    for run in &outcome.emits {
        for (n, source) in run.sources.iter().enumerate() {
            let mut record = input[*source as usize].clone();
            let item = |c: &super::wit::Column| crate::Column::new(c).get(n).map(<[u8]>::to_vec);
            if let Some(keys) = &run.keys {
                record.key = item(keys);
            }
            if let Some(values) = &run.values {
                record.value = item(values);
            }
            placed.push((run.outputs[n], *source, record));
        }
    }
    placed.sort_by_key(|(_, source, _)| *source);
    placed
        .into_iter()
        .map(|(output, _, record)| (output, record))
        .collect()
}

fn setting(kind: super::wit::Kind, value: &Json) -> Result<Value, String> {
    use super::wit::Kind;
    let wrong = || format!("{value} does not match the type of its parameter");
    Ok(match kind {
        Kind::Text => value.as_str().ok_or_else(wrong)?.to_owned().into_value(),
        Kind::Integer => value.as_i64().ok_or_else(wrong)?.into_value(),
        Kind::Number => value.as_f64().ok_or_else(wrong)?.into_value(),
        Kind::Boolean => value.as_bool().ok_or_else(wrong)?.into_value(),
        Kind::Json => JsonText(value.to_string()).into_value(),
    })
}

fn input(record: &Json) -> Input {
    let headers = record["headers"].as_object().into_iter().flatten();
    Input {
        key: bytes(&record["key"]),
        value: bytes(&record["value"]),
        timestamp: record["timestamp"].as_i64().unwrap_or(0),
        headers: headers.map(|(k, v)| (k.clone(), bytes(v))).collect(),
    }
}

fn bytes(value: &Json) -> Option<Vec<u8>> {
    match value {
        Json::Null => None,
        Json::String(text) => Some(text.clone().into_bytes()),
        Json::Object(o) if o.len() == 1 && o.contains_key("base64") => {
            STANDARD.decode(o["base64"].as_str().unwrap_or_default()).ok()
        }
        other => Some(other.to_string().into_bytes()),
    }
}

/// Renders a record in the form of a case: JSON as JSON, but as text where `wanted` is text, for a comparison
/// by bytes.
fn render(record: &Input, wanted: &Json) -> Json {
    let show = |b: &Option<Vec<u8>>, wanted: &Json| match b {
        None => Json::Null,
        Some(b) => match serde_json::from_slice::<Json>(b) {
            Ok(value) if (value.is_object() || value.is_array()) && !wanted.is_string() => value,
            _ => match std::str::from_utf8(b) {
                Ok(text) => Json::from(text),
                Err(_) => json!({ "base64": STANDARD.encode(b) }),
            },
        },
    };
    json!({ "key": show(&record.key, &wanted["key"]), "value": show(&record.value, &wanted["value"]) })
}
