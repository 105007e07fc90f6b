//! DeleteAcls (31): answered as by Kafka without an authorizer. Memory: the request.

use super::Api;
use super::describe_acls::NO_AUTHORIZER;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;

pub(crate) struct Served;

messages! {
    DeleteAclsRequest {
        filters: Vec<Filter> [0..],
    }
    Filter {
        resource_type_filter: i8 [0..],
        resource_name_filter: Option<String> [0..],
        pattern_type_filter: i8 [1..],
        principal_filter: Option<String> [0..],
        host_filter: Option<String> [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }
    DeleteAclsResponse {
        throttle_time_ms: i32 [0..],
        filter_results: Vec<FilterResult> [0..],
    }
    FilterResult {
        error: Code [0..],
        error_message: Option<String> [0..],
        matching_acls: Vec<Matching> [0..],
    }
    Matching {
        error: Code [0..],
        error_message: Option<String> [0..],
        resource_type: i8 [0..],
        resource_name: String [0..],
        pattern_type: i8 [1..],
        principal: String [0..],
        host: String [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }
}

impl Api for Served {
    const KEY: i16 = 31;
    const VERSIONS: RangeInclusive<i16> = 1..=3;
    const FLEXIBLE: i16 = 2;
    type Request = DeleteAclsRequest;
    type Response = DeleteAclsResponse;

    async fn handle(_: &Session, _: i16, request: Self::Request) -> Self::Response {
        let refused = |_| FilterResult {
            error: Code::SecurityDisabled,
            error_message: Some(NO_AUTHORIZER.to_owned()),
            ..FilterResult::default()
        };
        DeleteAclsResponse {
            filter_results: request.filters.iter().map(refused).collect(),
            ..DeleteAclsResponse::default()
        }
    }
}
