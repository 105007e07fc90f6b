//! AlterConfigs (33): replaces all settings of a topic; settings not named return to their defaults. Memory:
//! the request.

use super::Api;
use crate::configs;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;
use weir_broker::{Setting, TopicConfig};
use weir_types::GroupId;

pub(crate) struct Served;

messages! {
    AlterConfigsRequest {
        resources: Vec<Resource> [0..],
        validate_only: bool [0..],
    }
    Resource {
        resource_type: i8 [0..],
        resource_name: String [0..],
        configs: Vec<SetConfig> [0..],
    }
    SetConfig {
        name: String [0..],
        value: Option<String> [0..],
    }
    AlterConfigsResponse {
        throttle_time_ms: i32 [0..],
        responses: Vec<Altered> [0..],
    }
    Altered {
        error: Code [0..],
        error_message: Option<String> [0..],
        resource_type: i8 [0..],
        resource_name: String [0..],
    }
}

impl Api for Served {
    const KEY: i16 = 33;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const FLEXIBLE: i16 = 2;
    type Request = AlterConfigsRequest;
    type Response = AlterConfigsResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        let mut response = AlterConfigsResponse::default();
        for resource in request.resources {
            let unnamed = |setting: &Setting| !resource.configs.iter().any(|c| c.name == setting.name);
            // Weir's own settings stay: clients that write back the writable settings do not name them.
            let of_kafka = TopicConfig::SETTINGS
                .into_iter()
                .filter(|setting| !setting.is_own);
            let defaults = of_kafka
                .chain(TopicConfig::kept())
                .filter(unnamed)
                .map(|setting| (setting.name.to_owned(), String::new()));
            let set = resource
                .configs
                .iter()
                .map(|c| (c.name.clone(), c.value.clone().unwrap_or_default()));
            let settings: Vec<(String, String)> = defaults.chain(set).collect();
            let result = alter(
                session,
                resource.resource_type,
                &resource.resource_name,
                &settings,
                request.validate_only,
            );
            let (error, error_message) = outcome(result.await);
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

/// Changes settings of a topic; an empty value stands for the default.
pub(super) async fn alter(
    session: &Session,
    resource_type: i8,
    name: &str,
    settings: &[(String, String)],
    validate_only: bool,
) -> Result<(), (Code, String)> {
    if resource_type != configs::TOPIC {
        let words = "only topics' settings are changed here; the node's are in its configuration file";
        return Err((Code::InvalidRequest, words.to_owned()));
    }
    let broker = &session.node.broker;
    let found = broker.topic(name);
    if found.is_none() && (validate_only || broker.is_serving()) {
        return Err((Code::UnknownTopicOrPartition, format!("no topic `{name}`")));
    }
    // Another node may already know the topic.
    let mut config = found
        .as_ref()
        .map(|topic| topic.config.clone())
        .unwrap_or_default();
    for (key, value) in settings {
        config
            .set(key, value)
            .map_err(|e| (Code::InvalidConfig, e.to_string()))?;
    }
    if validate_only {
        let group = found.and_then(|topic| topic.partition(0)).map(|id| id.group());
        let replicas = group.filter(|group| *group != GroupId::SITE);
        let replicas = replicas.map(|group| session.replicas(group).all.len() as u32);
        let copies = broker.has_copies(&config, replicas);
        return copies.map_err(|e| (Code::from(&e), e.to_string()));
    }
    let altered = broker
        .alter_topic_anywhere(&session.who, name, None, settings)
        .await;
    altered.map(drop).map_err(|e| (Code::from(&e), e.to_string()))
}

pub(super) fn outcome(result: Result<(), (Code, String)>) -> (Code, Option<String>) {
    match result {
        Ok(()) => (Code::None, None),
        Err((code, words)) => (code, Some(words)),
    }
}
