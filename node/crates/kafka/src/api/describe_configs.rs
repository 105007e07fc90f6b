//! DescribeConfigs (32). Memory: a few hundred bytes per setting.

use super::{Api, consumer_offsets, first_of_each};
use crate::configs::{self, Config, Source};
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::borrow::Cow;
use std::ops::RangeInclusive;

pub(crate) struct Served;

/// Bytes of memory for the settings of a topic, both while they are collected and while they are sent: about
/// forty settings with their documentation.
const WORDY_BYTES: usize = 20 << 10;
const TERSE_BYTES: usize = 10 << 10;

messages! {
    DescribeConfigsRequest {
        resources: Vec<Resource> [0..],
        include_synonyms: bool [1..],
        include_documentation: bool [3..],
    }
    Resource {
        resource_type: i8 [0..],
        resource_name: String [0..],
        configuration_keys: Option<Vec<String>> [0..],
    }
    DescribeConfigsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<Described> [0..],
    }
    Described {
        error: Code [0..],
        error_message: Option<String> [0..],
        resource_type: i8 [0..],
        resource_name: String [0..],
        configs: Vec<DescribedConfig> [0..],
    }
    DescribedConfig {
        name: Cow<'static, str> [0..],
        value: Option<String> [0..],
        read_only: bool [0..],
        is_default: bool [0..=0],
        config_source: i8 [1..] = -1,
        is_sensitive: bool [0..],
        synonyms: Vec<Synonym> [1..],
        config_type: i8 [3..],
        documentation: Option<Cow<'static, str>> [3..],
    }
    Synonym {
        name: Cow<'static, str> [1..],
        value: Option<String> [1..],
        source: i8 [1..],
    }
}

impl Api for Served {
    const KEY: i16 = 32;
    const VERSIONS: RangeInclusive<i16> = 0..=4;
    const FLEXIBLE: i16 = 4;
    type Request = DescribeConfigsRequest;
    type Response = DescribeConfigsResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        let node = &session.node;
        let mut response = DescribeConfigsResponse::default();
        let each = match request.include_documentation || request.include_synonyms {
            true => WORDY_BYTES,
            false => TERSE_BYTES,
        };
        if !session.reserve_large(request.resources.len() * each).await {
            let refused = |resource: Resource| Described {
                error: Code::RequestTimedOut,
                error_message: Some(
                    "other answers take the room for this one: ask again, or for fewer".to_owned(),
                ),
                resource_type: resource.resource_type,
                resource_name: resource.resource_name,
                ..Described::default()
            };
            response.results = request.resources.into_iter().map(refused).collect();
            return response;
        }
        for resource in first_of_each(request.resources, |r| (r.resource_type, r.resource_name.clone())) {
            let found = match resource.resource_type {
                configs::TOPIC => match node.broker.topic(&resource.resource_name) {
                    Some(topic) => Ok(configs::of_topic(&topic.config)),
                    None if consumer_offsets::is(session, &resource.resource_name) => {
                        Ok(configs::of_topic(&consumer_offsets::config()))
                    }
                    None => Err((Code::UnknownTopicOrPartition, "no such topic")),
                },
                // An empty name asks for the cluster-wide defaults: there are none.
                configs::BROKER if resource.resource_name.is_empty() => Ok(Vec::new()),
                configs::BROKER if resource.resource_name == session.node_id().to_string() => {
                    Ok(configs::of_broker(session))
                }
                configs::BROKER => Err((
                    Code::InvalidRequest,
                    "a node tells its own settings: ask that one",
                )),
                _ => Err((Code::InvalidRequest, "topics and brokers have settings here")),
            };
            let mut described = Described {
                resource_type: resource.resource_type,
                resource_name: resource.resource_name,
                ..Described::default()
            };
            match found {
                Err((code, words)) => {
                    (described.error, described.error_message) = (code, Some(words.to_owned()))
                }
                Ok(all) => {
                    let keys = resource.configuration_keys;
                    let asked =
                        |c: &Config| keys.as_ref().is_none_or(|keys| keys.iter().any(|k| k == c.name));
                    let asked = all.into_iter().filter(asked);
                    let (synonyms, about) = (request.include_synonyms, request.include_documentation);
                    described.configs = asked.map(|c| describe(c, synonyms, about)).collect();
                }
            }
            response.results.push(described);
            // A request with many topics takes long: let other tasks run meanwhile.
            tokio::task::yield_now().await;
        }
        response
    }
}

fn describe(config: Config, synonyms: bool, about: bool) -> DescribedConfig {
    let synonym = Synonym {
        name: config.name.into(),
        value: Some(config.value.clone()),
        source: config.source as i8,
    };
    DescribedConfig {
        name: config.name.into(),
        value: Some(config.value),
        read_only: config.read_only,
        is_default: config.source == Source::Default,
        config_source: config.source as i8,
        is_sensitive: false,
        synonyms: if synonyms { vec![synonym] } else { Vec::new() },
        config_type: config.kind as i8,
        documentation: about.then(|| config.about.into()),
    }
}
