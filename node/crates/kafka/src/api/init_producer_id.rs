//! InitProducerId (22): allocates an id for an idempotent producer. Memory: negligible.

use super::Api;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;

pub(crate) struct Served;

messages! {
    InitProducerIdRequest {
        transactional_id: Option<String> [0..],
        transaction_timeout_ms: i32 [0..],
        producer_id: i64 [3..] = -1,
        producer_epoch: i16 [3..] = -1,
    }
    InitProducerIdResponse {
        throttle_time_ms: i32 [0..],
        error: Code [0..],
        producer_id: i64 [0..] = -1,
        producer_epoch: i16 [0..] = -1,
    }
}

impl Api for Served {
    const KEY: i16 = 22;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const FLEXIBLE: i16 = 2;
    type Request = InitProducerIdRequest;
    type Response = InitProducerIdResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        let mut response = InitProducerIdResponse::default();
        if request.transactional_id.is_some() {
            // Clients give up at this code instead of retrying.
            response.error = Code::TransactionalIdAuthorizationFailed;
            return response;
        }
        // As in Kafka, every call without a transactional id starts a new producer.
        match session.node.broker.init_producer(&session.who).await {
            Ok(id) => (response.producer_id, response.producer_epoch) = (id, 0),
            // Clients retry at this code.
            Err(e) if e.kind() == weir_types::ErrorKind::Retry => {
                response.error = Code::CoordinatorNotAvailable;
            }
            Err(e) => response.error = Code::from(&e),
        }
        response
    }
}
