//! Entries of a replica group and the stored form of their headers.

use crate::format::encoding::FormatError;
use crate::format::keys::{StateKey, StateKind};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_types::limits::OP_HEAD_BYTES_MAX;
use weir_types::{Batch, GapReason, GroupId, Offset, PartitionId, Term};

/// One effect of an entry, with the bytes it stores.
#[derive(Clone, Debug)]
pub enum Op {
    /// Adds a batch at its base offset.
    Append {
        /// The partition.
        partition: PartitionId,
        /// The batch, with its base offset already assigned.
        batch: Batch,
    },
    /// Writes a row of `state`.
    Put {
        /// Key of the row.
        key: StateKey,
        /// The new value.
        value: Bytes,
    },
    /// Removes a row of `state`.
    Remove {
        /// Key of the row.
        key: StateKey,
    },
    /// Removes everything before `to`.
    Trim {
        /// The partition.
        partition: PartitionId,
        /// The new start.
        to: Offset,
        /// Reason of the gap.
        reason: GapReason,
    },
    /// Removes a partition with all its rows.
    Drop {
        /// The partition.
        partition: PartitionId,
    },
    /// An appended batch that retention has removed since: part of an old entry that is read back or sent to
    /// a follower. Stores a header and no row.
    Gone(Append),
}

impl Op {
    /// Returns true for an op that frees space: deleted records, or settings of retention.
    pub fn gives_room(&self) -> bool {
        match self {
            Self::Trim { .. } | Self::Drop { .. } => true,
            Self::Put { key, .. } | Self::Remove { key } => {
                key.as_bytes().first() == Some(&(StateKind::Topic as u8))
            }
            Self::Append { .. } | Self::Gone(_) => false,
        }
    }

    /// Returns the most bytes that the op takes in a header or a message, including its batch.
    pub fn bytes(&self) -> usize {
        OP_HEAD_BYTES_MAX
            + match self {
                Self::Append { batch, .. } => batch.bytes().len(),
                Self::Put { key, value } => key.as_bytes().len() + value.len(),
                Self::Remove { key } => key.as_bytes().len(),
                Self::Trim { .. } | Self::Drop { .. } | Self::Gone(_) => 0,
            }
    }
}

/// Identity of an entry. Equal ids mean equal entries with equal predecessors on every replica (Raft's log
/// matching).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntryId {
    /// Term of the leader that made the entry.
    pub term: Term,
    /// Index in the group's log.
    pub index: u64,
}

/// The atomic unit of a replica group.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Group of the log.
    pub group: GroupId,
    /// Index in the log; the first is 1.
    pub index: u64,
    /// Term of the leader.
    pub term: Term,
    /// May be acknowledged before a sync: only when every touched topic is `lazy`.
    pub lazy: bool,
    /// Effects.
    pub ops: Vec<Op>,
}

impl Entry {
    /// Returns the bytes of payload.
    pub fn payload_bytes(&self) -> usize {
        self.ops.iter().map(Op::bytes).sum()
    }

    /// Returns the entry's identity.
    pub fn id(&self) -> EntryId {
        EntryId {
            term: self.term,
            index: self.index,
        }
    }

    /// Returns the header, which is stored under (group, index).
    pub fn header(&self) -> EntryHeader {
        let ops = self.ops.iter().map(OpHeader::of).collect();
        EntryHeader {
            group: self.group,
            index: self.index,
            term: self.term,
            ops,
        }
    }
}

/// Part of a header for an appended batch: enough to find the batch, and to notice a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// The partition.
    pub partition: PartitionId,
    /// First offset.
    pub base: Offset,
    /// Number of offsets.
    pub span: u32,
    /// Number of records.
    pub count: u32,
    /// Stored size in bytes.
    pub bytes: u32,
    /// CRC32C of the batch.
    pub crc: u32,
    /// Largest timestamp, in milliseconds.
    pub max_timestamp: i64,
}

impl Append {
    /// Returns the first offset after the batch.
    pub fn end(&self) -> Offset {
        self.base.plus(u64::from(self.span))
    }
}

/// An [`Op`] without the bytes of a batch. Variants are stored by position: add at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpHeader {
    /// Adds a batch at its base offset.
    Append(Append),
    /// Writes a row of `state`.
    Put {
        /// Key of the row.
        key: Vec<u8>,
        /// The new value.
        value: Vec<u8>,
    },
    /// Removes a row of `state`.
    Remove {
        /// Key of the row.
        key: Vec<u8>,
    },
    /// Removes everything before `to`.
    Trim {
        /// The partition.
        partition: PartitionId,
        /// The new start.
        to: Offset,
        /// Reason of the gap.
        reason: GapReason,
    },
    /// Removes a partition with all its rows.
    Drop {
        /// The partition.
        partition: PartitionId,
    },
}

