//! Configurations of replica groups that their leaders have seen.

use crate::state::rows::{Row, decode_fixed, parse_group};
use bytes::Bytes;
use weir_log::{FormatError, StateKind};
use weir_types::GroupId;

/// The newest configuration version that any leader of a group has seen. The row is in the group's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConfigSeen(pub(crate) u64);

impl Row for ConfigSeen {
    const KIND: StateKind = StateKind::Heeded;
    type Key = GroupId;

    fn key_bytes(key: &GroupId) -> Vec<u8> {
        key.0.to_be_bytes().to_vec()
    }

    fn parse_key(bytes: &[u8]) -> Option<GroupId> {
        parse_group(bytes)
    }

    fn encode(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_be_bytes())
    }

    fn decode(value: &[u8]) -> Result<Self, FormatError> {
        decode_fixed("a configuration that was seen", value)
            .map(u64::from_be_bytes)
            .map(Self)
    }
}
