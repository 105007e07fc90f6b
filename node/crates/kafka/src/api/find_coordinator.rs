//! FindCoordinator (10): the coordinator of a group. A single node coordinates all groups. Memory: a few
//! bytes per key.

use super::Api;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;

pub(crate) struct Served;

/// Key types.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

messages! {
    FindCoordinatorRequest {
        key: String [0..=3],
        key_type: i8 [1..],
        keys: Vec<String> [4..],
    }
    FindCoordinatorResponse {
        throttle_time_ms: i32 [1..],
        error: Code [0..=3],
        error_message: Option<String> [1..=3],
        node_id: i32 [0..=3] = -1,
        host: String [0..=3],
        port: i32 [0..=3] = -1,
        coordinators: Vec<Coordinator> [4..],
    }
    Coordinator {
        key: String [4..],
        node_id: i32 [4..],
        host: String [4..],
        port: i32 [4..],
        error: Code [4..],
        error_message: Option<String> [4..],
    }
}

impl Api for Served {
    const KEY: i16 = 10;
    const VERSIONS: RangeInclusive<i16> = 0..=6;
    const FLEXIBLE: i16 = 3;
    type Request = FindCoordinatorRequest;
    type Response = FindCoordinatorResponse;

    async fn handle(session: &Session, version: i16, request: Self::Request) -> Self::Response {
        let leader = session.controller_id();
        let address = session.brokers().into_iter().find(|b| b.id == leader);
        let find = |key: String| {
            let (error, words) = match request.key_type {
                GROUP if key.is_empty() => (Code::InvalidGroupId, Some("the group's name is empty")),
                GROUP if address.is_none() => {
                    (Code::CoordinatorNotAvailable, Some("nobody leads at the moment"))
                }
                GROUP => (Code::None, None),
                // Clients give up at this code instead of retrying.
                TRANSACTION => (
                    Code::TransactionalIdAuthorizationFailed,
                    Some("transactions are not supported"),
                ),
                SHARE => (Code::InvalidRequest, Some("share groups are not supported")),
                _ => (Code::InvalidRequest, Some("unknown coordinator type")),
            };
            let found = address.as_ref().filter(|_| error == Code::None);
            Coordinator {
                key,
                node_id: found.map_or(-1, |a| a.id),
                host: found.map_or_else(String::new, |a| a.host.clone()),
                port: found.map_or(-1, |a| a.port),
                error,
                error_message: words.map(str::to_owned),
            }
        };
        if version >= 4 {
            return FindCoordinatorResponse {
                coordinators: request.keys.into_iter().map(find).collect(),
                ..FindCoordinatorResponse::default()
            };
        }
        let one = find(request.key);
        FindCoordinatorResponse {
            error: one.error,
            error_message: one.error_message,
            node_id: one.node_id,
            host: one.host,
            port: one.port,
            ..FindCoordinatorResponse::default()
        }
    }
}
