//! Rows of the site itself: name, level, node ids, join tokens, and nodes that are being drained.

use crate::state::rows::{Row, decode_fixed};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_log::{FormatError, StateKind};
use weir_replica::NodeId;

/// The name of the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SiteName(pub(crate) String);

/// The level of the site: the newest formats that all nodes can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(pub(crate) u32);

/// The last node id that was assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastNode(pub(crate) NodeId);

/// A node that is being drained, and gets no new replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaving;

/// A join token: its key, and its expiry in milliseconds since 1970. Stored under the hash of the key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TokenRow {
    pub(crate) key: [u8; 32],
    pub(crate) expires_ms: i64,
}

impl Row for SiteName {
    const KIND: StateKind = StateKind::Site;
    const PREFIX: &'static [u8] = b"id";
    type Key = ();

    fn key_bytes((): &()) -> Vec<u8> {
        Vec::new()
    }

    fn parse_key(bytes: &[u8]) -> Option<()> {
        bytes.is_empty().then_some(())
    }

    fn encode(&self) -> Bytes {
        self.0.clone().into()
    }

    fn decode(value: &[u8]) -> Result<Self, FormatError> {
        let name = String::from_utf8(value.to_vec());
        name.map(Self).map_err(|e| FormatError::Unknown {
            what: "the name of the site",
            why: e.to_string(),
        })
    }
}

impl Row for Level {
    const KIND: StateKind = StateKind::Site;
    const PREFIX: &'static [u8] = b"level";
    type Key = ();

    fn key_bytes((): &()) -> Vec<u8> {
        Vec::new()
    }

    fn parse_key(bytes: &[u8]) -> Option<()> {
        bytes.is_empty().then_some(())
    }

    fn encode(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_be_bytes())
    }

    fn decode(value: &[u8]) -> Result<Self, FormatError> {
        decode_fixed("the level of the site", value)
            .map(u32::from_be_bytes)
            .map(Self)
    }
}

impl Row for LastNode {
    const KIND: StateKind = StateKind::Site;
    const PREFIX: &'static [u8] = b"node";
    type Key = ();

    fn key_bytes((): &()) -> Vec<u8> {
        Vec::new()
    }

    fn parse_key(bytes: &[u8]) -> Option<()> {
        bytes.is_empty().then_some(())
    }

    fn encode(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_be_bytes())
    }

    fn decode(value: &[u8]) -> Result<Self, FormatError> {
        decode_fixed("the last node id", value)
            .map(u64::from_be_bytes)
            .map(Self)
    }
}

impl Row for Leaving {
    const KIND: StateKind = StateKind::Site;
    const PREFIX: &'static [u8] = b"leaving";
    type Key = NodeId;

    fn key_bytes(node: &NodeId) -> Vec<u8> {
        node.to_be_bytes().to_vec()
    }

    fn parse_key(bytes: &[u8]) -> Option<NodeId> {
        bytes.first_chunk().map(|node| u64::from_be_bytes(*node))
    }

    fn encode(&self) -> Bytes {
        Bytes::new()
    }

    fn decode(_: &[u8]) -> Result<Self, FormatError> {
        Ok(Self)
    }
}

impl Row for TokenRow {
    const KIND: StateKind = StateKind::Site;
    const PREFIX: &'static [u8] = b"token";
    type Key = [u8; 32];

    fn key_bytes(hash: &[u8; 32]) -> Vec<u8> {
        hash.to_vec()
    }

    fn parse_key(bytes: &[u8]) -> Option<[u8; 32]> {
        bytes.try_into().ok()
    }

    fn encode(&self) -> Bytes {
        weir_log::encode(self)
    }

    fn decode(value: &[u8]) -> Result<Self, FormatError> {
        weir_log::decode("a join token", value)
    }
}