impl OpHeader {
    /// Joins the op with its batch, which `append` supplies.
    ///
    /// # Errors
    /// Returns the errors of `append`.
    pub fn join<E>(self, append: impl FnOnce(Append) -> Result<Op, E>) -> Result<Op, E> {
        Ok(match self {
            Self::Append(header) => append(header)?,
            Self::Put { key, value } => Op::Put {
                key: StateKey::from_bytes(key),
                value: value.into(),
            },
            Self::Remove { key } => Op::Remove {
                key: StateKey::from_bytes(key),
            },
            Self::Trim {
                partition,
                to,
                reason,
            } => Op::Trim {
                partition,
                to,
                reason,
            },
            Self::Drop { partition } => Op::Drop { partition },
        })
    }

    /// Returns the header of `op`.
    pub fn of(op: &Op) -> Self {
        match op {
            Op::Append { partition, batch } => Self::Append(Append {
                partition: *partition,
                base: batch.base_offset(),
                span: batch.span(),
                count: batch.count(),
                bytes: batch.bytes().len() as u32,
                crc: batch.crc(),
                max_timestamp: batch.max_timestamp(),
            }),
            Op::Put { key, value } => Self::Put {
                key: key.as_bytes().to_vec(),
                value: value.to_vec(),
            },
            Op::Remove { key } => Self::Remove {
                key: key.as_bytes().to_vec(),
            },
            Op::Trim {
                partition,
                to,
                reason,
            } => Self::Trim {
                partition: *partition,
                to: *to,
                reason: *reason,
            },
            Op::Drop { partition } => Self::Drop {
                partition: *partition,
            },
            Op::Gone(append) => Self::Append(*append),
        }
    }
}

/// An entry as stored in `rlog`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// Group of the log.
    pub group: GroupId,
    /// Index in the log.
    pub index: u64,
    /// Term of the leader.
    pub term: Term,
    /// Effects.
    pub ops: Vec<OpHeader>,
}

/// A stored header that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    /// The checksum does not match.
    #[error("its header is damaged")]
    Damaged,
    /// The header is whole, but belongs to a later release.
    #[error(transparent)]
    Format(#[from] FormatError),
}

#[derive(Serialize, Deserialize)]
struct Stored<O> {
    term: Term,
    ops: O,
}

impl EntryHeader {
    /// Returns the entry's identity.
    pub fn id(&self) -> EntryId {
        EntryId {
            term: self.term,
            index: self.index,
        }
    }

    /// Returns the appended batches.
    pub fn appends(&self) -> impl Iterator<Item = &Append> {
        self.ops.iter().filter_map(|op| match op {
            OpHeader::Append(append) => Some(append),
            _ => None,
        })
    }

    /// Encodes the header: CRC32C of the rest and of the key, the CRC of the previous header, and the fields
    /// in postcard. Returns the CRC for the next header to chain to.
    pub(crate) fn encode(&self, chained: u32) -> (Vec<u8>, u32) {
        let mut out = vec![0; 4];
        out.extend_from_slice(&chained.to_be_bytes());
        let stored = Stored {
            term: self.term,
            ops: &self.ops,
        };
        let mut out =
            postcard::to_extend(&stored, out).expect("numbers and lists of bytes have a stored form");
        let crc = self.checksum(out.get(4..).unwrap_or_default());
        if let Some(field) = out.first_chunk_mut::<4>() {
            *field = crc.to_be_bytes();
        }
        (out, crc)
    }

    /// Decodes a stored header. Also returns its CRC and the CRC of its predecessor.
    ///
    /// # Errors
    /// Fails when the header is damaged, or belongs to a later release.
    pub(crate) fn decode(group: GroupId, index: u64, bytes: &[u8]) -> Result<(Self, u32, u32), HeaderError> {
        let (crc, rest) = bytes.split_first_chunk::<4>().ok_or(HeaderError::Damaged)?;
        let (chained, body) = rest.split_first_chunk::<4>().ok_or(HeaderError::Damaged)?;
        let crc = u32::from_be_bytes(*crc);
        let mut header = Self {
            group,
            index,
            term: Term(0),
            ops: Vec::new(),
        };
        if header.checksum(rest) != crc {
            return Err(HeaderError::Damaged);
        }
        // The checksum matches: an unknown op belongs to another release.
        let stored: Stored<Vec<OpHeader>> = crate::format::encoding::decode("the header of an entry", body)?;
        header.term = stored.term;
        header.ops = stored.ops;
        Ok((header, crc, u32::from_be_bytes(*chained)))
    }

