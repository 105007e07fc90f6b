//! ListTransactions (66): always an empty list. Memory: the request.

use super::Api;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;

/// States of a transaction (Kafka 4.4, `TransactionState`).
const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

pub(crate) struct Served;

messages! {
    ListTransactionsRequest {
        state_filters: Vec<String> [0..],
        producer_id_filters: Vec<i64> [0..],
        duration_filter: i64 [1..] = -1,
        transactional_id_pattern: Option<String> [2..],
    }
    ListTransactionsResponse {
        throttle_time_ms: i32 [0..],
        error: Code [0..],
        unknown_state_filters: Vec<String> [0..],
        transaction_states: Vec<TransactionState> [0..],
    }
    TransactionState {
        transactional_id: String [0..],
        producer_id: i64 [0..],
        transaction_state: String [0..],
    }
}

impl Api for Served {
    const KEY: i16 = 66;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const FLEXIBLE: i16 = 0;
    type Request = ListTransactionsRequest;
    type Response = ListTransactionsResponse;

    async fn handle(_: &Session, _: i16, request: Self::Request) -> Self::Response {
        let mut unknown = request.state_filters;
        unknown.retain(|state| !STATES.contains(&state.as_str()));
        ListTransactionsResponse {
            unknown_state_filters: unknown,
            ..ListTransactionsResponse::default()
        }
    }
}
