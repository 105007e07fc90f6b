//! SyncGroup (14): the leader sends the assignment, each member receives its own. Memory: the assignments,
//! within the size limit of a group's row.

use super::Api;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use bytes::Bytes;
use std::ops::RangeInclusive;
use weir_broker::Caller;

pub(crate) struct Served;

messages! {
    SyncGroupRequest {
        group_id: String [0..],
        generation_id: i32 [0..],
        member_id: String [0..],
        group_instance_id: Option<String> [3..],
        protocol_type: Option<String> [5..],
        protocol_name: Option<String> [5..],
        assignments: Vec<Assignment> [0..],
    }
    Assignment {
        member_id: String [0..],
        assignment: Bytes [0..],
    }
    SyncGroupResponse {
        throttle_time_ms: i32 [1..],
        error: Code [0..],
        protocol_type: Option<String> [5..],
        protocol_name: Option<String> [5..],
        assignment: Bytes [0..],
    }
}

impl Api for Served {
    const KEY: i16 = 14;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const FLEXIBLE: i16 = 4;
    type Request = SyncGroupRequest;
    type Response = SyncGroupResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        let caller = Caller {
            group: &request.group_id,
            member: &request.member_id,
            instance: request.group_instance_id.as_deref(),
            generation: request.generation_id,
        };
        let protocol = (request.protocol_type.as_deref(), request.protocol_name.as_deref());
        let assignments = request
            .assignments
            .into_iter()
            .map(|a| (a.member_id, a.assignment))
            .collect();
        let broker = &session.node.broker;
        match broker
            .sync_group(&session.who, caller, protocol, assignments)
            .await
        {
            Ok(synced) => SyncGroupResponse {
                protocol_type: Some(synced.protocol_type),
                protocol_name: Some(synced.protocol),
                assignment: synced.assignment,
                ..SyncGroupResponse::default()
            },
            Err(e) => SyncGroupResponse {
                error: Code::from(&e),
                ..SyncGroupResponse::default()
            },
        }
    }
}
