//! DescribeAcls (29): answered as by Kafka without an authorizer. Memory: the request.

use super::Api;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;

/// Error message for requests about access control lists.
pub(super) const NO_AUTHORIZER: &str =
    "the listener has no authentication, so there are no access control lists";

pub(crate) struct Served;

messages! {
    DescribeAclsRequest {
        resource_type_filter: i8 [0..],
        resource_name_filter: Option<String> [0..],
        pattern_type_filter: i8 [1..],
        principal_filter: Option<String> [0..],
        host_filter: Option<String> [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }
    DescribeAclsResponse {
        throttle_time_ms: i32 [0..],
        error: Code [0..],
        error_message: Option<String> [0..],
        resources: Vec<Resource> [0..],
    }
    Resource {
        resource_type: i8 [0..],
        resource_name: String [0..],
        pattern_type: i8 [1..],
        acls: Vec<Acl> [0..],
    }
    Acl {
        principal: String [0..],
        host: String [0..],
        operation: i8 [0..],
        permission_type: i8 [0..],
    }
}

impl Api for Served {
    const KEY: i16 = 29;
    const VERSIONS: RangeInclusive<i16> = 1..=3;
    const FLEXIBLE: i16 = 2;
    type Request = DescribeAclsRequest;
    type Response = DescribeAclsResponse;

    async fn handle(_: &Session, _: i16, _: Self::Request) -> Self::Response {
        DescribeAclsResponse {
            error: Code::SecurityDisabled,
            error_message: Some(NO_AUTHORIZER.to_owned()),
            ..DescribeAclsResponse::default()
        }
    }
}
