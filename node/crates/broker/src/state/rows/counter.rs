//! Counters: the next partition number of each replica group, and the next producer id.

use crate::state::rows::{Row, decode_fixed, parse_group};
use bytes::Bytes;
use weir_log::{FormatError, StateKind};
use weir_types::GroupId;

const PARTITION: &[u8] = b"partition";
const PRODUCER: &[u8] = b"producer";

/// The name of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CounterName {
    /// The next partition number of a group.
    NextPartition(GroupId),
    /// The next producer id.
    NextProducer,
}

/// The next number of a counter. Numbers ascend, and none is ever reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counter(pub(crate) u64);

impl Row for Counter {
    const KIND: StateKind = StateKind::Counter;
    type Key = CounterName;

    // The key of the site's counter has no group, since it was the only counter at first.
    fn key_bytes(name: &CounterName) -> Vec<u8> {
        match name {
            CounterName::NextPartition(GroupId::SITE) => PARTITION.to_vec(),
            CounterName::NextPartition(group) => [PARTITION, &group.0.to_be_bytes()].concat(),
            CounterName::NextProducer => PRODUCER.to_vec(),
        }
    }

    fn parse_key(bytes: &[u8]) -> Option<CounterName> {
        match bytes.strip_prefix(PARTITION) {
            Some([]) => Some(CounterName::NextPartition(GroupId::SITE)),
            Some(group) => Some(CounterName::NextPartition(parse_group(group)?)),
            None => (bytes == PRODUCER).then_some(CounterName::NextProducer),
        }
    }

    fn encode(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_be_bytes())
    }

    fn decode(value: &[u8]) -> Result<Self, FormatError> {
        decode_fixed("a counter", value).map(u64::from_be_bytes).map(Self)
    }
}
