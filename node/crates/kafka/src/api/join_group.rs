//! JoinGroup (11): adds a member; answered when the rebalance completes. Memory: the members' metadata for
//! the leader, within the size limit of a group's row.

use super::Api;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use bytes::Bytes;
use std::ops::RangeInclusive;
use std::time::Duration;
use weir_broker::{GroupError, Join};

pub(crate) struct Served;

messages! {
    JoinGroupRequest {
        group_id: String [0..],
        session_timeout_ms: i32 [0..],
        rebalance_timeout_ms: i32 [1..] = -1,
        member_id: String [0..],
        group_instance_id: Option<String> [5..],
        protocol_type: String [0..],
        protocols: Vec<Protocol> [0..],
        reason: Option<String> [8..],
    }
    Protocol {
        name: String [0..],
        metadata: Bytes [0..],
    }
    JoinGroupResponse {
        throttle_time_ms: i32 [2..],
        error: Code [0..],
        generation_id: i32 [0..] = -1,
        protocol_type: Option<String> [7..],
        protocol_name: Option<String> [0..],
        leader: String [0..],
        skip_assignment: bool [9..],
        member_id: String [0..],
        members: Vec<Member> [0..],
    }
    Member {
        member_id: String [0..],
        group_instance_id: Option<String> [5..],
        metadata: Bytes [0..],
    }
}

impl Api for Served {
    const KEY: i16 = 11;
    const VERSIONS: RangeInclusive<i16> = 0..=9;
    const FLEXIBLE: i16 = 6;
    type Request = JoinGroupRequest;
    type Response = JoinGroupResponse;

    async fn handle(session: &Session, version: i16, request: Self::Request) -> Self::Response {
        let ms = |ms: i32| Duration::from_millis(ms.max(0) as u64);
        // Version 0 has a single timeout for both.
        let rebalance = if version == 0 {
            request.session_timeout_ms
        } else {
            request.rebalance_timeout_ms
        };
        let member_id = request.member_id.clone();
        let join = Join {
            member: request.member_id,
            instance: request.group_instance_id,
            client: session.who.client.clone(),
            host: format!("/{}", session.peer.ip()),
            session: ms(request.session_timeout_ms),
            rebalance: ms(rebalance),
            protocol_type: request.protocol_type,
            protocols: request
                .protocols
                .into_iter()
                .map(|p| (p.name, p.metadata.to_vec()))
                .collect(),
            id_first: version >= 4,
            can_skip: version >= 9,
        };
        match session
            .node
            .broker
            .join_group(&session.who, &request.group_id, join)
            .await
        {
            Ok(joined) => JoinGroupResponse {
                generation_id: joined.generation,
                protocol_type: Some(joined.protocol_type),
                protocol_name: Some(joined.protocol),
                leader: joined.leader,
                skip_assignment: joined.skip_assignment,
                member_id: joined.member,
                members: joined
                    .members
                    .into_iter()
                    .map(|m| Member {
                        member_id: m.id,
                        group_instance_id: m.instance,
                        metadata: m.metadata,
                    })
                    .collect(),
                ..JoinGroupResponse::default()
            },
            Err(e) => JoinGroupResponse {
                error: Code::from(&e),
                // Null only in versions that allow null.
                protocol_name: (version < 7).then(String::new),
                member_id: match e {
                    GroupError::MemberIdRequired(id) => id,
                    _ => member_id,
                },
                ..JoinGroupResponse::default()
            },
        }
    }
}
