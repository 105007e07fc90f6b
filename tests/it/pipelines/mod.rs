//! Pipelines: exactly once, state and time, revisions, and modules that misbehave.

mod canary;
mod error_policy;
mod event_time;
mod exactly_once;
mod migration;
mod ready_made;
mod replay;
mod revisions;
mod sandbox;
mod shadow;
mod state;
mod timers;

use serde_json::Value;
use weir_client::{Client, Codec};
use weir_tests::{for_ever, records};
use weir_types::Batch;

fn batch(values: impl IntoIterator<Item = String>) -> Batch {
    records::batch(Codec::None, values.into_iter().map(String::into_bytes))
}

/// Creates a topic with an in-line pipeline whose module misbehaves as `mode` says.
async fn hostile_topic(client: &Client, topic: &str, mode: &str, policy: &str) {
    client.create_topic(topic, 1, &for_ever()).await.unwrap();
    let pipeline = format!(
        "name = \"{topic}\"\nsource = \"{topic}\"\non_error = {{ policy = \"{policy}\" }}\nlimits = {{ deadline_ms = 20 }}\n\
         [[stages]]\nmodule = \"hostile\"\ngrants = [\"state\", \"timers\"]\nconfig = {{ mode = \"{mode}\" }}\n"
    );
    client.apply_pipeline(&pipeline).await.unwrap();
}

/// Returns the status of a pipeline.
async fn pipeline_status(client: &Client, name: &str) -> Value {
    let all: Value = serde_json::to_value(client.pipelines().await.unwrap()).unwrap();
    let found = all.as_array().unwrap().iter().find(|p| p["name"] == name);
    found.unwrap().clone()
}
