//! DescribeClientQuotas (48): client quotas are settings of the node; no quota is set for a single client.
//! Memory: the request.

use super::Api;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;

pub(crate) struct Served;

messages! {
    DescribeClientQuotasRequest {
        components: Vec<Component> [0..],
        strict: bool [0..],
    }
    Component {
        entity_type: String [0..],
        match_type: i8 [0..],
        match_value: Option<String> [0..],
    }
    DescribeClientQuotasResponse {
        throttle_time_ms: i32 [0..],
        error: Code [0..],
        error_message: Option<String> [0..],
        entries: Option<Vec<Entry>> [0..],
    }
    Entry {
        entity: Vec<Entity> [0..],
        values: Vec<Quota> [0..],
    }
    Entity {
        entity_type: String [0..],
        entity_name: Option<String> [0..],
    }
    Quota {
        key: String [0..],
        // The bits of a double.
        value: i64 [0..],
    }
}

impl Api for Served {
    const KEY: i16 = 48;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const FLEXIBLE: i16 = 1;
    type Request = DescribeClientQuotasRequest;
    type Response = DescribeClientQuotasResponse;

    async fn handle(_: &Session, _: i16, _: Self::Request) -> Self::Response {
        DescribeClientQuotasResponse {
            entries: Some(Vec::new()),
            ..DescribeClientQuotasResponse::default()
        }
    }
}
