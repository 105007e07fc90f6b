//! LeaveGroup (13): removes members from a group: one member in old versions, several in new versions.
//! Memory: negligible.

use super::Api;
use crate::error::{Code, code};
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;
use weir_broker::GroupError;

pub(crate) struct Served;

messages! {
    LeaveGroupRequest {
        group_id: String [0..],
        member_id: String [0..=2],
        members: Vec<Leaving> [3..],
    }
    Leaving {
        member_id: String [3..],
        group_instance_id: Option<String> [3..],
        reason: Option<String> [5..],
    }
    LeaveGroupResponse {
        throttle_time_ms: i32 [1..],
        error: Code [0..],
        members: Vec<Left> [3..],
    }
    Left {
        member_id: String [3..],
        group_instance_id: Option<String> [3..],
        error: Code [3..],
    }
}

impl Api for Served {
    const KEY: i16 = 13;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const FLEXIBLE: i16 = 4;
    type Request = LeaveGroupRequest;
    type Response = LeaveGroupResponse;

    async fn handle(session: &Session, version: i16, request: Self::Request) -> Self::Response {
        let members: Vec<_> = if version < 3 {
            vec![(request.member_id, None)]
        } else {
            request
                .members
                .into_iter()
                .map(|m| (m.member_id, m.group_instance_id))
                .collect()
        };
        let mut response = LeaveGroupResponse::default();
        match session
            .node
            .broker
            .leave_group(&session.who, &request.group_id, &members)
            .await
        {
            Err(e @ GroupError::UnknownMember) if version >= 3 => {
                let left = members.into_iter().map(|(member_id, group_instance_id)| Left {
                    member_id,
                    group_instance_id,
                    error: Code::from(&e),
                });
                response.members = left.collect();
            }
            Err(e) => response.error = Code::from(&e),
            Ok(results) if version < 3 => response.error = results.first().map_or(Code::None, code),
            Ok(results) => {
                let left =
                    members
                        .into_iter()
                        .zip(&results)
                        .map(|((member_id, group_instance_id), result)| Left {
                            member_id,
                            group_instance_id,
                            error: code(result),
                        });
                response.members = left.collect();
            }
        }
        response
    }
}
