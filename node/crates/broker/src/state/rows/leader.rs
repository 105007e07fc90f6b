//! Leaders of replica groups.

use crate::state::rows::replica_group::ReplicaGroup;
use crate::state::rows::{Row, parse_group};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use weir_log::{FormatError, StateKind};
use weir_replica::NodeId;
use weir_types::GroupId;

/// Leader and members of a group, as last reported by the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaderReport {
    pub(crate) node: NodeId,
    pub(crate) term: u64,
    pub(crate) members: BTreeSet<NodeId>,
    /// The [`ReplicaGroup::version`] that the leader knew. The leader adds no node that this version
    /// excludes.
    pub(crate) version: u64,
}

impl LeaderReport {
    /// Returns true if `node` is not a member of the group, and will not be under the configuration `wanted`.
    pub(crate) fn is_without(&self, node: NodeId, wanted: &ReplicaGroup) -> bool {
        let is_to_have_it = wanted.replicas.contains(&node);
        !is_to_have_it && self.version == wanted.version && !self.members.contains(&node)
    }
}

impl Row for LeaderReport {
    const KIND: StateKind = StateKind::Leader;
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
        weir_log::decode("the leader of a replica group", value)
    }
}
