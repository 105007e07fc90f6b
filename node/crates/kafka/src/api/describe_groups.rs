//! DescribeGroups (15). Memory: the rows of the requested groups.

use super::operations::{OF_GROUP, if_asked};
use super::{Api, first_of_each};
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use bytes::Bytes;
use std::ops::RangeInclusive;

pub(crate) struct Served;

messages! {
    DescribeGroupsRequest {
        groups: Vec<String> [0..],
        include_authorized_operations: bool [3..],
    }
    DescribeGroupsResponse {
        throttle_time_ms: i32 [1..],
        groups: Vec<DescribedGroup> [0..],
    }
    DescribedGroup {
        error: Code [0..],
        error_message: Option<String> [6..],
        group_id: String [0..],
        group_state: String [0..],
        protocol_type: String [0..],
        protocol_data: String [0..],
        members: Vec<DescribedMember> [0..],
        authorized_operations: i32 [3..] = i32::MIN,
    }
    DescribedMember {
        member_id: String [0..],
        group_instance_id: Option<String> [4..],
        client_id: String [0..],
        client_host: String [0..],
        metadata: Bytes [0..],
        assignment: Bytes [0..],
    }
}

impl Api for Served {
    const KEY: i16 = 15;
    const VERSIONS: RangeInclusive<i16> = 0..=6;
    const FLEXIBLE: i16 = 5;
    type Request = DescribeGroupsRequest;
    type Response = DescribeGroupsResponse;

    async fn handle(session: &Session, version: i16, request: Self::Request) -> Self::Response {
        let describe = |name: &String| {
            let group = match session.node.broker.describe_group(&session.who, name) {
                Ok(group) => group,
                Err(e) => {
                    return DescribedGroup {
                        error: Code::from(&e),
                        group_id: name.clone(),
                        ..DescribedGroup::default()
                    };
                }
            };
            // Since version 6 a missing group is an error (KIP-1043); earlier versions report a dead group.
            if version >= 6 && group.state == "Dead" {
                return DescribedGroup {
                    error: Code::GroupIdNotFound,
                    error_message: Some(format!("there is no group `{name}`")),
                    group_id: group.name,
                    group_state: group.state.to_owned(),
                    ..DescribedGroup::default()
                };
            }
            let members = group.members.into_iter().map(|m| DescribedMember {
                member_id: m.id,
                group_instance_id: m.instance,
                client_id: m.client,
                client_host: m.host,
                metadata: m.metadata,
                assignment: m.assignment,
            });
            DescribedGroup {
                error: Code::None,
                group_id: group.name,
                group_state: group.state.to_owned(),
                protocol_type: group.protocol_type,
                protocol_data: group.protocol,
                members: members.collect(),
                authorized_operations: if_asked(request.include_authorized_operations, OF_GROUP),
                ..DescribedGroup::default()
            }
        };
        DescribeGroupsResponse {
            groups: first_of_each(request.groups, Clone::clone)
                .iter()
                .map(describe)
                .collect(),
            ..DescribeGroupsResponse::default()
        }
    }
}
