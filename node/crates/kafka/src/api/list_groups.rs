//! ListGroups (16). Memory: some bytes a group.

use super::Api;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;

pub(crate) struct Served;

messages! {
    ListGroupsRequest {
        states_filter: Vec<String> [4..],
    }
    ListGroupsResponse {
        throttle_time_ms: i32 [1..],
        error: Code [0..],
        groups: Vec<ListedGroup> [0..],
    }
    ListedGroup {
        group_id: String [0..],
        protocol_type: String [0..],
        group_state: String [4..],
    }
}

impl Api for Served {
    const KEY: i16 = 16;
    const VERSIONS: RangeInclusive<i16> = 0..=4;
    const FLEXIBLE: i16 = 3;
    type Request = ListGroupsRequest;
    type Response = ListGroupsResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        if !session.node.broker.is_serving() {
            return ListGroupsResponse {
                error: Code::NotCoordinator,
                ..ListGroupsResponse::default()
            };
        }
        let wanted = |state: &str| {
            request.states_filter.is_empty() || request.states_filter.iter().any(|s| s == state)
        };
        let groups = session
            .node
            .broker
            .list_groups(&session.who)
            .into_iter()
            .filter(|g| wanted(g.state));
        let listed = groups.map(|g| ListedGroup {
            group_id: g.name,
            protocol_type: g.protocol_type,
            group_state: g.state.to_owned(),
        });
        ListGroupsResponse {
            groups: listed.collect(),
            ..ListGroupsResponse::default()
        }
    }
}
