//! Counters: the next partition number of each group, and the next producer id.

use bytes::Bytes;
use weir_log::{Op, StateKey, StateKind};
use weir_types::GroupId;

/// Counters in `state`: the next partition's number, behind which follows the group unless it is the site's; the next
/// producer's.
const NEXT_PARTITION: &[u8] = b"partition";

pub(crate) const NEXT_PRODUCER: &[u8] = b"producer";

pub(crate) fn partition_counter(group: GroupId) -> Vec<u8> {
    match group {
        GroupId::SITE => NEXT_PARTITION.to_vec(),
        GroupId(id) => [NEXT_PARTITION, &id.to_be_bytes()].concat(),
    }
}

pub(crate) fn set_counter(name: &[u8], next: u64) -> Op {
    let value = Bytes::copy_from_slice(&next.to_be_bytes());
    Op::Put {
        key: StateKey::new(StateKind::Counter, name),
        value,
    }
}

pub(crate) fn read_u64(value: &[u8]) -> Option<u64> {
    value.first_chunk::<8>().map(|b| u64::from_be_bytes(*b))
}
