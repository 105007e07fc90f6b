//! CreateAcls (30): answered as by Kafka without an authorizer. Memory: the request.

use super::Api;
use super::describe_acls::NO_AUTHORIZER;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;

pub(crate) struct Served;

messages! {
    CreateAclsRequest {
        creations: Vec<Creation> [0..],
    }
    Creation {
        resource_type: i8 [0..],
        resource_name: String [0..],
        resource_pattern_type: i8 [1..],
        principal: String [0..],
        host: String [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }
    CreateAclsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<Outcome> [0..],
    }
    Outcome {
        error: Code [0..],
        error_message: Option<String> [0..],
    }
}

impl Api for Served {
    const KEY: i16 = 30;
    const VERSIONS: RangeInclusive<i16> = 1..=3;
    const FLEXIBLE: i16 = 2;
    type Request = CreateAclsRequest;
    type Response = CreateAclsResponse;

    async fn handle(_: &Session, _: i16, request: Self::Request) -> Self::Response {
        let refused = |_| Outcome {
            error: Code::SecurityDisabled,
            error_message: Some(NO_AUTHORIZER.to_owned()),
        };
        CreateAclsResponse {
            results: request.creations.iter().map(refused).collect(),
            ..CreateAclsResponse::default()
        }
    }
}
