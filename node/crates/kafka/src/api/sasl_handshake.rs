//! SaslHandshake (17): answered as by Kafka on a port without authentication. Memory: the request.

use super::Api;
use crate::error::Code;
use crate::node::Session;
use crate::wire::messages;
use std::ops::RangeInclusive;

/// No version of this request is flexible.
const NEVER_FLEXIBLE: i16 = i16::MAX;

pub(crate) struct Served;

messages! {
    SaslHandshakeRequest {
        mechanism: String [0..],
    }
    SaslHandshakeResponse {
        error: Code [0..],
        mechanisms: Vec<String> [0..],
    }
}

impl Api for Served {
    const KEY: i16 = 17;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const FLEXIBLE: i16 = NEVER_FLEXIBLE;
    type Request = SaslHandshakeRequest;
    type Response = SaslHandshakeResponse;

    async fn handle(_: &Session, _: i16, _: Self::Request) -> Self::Response {
        SaslHandshakeResponse {
            error: Code::IllegalSaslState,
            ..SaslHandshakeResponse::default()
        }
    }
}
