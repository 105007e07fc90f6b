//! Nodes that are away or behind.

use crate::state::rows::Row;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use weir_log::{FormatError, StateKind};
use weir_replica::NodeId;

/// Nodes that are absent, as the leader saw them last. Encoded by position.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absent {
    /// Nodes that do not answer.
    pub away: BTreeSet<NodeId>,
    /// Nodes that answer, but do not follow.
    pub behind: BTreeSet<NodeId>,
}

impl Row for Absent {
    const KIND: StateKind = StateKind::Site;
    const PREFIX: &'static [u8] = b"absent";
    type Key = ();

    fn key_bytes((): &()) -> Vec<u8> {
        Vec::new()
    }

    fn parse_key(bytes: &[u8]) -> Option<()> {
        bytes.is_empty().then_some(())
    }

    fn encode(&self) -> Bytes {
        weir_log::encode(self)
    }

    fn decode(value: &[u8]) -> Result<Self, FormatError> {
        weir_log::decode("who is absent", value)
    }
}
