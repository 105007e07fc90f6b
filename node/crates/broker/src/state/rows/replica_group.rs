//! Replica groups.

use crate::state::rows::{Row, parse_group};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use weir_log::{FormatError, StateKind};
use weir_replica::{Member, NodeId};
use weir_types::GroupId;

/// The nodes that have a replica group, as decided: the group's own members follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplicaGroup {
    /// Who has it. The first is to lead when it can.
    pub(crate) replicas: Vec<NodeId>,
    /// How many should, as soon as there are so many nodes.
    pub(crate) size: usize,
    /// Those who begin it, as they were then: on each of them it begins with the same entry.
    pub(crate) founders: BTreeMap<NodeId, Member>,
    /// Counts changes, so that a leader can say which it has heard of.
    pub(crate) version: u64,
}

impl Row for ReplicaGroup {
    const KIND: StateKind = StateKind::ReplicaGroup;
    type Key = GroupId;

    fn key_bytes(key: &GroupId) -> Vec<u8> {
        key.0.to_be_bytes().to_vec()
    }

    fn parse_key(bytes: &[u8]) -> Option<GroupId> {
        parse_group(bytes)
    }

    fn encode(&self) -> Bytes {
        weir_log::encode(self)
    }

    fn decode(value: &[u8]) -> Result<Self, FormatError> {
        weir_log::decode("a replica group", value)
    }
}
