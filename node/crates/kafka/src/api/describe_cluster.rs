//! DescribeCluster (60). Memory: negligible.

use super::Api;
use super::operations::{OF_CLUSTER, if_asked};
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;

pub(crate) struct Served;

messages! {
    DescribeClusterRequest {
        include_cluster_authorized_operations: bool [0..],
        endpoint_type: i8 [1..] = 1,
        include_fenced_brokers: bool [2..],
    }
    DescribeClusterResponse {
        throttle_time_ms: i32 [0..],
        error: Code [0..],
        error_message: Option<String> [0..],
        endpoint_type: i8 [1..] = 1,
        cluster_id: String [0..],
        controller_id: i32 [0..],
        brokers: Vec<Broker> [0..],
        cluster_authorized_operations: i32 [0..] = i32::MIN,
    }
    Broker {
        broker_id: i32 [0..],
        host: String [0..],
        port: i32 [0..],
        rack: Option<String> [0..],
        is_fenced: bool [2..],
    }
}

impl Api for Served {
    const KEY: i16 = 60;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const FLEXIBLE: i16 = 0;
    type Request = DescribeClusterRequest;
    type Response = DescribeClusterResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        let brokers = session.brokers().into_iter().map(|b| Broker {
            broker_id: b.id,
            host: b.host,
            port: b.port,
            rack: b.rack,
            is_fenced: false,
        });
        DescribeClusterResponse {
            endpoint_type: request.endpoint_type,
            cluster_id: session.node.settings.cluster_id.clone(),
            controller_id: session.controller_id(),
            brokers: brokers.collect(),
            cluster_authorized_operations: if_asked(
                request.include_cluster_authorized_operations,
                OF_CLUSTER,
            ),
            ..DescribeClusterResponse::default()
        }
    }
}
