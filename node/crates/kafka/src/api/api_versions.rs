//! ApiVersions (18): the requests and versions served here. Memory: a kilobyte.

use super::{Api, Head, encode};
use crate::error::Code;
use crate::node::Session;
use crate::wire::{Frame, messages};
use std::ops::RangeInclusive;

pub(crate) const KEY: i16 = 18;
const FLEXIBLE: i16 = 3;

pub(crate) struct Served;

messages! {
    ApiVersionsRequest {
        client_software_name: String [3..],
        client_software_version: String [3..],
    }
    ApiVersionsResponse {
        error: Code [0..],
        api_keys: Vec<ApiVersion> [0..],
        throttle_time_ms: i32 [1..],
    }
    ApiVersion {
        key: i16 [0..],
        min: i16 [0..],
        max: i16 [0..],
    }
}

impl Api for Served {
    const KEY: i16 = KEY;
    const VERSIONS: RangeInclusive<i16> = 0..=4;
    const FLEXIBLE: i16 = FLEXIBLE;
    type Request = ApiVersionsRequest;
    type Response = ApiVersionsResponse;

    async fn handle(session: &Session, _: i16, request: Self::Request) -> Self::Response {
        tracing::debug!(
            peer = %session.peer,
            software = request.client_software_name,
            version = request.client_software_version,
            "Kafka client"
        );
        session.note_software(&request.client_software_name, &request.client_software_version);
        response(Code::None)
    }
}

fn response(error: Code) -> ApiVersionsResponse {
    let api = |(key, range): (i16, RangeInclusive<i16>)| ApiVersion {
        key,
        min: *range.start(),
        max: *range.end(),
    };
    ApiVersionsResponse {
        error,
        api_keys: super::versions().into_iter().map(api).collect(),
        throttle_time_ms: 0,
    }
}

/// Builds the answer to an unknown version, in the oldest form: the client can read it and retry with a known
/// version (KIP-511).
pub(crate) fn unsupported(head: Head) -> Frame {
    let oldest = Head { version: 0, ..head };
    encode(&response(Code::UnsupportedVersion), oldest, FLEXIBLE, KEY)
}
