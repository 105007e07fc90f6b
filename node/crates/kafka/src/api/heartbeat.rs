//! Heartbeat (12): keeps a member in its group. Memory: negligible.

use super::Api;
use crate::error::{Code, code};
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;
use weir_broker::Caller;

pub(crate) struct Served;

messages! {
    HeartbeatRequest {
        group_id: String [0..],
        generation_id: i32 [0..],
        member_id: String [0..],
        group_instance_id: Option<String> [3..],
    }
    HeartbeatResponse {
        throttle_time_ms: i32 [1..],
        error: Code [0..],
    }
}

impl Api for Served {
    const KEY: i16 = 12;
    const VERSIONS: RangeInclusive<i16> = 0..=4;
    const FLEXIBLE: i16 = 4;
    type Request = HeartbeatRequest;
    type Response = HeartbeatResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        let caller = Caller {
            group: &request.group_id,
            member: &request.member_id,
            instance: request.group_instance_id.as_deref(),
            generation: request.generation_id,
        };
        HeartbeatResponse {
            error: code(&session.node.broker.heartbeat(&session.who, caller)),
            ..HeartbeatResponse::default()
        }
    }
}
