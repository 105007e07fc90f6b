//! ListPartitionReassignments (46): partitions under reassignment. Memory: a few bytes per partition.

use super::Api;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;

pub(crate) struct Served;

messages! {
    ListPartitionReassignmentsRequest {
        timeout_ms: i32 [0..],
        topics: Option<Vec<ListedTopic>> [0..],
    }
    ListedTopic {
        name: String [0..],
        partition_indexes: Vec<i32> [0..],
    }
    ListPartitionReassignmentsResponse {
        throttle_time_ms: i32 [0..],
        error: Code [0..],
        error_message: Option<String> [0..],
        topics: Vec<OngoingTopic> [0..],
    }
    OngoingTopic {
        name: String [0..],
        partitions: Vec<OngoingPartition> [0..],
    }
    OngoingPartition {
        partition_index: i32 [0..],
        replicas: Vec<i32> [0..],
        adding_replicas: Vec<i32> [0..],
        removing_replicas: Vec<i32> [0..],
    }
}

impl Api for Served {
    const KEY: i16 = 46;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const FLEXIBLE: i16 = 0;
    type Request = ListPartitionReassignmentsRequest;
    type Response = ListPartitionReassignmentsResponse;

    async fn handle(_: &Session, _: i16, _: Self::Request) -> Self::Response {
        // The site moves whole partitions between replica groups: no list of replicas is ever in between two
        // states.
        ListPartitionReassignmentsResponse::default()
    }
}