    fn checksum(&self, body: &[u8]) -> u32 {
        let key = crc32c::crc32c(&crate::format::keys::rlog_key(self.group, self.index));
        crc32c::crc32c_append(key, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> EntryHeader {
        EntryHeader {
            group: GroupId(0),
            index: 7,
            term: Term(3),
            ops: vec![
                OpHeader::Put {
                    key: vec![16, 1],
                    value: vec![2; 40],
                },
                OpHeader::Trim {
                    partition: PartitionId(4),
                    to: Offset::new(9),
                    reason: GapReason::Evicted,
                },
            ],
        }
    }

    #[test]
    fn golden_bytes() {
        let (bytes, crc) = header().encode(0xaabb_ccdd);
        assert_eq!(bytes[..4], crc.to_be_bytes());
        assert_eq!(bytes[4..8], [0xaa, 0xbb, 0xcc, 0xdd]);
        // term 3, two ops: Put (1) with key and value behind their lengths, Trim (3) of 4 to 9, evicted
        // (index 1).
        let mut body = vec![3, 2, 1, 2, 16, 1, 40];
        body.extend([2; 40]);
        body.extend([3, 4, 9, 1]);
        assert_eq!(bytes[8..], body);
    }

    #[test]
    fn a_header_is_bound_to_its_place() {
        let (bytes, crc) = header().encode(5);
        assert_eq!(EntryHeader::decode(GroupId(0), 7, &bytes), Ok((header(), crc, 5)));
        assert_eq!(
            EntryHeader::decode(GroupId(0), 8, &bytes),
            Err(HeaderError::Damaged)
        );
        assert_eq!(
            EntryHeader::decode(GroupId(1), 7, &bytes),
            Err(HeaderError::Damaged)
        );
    }

    /// Frames `body` as a header that a later release may write.
    fn framed(body: &[u8]) -> Vec<u8> {
        let mut rest = 5u32.to_be_bytes().to_vec();
        rest.extend_from_slice(body);
        [&header().checksum(&rest).to_be_bytes()[..], &rest].concat()
    }

    #[test]
    fn an_unknown_op_or_version_is_not_called_damage() {
        // Term 3 and an op of an unknown kind.
        let unknown = EntryHeader::decode(GroupId(0), 7, &framed(&[3, 1, 99, 0]));
        assert!(
            matches!(unknown, Err(HeaderError::Format(FormatError::Unknown { .. }))),
            "{unknown:?}"
        );
        let newer = EntryHeader::decode(GroupId(0), 7, &framed(&[0x80, 0x00, 2, 3, 0]));
        let Err(HeaderError::Format(newer)) = newer else {
            panic!("{newer:?}")
        };
        assert!(newer.to_string().contains("a later release than"), "{newer}");
    }

    #[test]
    fn an_op_says_what_it_takes_at_most() {
        let append = Append {
            partition: PartitionId(u32::MAX),
            base: Offset::new(u64::MAX),
            span: u32::MAX,
            count: u32::MAX,
            bytes: u32::MAX,
            crc: u32::MAX,
            max_timestamp: i64::MIN,
        };
        let put = Op::Put {
            key: StateKey::from_bytes(vec![255; 300]),
            value: vec![255; 70_000].into(),
        };
        let trim = Op::Trim {
            partition: PartitionId(u32::MAX),
            to: Offset::new(u64::MAX),
            reason: GapReason::Evicted,
        };
        let partition = PartitionId(u32::MAX);
        let key = StateKey::from_bytes(vec![255; 60_000]);
        for op in [
            Op::Gone(append),
            put,
            Op::Remove { key },
            trim,
            Op::Drop { partition },
        ] {
            // The index of a removed batch takes up to five bytes more.
            let taken = postcard::to_allocvec(&OpHeader::of(&op)).unwrap().len() + 5;
            assert!(taken <= op.bytes(), "{op:?} takes {taken}");
        }
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_noticed(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let (mut bytes, _) = header().encode(5);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(EntryHeader::decode(GroupId(0), 7, &bytes), Err(HeaderError::Damaged));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = EntryHeader::decode(GroupId(0), 1, &bytes);
        }
    }
}
