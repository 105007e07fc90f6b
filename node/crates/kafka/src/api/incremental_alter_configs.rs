//! IncrementalAlterConfigs (44): changes single settings of a topic. Memory: the request.

use super::Api;
use super::alter_configs::{AlterConfigsResponse, Altered, alter, outcome};
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;
use weir_broker::{SettingKind, TopicConfig};

pub(crate) struct Served;

/// Operations on a setting; the last two are for lists.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

messages! {
    IncrementalAlterConfigsRequest {
        resources: Vec<Resource> [0..],
        validate_only: bool [0..],
    }
    Resource {
        resource_type: i8 [0..],
        resource_name: String [0..],
        configs: Vec<Change> [0..],
    }
    Change {
        name: String [0..],
        operation: i8 [0..],
        value: Option<String> [0..],
    }
}

impl Api for Served {
    const KEY: i16 = 44;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const FLEXIBLE: i16 = 1;
    type Request = IncrementalAlterConfigsRequest;
    type Response = AlterConfigsResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        let mut response = AlterConfigsResponse::default();
        for resource in request.resources {
            let result = match changed(session, &resource.resource_name, &resource.configs) {
                Ok(settings) => {
                    let (kind, name) = (resource.resource_type, &resource.resource_name);
                    alter(session, kind, name, &settings, request.validate_only).await
                }
                Err(e) => Err(e),
            };
            let (error, error_message) = outcome(result);
            response.responses.push(Altered {
                error,
                error_message,
                resource_type: resource.resource_type,
                resource_name: resource.resource_name,
            });
        }
        response
    }
}

/// Returns the settings of a topic after `changes`.
fn changed(
    session: &Session,
    topic: &str,
    changes: &[Change],
) -> Result<Vec<(String, String)>, (Code, String)> {
    let topic = session.node.broker.topic(topic);
    let mut values = topic.map(|topic| topic.config.all_entries()).unwrap_or_default();
    let all = || TopicConfig::SETTINGS.into_iter().chain(TopicConfig::kept());
    let mut settings = Vec::with_capacity(changes.len());
    for change in changes {
        let invalid = |words: String| Err((Code::InvalidConfig, words));
        let known = all().find(|setting| setting.name == change.name);
        let value = match (change.operation, &change.value, known) {
            (SET, Some(value), _) => value.clone(),
            // Deleting a setting that is not set changes nothing.
            (DELETE, _, None) => continue,
            (DELETE, _, Some(_)) => String::new(),
            (APPEND | SUBTRACT, Some(items), Some(setting)) if setting.kind == SettingKind::List => {
                let now = values.get(setting.name).map_or("", String::as_str);
                list(now, items, change.operation == APPEND)
            }
            (SET | APPEND | SUBTRACT, None, _) => return invalid(format!("no value for `{}`", change.name)),
            (APPEND | SUBTRACT, ..) => {
                return invalid(format!("`{}` is no list: it is set or deleted", change.name));
            }
            (other, ..) => return invalid(format!("{other} is no way to change a setting")),
        };
        values.insert(change.name.clone(), value.clone());
        settings.push((change.name.clone(), value));
    }
    Ok(settings)
}

/// Returns the list `now` with `items` appended or removed.
fn list(now: &str, items: &str, appends: bool) -> String {
    let split = |text: &str| -> Vec<String> {
        let items = text.split(',').map(str::trim);
        items.filter(|item| !item.is_empty()).map(str::to_owned).collect()
    };
    let (mut all, items) = (split(now), split(items));
    all.retain(|item| !items.contains(item));
    if appends {
        all.extend(items);
    }
    all.join(",")
}
