//! Test cases in files, run against a component: input, settings and expected output.
//! `weir_sdk::testing::cases` runs the same files natively.

use crate::{Faults, TestError, Tested, Testkit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use weir_runtime::{LogSink, Module, Setting, TimerClock};
use weir_types::Record;

/// An error in a case file.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The file is not JSON.
    #[error("is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The case has no list `input`.
    #[error("has no list `input`")]
    Input,
    /// A parameter in `config` is null.
    #[error("parameter `{0}` in `config` is null")]
    Config(String),
    /// `sources` is not a list of topic names.
    #[error("`sources` is not a list of topic names")]
    Sources,
    /// An item of `input` is invalid.
    #[error("item {at} of `input`: {why}")]
    Item {
        /// Index of the item in `input`.
        at: usize,
        /// The reason, for people.
        why: String,
    },
}

/// A test case.
#[derive(Debug)]
pub struct Case {
    settings: BTreeMap<String, Setting>,
    sources: Vec<String>,
    steps: Vec<Step>,
    /// Expected records by output name, and reasons under `dead`; null if the case gives none.
    pub output: Value,
}

/// A step of a case.
#[derive(Debug)]
enum Step {
    /// Records of the source with this index.
    Records(u32, Vec<Record>),
    Advance(TimerClock, i64),
}

impl Case {
    /// Reads a case from a file.
    ///
    /// # Errors
    /// A [`CaseError`] if the file cannot be read or is not a case.
    pub fn read(path: &Path) -> Result<Self, CaseError> {
        Self::parse(&serde_json::from_slice(&std::fs::read(path)?)?)
    }

    /// Reads a case from its JSON.
    ///
    /// # Errors
    /// A [`CaseError`] if the JSON is not a case.
    pub fn parse(case: &Value) -> Result<Self, CaseError> {
        let mut settings = BTreeMap::new();
        for (name, value) in case["config"].as_object().into_iter().flatten() {
            let setting = serde_json::from_value(value.clone())
                .ok()
                .filter(|_| !value.is_null());
            settings.insert(
                name.clone(),
                setting.ok_or_else(|| CaseError::Config(name.clone()))?,
            );
        }
        let sources: Option<Vec<String>> = match &case["sources"] {
            Value::Null => Some(vec!["test".to_owned()]),
            names => serde_json::from_value(names.clone()).ok(),
        };
        let sources = sources
            .filter(|names| !names.is_empty())
            .ok_or(CaseError::Sources)?;
        let mut steps = Vec::new();
        for (at, item) in case["input"]
            .as_array()
            .ok_or(CaseError::Input)?
            .iter()
            .enumerate()
        {
            let wrong = |why: String| CaseError::Item { at, why };
            if let Some(advance) = item.get("advance") {
                let advance = advance
                    .as_object()
                    .ok_or_else(|| wrong("`advance` is not an object".to_owned()))?;
                for (clock, to) in advance {
                    let clock = match clock.as_str() {
                        "event" => TimerClock::Event,
                        "processing" => TimerClock::Processing,
                        other => return Err(wrong(format!("no clock `{other}`: use event or processing"))),
                    };
                    let to = to
                        .as_i64()
                        .ok_or_else(|| wrong(format!("{to} is not a time in milliseconds")))?;
                    steps.push(Step::Advance(clock, to));
                }
                continue;
            }
            let record = record(item).map_err(wrong)?;
            let source = match &item["source"] {
                Value::Null => Some(0),
                name => sources.iter().position(|s| *name == s.as_str()),
            };
            let source = source.ok_or_else(|| wrong(format!("{} is not in `sources`", item["source"])))?;
            match steps.last_mut() {
                Some(Step::Records(of, records)) if *of == source as u32 => records.push(record),
                _ => steps.push(Step::Records(source as u32, vec![record])),
            }
        }
        let output = case["output"].clone();
        Ok(Self {
            settings,
            sources,
            steps,
            output,
        })
    }

    /// Runs the case on a fresh instance of `module`, in batches of up to `batch` records. The result has the
    /// form of [`Case::output`].
    ///
    /// # Errors
    /// At the first call that fails.
    pub fn run(&self, module: &Module, batch: usize, sink: Arc<dyn LogSink>) -> Result<Ran, TestError> {
        self.run_with(Faults::None, module, batch, sink)
    }

