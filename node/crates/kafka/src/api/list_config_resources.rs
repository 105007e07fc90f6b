//! ListConfigResources (74): the resources with settings: topics and nodes. Memory: the names of all topics.

use super::{Api, consumer_offsets};
use crate::configs;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;

pub(crate) struct Served;

messages! {
    ListConfigResourcesRequest {
        resource_types: Vec<i8> [1..],
    }
    ListConfigResourcesResponse {
        throttle_time_ms: i32 [0..],
        error: Code [0..],
        config_resources: Vec<ConfigResource> [0..],
    }
    ConfigResource {
        resource_name: String [0..],
        resource_type: i8 [1..],
    }
}

impl Api for Served {
    const KEY: i16 = 74;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const FLEXIBLE: i16 = 0;
    type Request = ListConfigResourcesRequest;
    type Response = ListConfigResourcesResponse;

    async fn handle(session: &Session, version: i16, request: Self::Request) -> Self::Response {
        let mut response = ListConfigResourcesResponse::default();
        if version == 0 {
            // Asks for subscriptions to client metrics: there are none.
            return response;
        }
        let is_asked = |kind: i8| request.resource_types.is_empty() || request.resource_types.contains(&kind);
        let resource = |resource_type: i8| {
            move |resource_name: String| ConfigResource {
                resource_name,
                resource_type,
            }
        };
        if is_asked(configs::TOPIC) {
            let topics = session.node.broker.topics();
            let own = consumer_offsets::is_there(session).then(|| consumer_offsets::NAME.to_owned());
            let names = topics.iter().map(|topic| topic.name.to_string());
            response
                .config_resources
                .extend(names.chain(own).map(resource(configs::TOPIC)));
        }
        if is_asked(configs::BROKER) {
            let ids = session.brokers().into_iter().map(|b| b.id.to_string());
            response
                .config_resources
                .extend(ids.map(resource(configs::BROKER)));
        }
        response
    }
}
