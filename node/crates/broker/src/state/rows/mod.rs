//! The rows of `state`, a file per kind: key, value and codec.

pub(crate) mod absent;
pub(crate) mod channel;
pub(crate) mod committed_offset;
pub(crate) mod config_seen;
pub(crate) mod consumer_group;
pub(crate) mod counter;
pub(crate) mod group_age;
pub(crate) mod leader;
pub(crate) mod location;
pub(crate) mod producer;
pub(crate) mod reassignment;
pub(crate) mod replica_group;
pub(crate) mod seal;
pub(crate) mod site;
pub(crate) mod stored_at;
pub(crate) mod topic;

use bytes::Bytes;
use weir_log::{FormatError, Op, StateKey, StateKind};
use weir_types::{GroupId, PartitionId};

/// A kind of row: the form of its key, and the codec of its value.
///
/// Encoding cannot fail and never substitutes a default: see [`weir_log::encode`].
pub(crate) trait Row: Sized {
    /// The kind under which the log stores the row.
    const KIND: StateKind;
    /// First bytes of the key after the kind, for kinds that several sorts of rows share.
    const PREFIX: &'static [u8] = b"";
    /// Type of the key for callers.
    type Key: ToOwned + ?Sized;

    /// Returns the bytes of `key` that follow the prefix.
    fn key_bytes(key: &Self::Key) -> Vec<u8>;

    /// Parses the bytes of a key that follow the prefix; `None` when they have another form.
    fn parse_key(bytes: &[u8]) -> Option<<Self::Key as ToOwned>::Owned>;

    /// Encodes the value.
    fn encode(&self) -> Bytes;

    /// Decodes a value.
    ///
    /// # Errors
    /// When a later release wrote the value, or the value is damaged.
    fn decode(value: &[u8]) -> Result<Self, FormatError>;

    /// Returns the stored key.
    fn key(key: &Self::Key) -> StateKey {
        StateKey::new(Self::KIND, &[Self::PREFIX, &Self::key_bytes(key)].concat())
    }

    /// Returns the effect that writes this row.
    fn put(&self, key: &Self::Key) -> Op {
        Op::Put {
            key: Self::key(key),
            value: self.encode(),
        }
    }

    /// Returns the effect that removes the row under `key`.
    fn remove(key: &Self::Key) -> Op {
        Op::Remove { key: Self::key(key) }
    }
}

/// Parses a key that begins with a partition.
pub(crate) fn parse_partition(bytes: &[u8]) -> Option<PartitionId> {
    Some(PartitionId(u32::from_be_bytes(*bytes.first_chunk()?)))
}

/// Parses a key that begins with a replica group.
pub(crate) fn parse_group(bytes: &[u8]) -> Option<GroupId> {
    Some(GroupId(u16::from_be_bytes(*bytes.first_chunk()?)))
}

/// Decodes a fixed number of bytes at the start of a value of kind `name`.
pub(crate) fn decode_fixed<const N: usize>(name: &'static str, value: &[u8]) -> Result<[u8; N], FormatError> {
    value.first_chunk().copied().ok_or_else(|| FormatError::Unknown {
        what: name,
        why: format!("{} bytes instead of {N}", value.len()),
    })
}
