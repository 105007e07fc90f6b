//! ListGroups (16). Memory: a few bytes per group.

use super::Api;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;

pub(crate) struct Served;

/// Kafka's name for groups whose members assign partitions themselves; all groups here are classic.
const CLASSIC: &str = "classic";

messages! {
    ListGroupsRequest {
        states_filter: Vec<String> [4..],
        types_filter: Vec<String> [5..],
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
        group_type: String [5..],
    }
}

impl Api for Served {
    const KEY: i16 = 16;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const FLEXIBLE: i16 = 3;
    type Request = ListGroupsRequest;
    type Response = ListGroupsResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        // Clients merge the lists of all nodes; a node that coordinates no group contributes an empty list.
        if !session.node.broker.is_serving() {
            return ListGroupsResponse::default();
        }
        let is_one =
            |word: &str, of: &[String]| of.is_empty() || of.iter().any(|s| s.eq_ignore_ascii_case(word));
        let wanted =
            |state: &str| is_one(state, &request.states_filter) && is_one(CLASSIC, &request.types_filter);
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
            group_type: CLASSIC.to_owned(),
        });
        ListGroupsResponse {
            groups: listed.collect(),
            ..ListGroupsResponse::default()
        }
    }
}
