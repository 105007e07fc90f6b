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
    /// Configured replicas. The first is the preferred leader.
    pub(crate) replicas: Vec<NodeId>,
    /// Target number of replicas, once there are enough nodes.
    pub(crate) size: usize,
    /// Founding members with their addresses at that time: every founder begins with the same entry.
    pub(crate) founders: BTreeMap<NodeId, Member>,
    /// Number of changes, by which leaders name the configuration that they have seen.
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
