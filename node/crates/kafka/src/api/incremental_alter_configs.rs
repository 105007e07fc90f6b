//! IncrementalAlterConfigs (44): some settings of a topic. Memory: the request.

use super::Api;
use super::alter_configs::{AlterConfigsResponse, Altered, alter, outcome};
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;

pub(crate) struct Served;

/// What is done with a setting. Kafka's other two, append and subtract, are for lists that we do not have.
const SET: i8 = 0;
const DELETE: i8 = 1;

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
            let settings: Result<Vec<_>, _> = resource.configs.iter().map(change).collect();
            let result = match settings {
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

fn change(change: &Change) -> Result<(String, String), (Code, String)> {
    match (change.operation, &change.value) {
        (SET, Some(value)) => Ok((change.name.clone(), value.clone())),
        (DELETE, _) => Ok((change.name.clone(), String::new())),
        (SET, None) => Err((Code::InvalidConfig, format!("no value for `{}`", change.name))),
        _ => {
            let words = format!("`{}` is no list: it is set or deleted", change.name);
            Err((Code::InvalidConfig, words))
        }
    }
}