    /// Runs the case on a fresh instance of `module`, in batches of up to `batch` records, with injected
    /// `faults`. Faults must not change the result.
    ///
    /// # Errors
    /// At the first call that fails other than by an injected fault.
    pub fn run_with(
        &self,
        faults: Faults,
        module: &Module,
        batch: usize,
        sink: Arc<dyn LogSink>,
    ) -> Result<Ran, TestError> {
        let mut kit = Testkit::reading(module, &self.sources, self.settings.clone(), sink)?;
        kit.suffer(faults);
        let mut tested = Tested::default();
        for step in &self.steps {
            match step {
                Step::Records(source, records) => kit.run_from(*source, records, batch, &mut tested)?,
                Step::Advance(clock, to) => kit.advance(*clock, *to, &mut tested)?,
            }
        }
        let mut output = Map::new();
        for (name, records) in &tested.outputs {
            let wanted = |n: usize| &self.output[name][n];
            let records = records.iter().enumerate().map(|(n, r)| render(r, wanted(n)));
            output.insert(name.clone(), records.collect());
        }
        if !tested.dead.is_empty() {
            let reasons = tested.dead.iter().map(|(_, why)| Value::from(why.as_str()));
            output.insert("dead".to_owned(), reasons.collect());
        }
        Ok(Ran {
            output: Value::Object(output),
            outputs: kit.outputs().to_vec(),
            tested,
        })
    }
}

/// The result of a case.
#[derive(Debug)]
pub struct Ran {
    /// Records by output name, in the form of [`Case::output`].
    pub output: Value,
    /// Names of the outputs that the module declared for these settings.
    pub outputs: Vec<String>,
    /// The output records.
    pub tested: Tested,
}

/// Describes the first difference between two outputs; returns `None` if they are equal.
pub fn difference(wanted: &Value, got: &Value) -> Option<String> {
    let none = Map::new();
    let (wanted, got) = (
        wanted.as_object().unwrap_or(&none),
        got.as_object().unwrap_or(&none),
    );
    let empty = Vec::new();
    for name in wanted.keys().chain(got.keys()) {
        let of = |all: &Map<String, Value>| all.get(name).and_then(Value::as_array).unwrap_or(&empty).clone();
        let (wanted, got) = (of(wanted), of(got));
        for n in 0..wanted.len().max(got.len()) {
            match (wanted.get(n), got.get(n)) {
                (Some(w), Some(g)) if w == g => {}
                (Some(w), Some(g)) => return Some(format!("{name}[{n}] is not\n    {w} but\n    {g}")),
                (Some(w), None) => return Some(format!("{name}[{n}] is missing:\n    {w}")),
                (None, Some(g)) => return Some(format!("{name}[{n}] is one too many:\n    {g}")),
                (None, None) => {}
            }
        }
    }
    None
}

fn record(r: &Value) -> Result<Record, String> {
    let known = ["key", "value", "timestamp", "headers", "source"];
    let fields = r.as_object().ok_or("the record is not an object")?;
    if let Some(other) = fields.keys().find(|k| !known.contains(&k.as_str())) {
        return Err(format!(
            "no field `{other}`: a record has key, value, timestamp, headers and source, or it is `advance`"
        ));
    }
    let headers = r["headers"].as_object().into_iter().flatten();
    let headers = headers.map(|(k, v)| Ok((k.clone(), bytes(v)?)));
    Ok(Record {
        key: bytes(&r["key"])?,
        value: bytes(&r["value"])?,
        timestamp: r["timestamp"].as_i64().unwrap_or(0),
        headers: headers.collect::<Result<_, String>>()?,
    })
}

fn bytes(value: &Value) -> Result<Option<Bytes>, String> {
    Ok(match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone().into()),
        Value::Object(o) if o.len() == 1 && o.contains_key("base64") => {
            let text = value["base64"].as_str().unwrap_or_default();
            Some(STANDARD.decode(text).map_err(|e| format!("base64: {e}"))?.into())
        }
        other => Some(other.to_string().into()),
    })
}

/// Renders a record in the form of a case: JSON as JSON, but as text where `wanted` is text, for a comparison
/// by bytes.
fn render(record: &Record, wanted: &Value) -> Value {
    let show = |b: &Option<Bytes>, wanted: &Value| match b {
        None => Value::Null,
        Some(b) => match serde_json::from_slice::<Value>(b) {
            Ok(value) if (value.is_object() || value.is_array()) && !wanted.is_string() => value,
            _ => match std::str::from_utf8(b) {
                Ok(text) => Value::from(text),
                Err(_) => json!({ "base64": STANDARD.encode(b) }),
            },
        },
    };
    json!({ "key": show(&record.key, &wanted["key"]), "value": show(&record.value, &wanted["value"]) })
}
