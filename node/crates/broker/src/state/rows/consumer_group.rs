//! Consumer groups.

use crate::state::rows::Row;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_log::{FormatError, StateKind};

/// The stored state of a group, from which a restarted or another node continues.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupRow {
    pub(crate) generation: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) leader: String,
    pub(crate) members: Vec<MemberRow>,
    /// Time when the last member left, in milliseconds since 1970.
    pub(crate) empty_since_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberRow {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client: String,
    pub(crate) host: String,
    pub(crate) session_ms: u32,
    pub(crate) rebalance_ms: u32,
    pub(crate) protocols: Vec<(String, Vec<u8>)>,
    pub(crate) assignment: Vec<u8>,
}

impl Row for GroupRow {
    const KIND: StateKind = StateKind::Group;
    type Key = str;

    fn key_bytes(name: &str) -> Vec<u8> {
        name.as_bytes().to_vec()
    }

    fn parse_key(bytes: &[u8]) -> Option<String> {
        String::from_utf8(bytes.to_vec()).ok()
    }

    fn encode(&self) -> Bytes {
        weir_log::encode(self)
    }

    fn decode(value: &[u8]) -> Result<Self, FormatError> {
        weir_log::decode("a consumer group", value)
    }
}
