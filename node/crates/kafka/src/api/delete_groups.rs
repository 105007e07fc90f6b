//! DeleteGroups (42). Memory: negligible.

use super::Api;
use crate::error::{Code, code};
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;

pub(crate) struct Served;

messages! {
    DeleteGroupsRequest {
        groups: Vec<String> [0..],
    }
    DeleteGroupsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<DeletedGroup> [0..],
    }
    DeletedGroup {
        group_id: String [0..],
        error: Code [0..],
        error_message: Option<String> [3..],
    }
}

impl Api for Served {
    const KEY: i16 = 42;
    const VERSIONS: RangeInclusive<i16> = 0..=3;
    const FLEXIBLE: i16 = 2;
    type Request = DeleteGroupsRequest;
    type Response = DeleteGroupsResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        let mut response = DeleteGroupsResponse::default();
        for group_id in request.groups {
            let deleted = session.node.broker.delete_group(&session.who, &group_id).await;
            response.results.push(DeletedGroup {
                error: code(&deleted),
                error_message: deleted.err().map(|e| e.to_string()),
                group_id,
            });
        }
        response
    }
}
