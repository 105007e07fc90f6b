//! Answers as the first release with this API gave them, recorded from a node: they are still read, nothing
//! of them is lost, and a field that is not known yet does no harm.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use weir_api::{
    Cluster, Error, Fetched, Group, GroupSummary, Module, NamedGap, NewTopic, Pipeline, Plan, Produced,
    Record, Revision, ScrubReport, Shadow, StatePage, Status, Topic, TopicChange,
};

/// Reads a recorded answer as `T`, plain and with unknown fields in each object, and writes the same JSON again.
fn holds<T: DeserializeOwned + Serialize>(name: &str, recorded: &str) {
    let again = |recorded: Value| serde_json::from_value::<T>(recorded).and_then(serde_json::to_value);
    let parsed = serde_json::from_str(recorded);
    let recorded: Value = parsed.unwrap_or_else(|e| panic!("{name} is not JSON: {e}"));
    let written = again(recorded.clone());
    assert_eq!(
        written.ok().as_ref(),
        Some(&recorded),
        "{name}: {:?}",
        again(recorded.clone()).err()
    );
    let mut newer = recorded.clone();
    add_unknown(&mut newer);
    assert_ne!(newer, recorded, "{name}: nothing was added");
    let written = again(newer.clone());
    assert_eq!(
        written.ok().as_ref(),
        Some(&recorded),
        "{name}, newer: {:?}",
        again(newer).err()
    );
}

/// Objects whose fields are names that users or modules give.
const MAPS: [&str; 4] = ["config", "metrics", "outputs", "routed"];

/// Adds an unknown field to each object but maps.
fn add_unknown(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(add_unknown),
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                // Of a topic, `removed` is a map from reasons.
                let is_map = MAPS.contains(&name.as_str()) || name == "removed" && field.get("age").is_none();
                let is_any = name == "before" || name == "after";
                if !is_map && !is_any {
                    add_unknown(field);
                }
            }
            fields.insert("not_known_yet".to_owned(), json!({ "any": ["thing"] }));
        }
        _ => {}
    }
}

macro_rules! recorded {
    ($($name:literal: $type:ty),+ $(,)?) => {
        $(holds::<$type>($name, include_str!(concat!("answers/", $name, ".json")));)+
    };
}

#[test]
fn recorded_answers_are_read_as_they_were_and_with_fields_that_are_not_known_yet() {
    recorded!(
        "cluster": Cluster,
        "error": Error,
        "fetched": Fetched<'static>,
        "group": Group,
        "groups": Vec<GroupSummary>,
        "history": Vec<Revision>,
        "modules": Vec<Module>,
        "pipeline": Pipeline,
        "pipelines": Vec<Pipeline>,
        "plan": Plan,
        "produced": Produced,
        "scrub": ScrubReport,
        "shadow": Shadow,
        "state": StatePage,
        "status": Status,
        "status_of_a_site": Status,
        "topic": Topic,
        "topics": Vec<Topic>,
    );
}

#[test]
fn answers_of_the_release_before_are_read_without_later_fields() {
    let mut pipeline: Value = serde_json::from_str(include_str!("answers/pipeline.json")).unwrap();
    for later in ["bad_times", "late", "redated"] {
        pipeline.as_object_mut().unwrap().remove(later).unwrap();
    }
    let pipeline: Pipeline = serde_json::from_value(pipeline).unwrap();
    assert_eq!((pipeline.bad_times, pipeline.late, pipeline.redated), (0, 0, 0));
    assert!(pipeline.canary.is_none() && pipeline.partitions.is_empty());
}

#[test]
fn rare_shapes_are_read_and_written_as_they_were() {
    holds::<NamedGap>(
        "gap of no topic",
        r#"{"topic":null,"index":null,"partition":16777217,"start":3,"end":9,"reason":"lost"}"#,
    );
    holds::<Error>(
        "error of a part",
        r#"{"error":{"kind":"unknown-outcome","message":"m","stored":[{"partition":1,"base_offset":7,"records":2}]}}"#,
    );
    holds::<Topic>(
        "topic elsewhere",
        r#"{"name":"t","config":{},"partitions":[{"partition":0,"group":2,"leader":null,"replicas":[2,3]}]}"#,
    );
    holds::<ScrubReport>(
        "repair",
        r#"{"partitions":1,"batches":0,"records":0,"bytes":0,"gaps":[],"damaged":[],"rows":[],"notes":["n"],
            "repaired":[{"topic":"t","partition":0,"id":3,"records":1,"bytes":2,"lost":[{"start":0,"end":1}]}],
            "unreadable":[]}"#,
    );
    holds::<weir_api::PipelineSummary>(
        "halted",
        r#"{"name":"p","source":["a","b"],"state":{"state":"halted","why":"because"},"records_in":1}"#,
    );
}

#[test]
fn bytes_stand_as_text_or_in_base64() {
    let record = Record {
        headers: vec![
            weir_api::Header::new("h", Some(b"\xff")),
            weir_api::Header::new("n", None),
        ],
        ..Record::new(7, -1, Some(b"k\xc3\xa4"), Some(b"\xff\x00"))
    };
    let shown = json!({
        "offset": 7, "timestamp": -1, "key": "k\u{e4}", "value_base64": "/wA=",
        "headers": [{ "name": "h", "value_base64": "/w==" }, { "name": "n", "value": null }],
    });
    assert_eq!(serde_json::to_value(&record).unwrap(), shown);
    assert_eq!(serde_json::from_value::<Record<'_>>(shown).unwrap(), record);
}

#[test]
fn a_request_with_an_unknown_field_is_refused() {
    let refused = serde_json::from_str::<NewTopic>(r#"{"nam":"t"}"#)
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("unknown field `nam`, expected one of"),
        "{refused}"
    );
    let new: NewTopic = serde_json::from_str(r#"{"name":"t"}"#).unwrap();
    assert_eq!((new.partitions, new.replication, new.config.len()), (1, None, 0));
    assert!(serde_json::from_str::<TopicChange>(r#"{"partition":2}"#).is_err());
}
