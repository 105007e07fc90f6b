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
        /// Where.
        partition: PartitionId,
        /// What; its base offset is the partition's next.
        batch: Batch,
    },
    /// Writes a row of `state`.
    Put {
        /// Which.
        key: StateKey,
        /// What it says from now on.
        value: Bytes,
    },
    /// Removes a row of `state`.
    Remove {
        /// Which.
        key: StateKey,
    },
    /// Gives up everything before `to`.
    Trim {
        /// Of which partition.
        partition: PartitionId,
        /// The new start.
        to: Offset,
        /// Why.
        reason: GapReason,
    },
    /// Removes a partition with all its rows.
    Drop {
        /// Which.
        partition: PartitionId,
    },
    /// An appended batch whose bytes retention has removed since: an old entry, read back or sent to a follower. It
    /// stores a header and no row.
    Gone(Append),
}

impl Op {
    /// Whether it deletes records, or says which a topic keeps.
    pub fn gives_room(&self) -> bool {
        match self {
            Self::Trim { .. } | Self::Drop { .. } => true,
            Self::Put { key, .. } | Self::Remove { key } => {
                key.as_bytes().first() == Some(&(StateKind::Topic as u8))
            }
            Self::Append { .. } | Self::Gone(_) => false,
        }
    }

    /// Bytes that it takes in a header or a message, its batch included, at most.
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

/// Which entry: the same id means the same entry, and the same ones before it, on every replica (Raft's log matching).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntryId {
    /// The term of the leader that made it.
    pub term: Term,
    /// Its place in the group's log.
    pub index: u64,
}

/// The atomic unit of a replica group.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Whose log it belongs to.
    pub group: GroupId,
    /// Its place there; the first is 1.
    pub index: u64,
    /// The leader's term.
    pub term: Term,
    /// May be acknowledged before it is synced: only when every topic it touches is `lazy`.
    pub lazy: bool,
    /// What it does.
    pub ops: Vec<Op>,
}

impl Entry {
    /// Bytes of payload.
    pub fn payload_bytes(&self) -> usize {
        self.ops.iter().map(Op::bytes).sum()
    }

    /// Which entry it is.
    pub fn id(&self) -> EntryId {
        EntryId {
            term: self.term,
            index: self.index,
        }
    }

    /// What is stored under (group, index).
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

/// What a header keeps of an appended batch: enough to find it, and to notice that it is not what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// Where it lies.
    pub partition: PartitionId,
    /// Its first offset.
    pub base: Offset,
    /// Offsets that it spans.
    pub span: u32,
    /// Records that it holds.
    pub count: u32,
    /// Its stored size.
    pub bytes: u32,
    /// Its own checksum.
    pub crc: u32,
    /// Its largest timestamp, in milliseconds.
    pub max_timestamp: i64,
}

impl Append {
    /// First offset after it.
    pub fn end(&self) -> Offset {
        self.base.plus(u64::from(self.span))
    }
}

/// An [`Op`] without the bytes of a batch. Variants are stored by position: add at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in `Op`")]
pub enum OpHeader {
    Append(Append),
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Remove {
        key: Vec<u8>,
    },
    Trim {
        partition: PartitionId,
        to: Offset,
        reason: GapReason,
    },
    Drop {
        partition: PartitionId,
    },
}

impl OpHeader {
    /// The op again, with its batch, if it has one, from `append`.
    ///
    /// # Errors
    /// Those of `append`.
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

    /// The header of `op`.
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

/// An entry as `rlog` keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// Whose log it belongs to.
    pub group: GroupId,
    /// Its place there.
    pub index: u64,
    /// The leader's term.
    pub term: Term,
    /// What it does.
    pub ops: Vec<OpHeader>,
}

/// Why a stored header cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    /// It is not as it was written.
    #[error("its header is damaged")]
    Damaged,
    /// It is whole, and of a later release.
    #[error(transparent)]
    Format(#[from] FormatError),
}

#[derive(Serialize, Deserialize)]
struct Stored<O> {
    term: Term,
    ops: O,
}

impl EntryHeader {
    /// Which entry it is.
    pub fn id(&self) -> EntryId {
        EntryId {
            term: self.term,
            index: self.index,
        }
    }

    /// The appended batches.
    pub fn appends(&self) -> impl Iterator<Item = &Append> {
        self.ops.iter().filter_map(|op| match op {
            OpHeader::Append(append) => Some(append),
            _ => None,
        })
    }

    /// Its stored form: CRC32C of all that follows and of the key, the CRC of the header before it, and the fields
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

    /// Reads the header stored as `bytes`; also its CRC and the one it chains to.
    ///
    /// # Errors
    /// When it is damaged; or whole, and of a later release.
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
        // It is as it was written: an op that is not known is another release's.
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
        // term 3, two ops: Put (1) with key and value behind their lengths, Trim (3) of 4 to 9, evicted (index 1).
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

    /// A header as a later release may write it: `body` in the frame of one.
    fn framed(body: &[u8]) -> Vec<u8> {
        let mut rest = 5u32.to_be_bytes().to_vec();
        rest.extend_from_slice(body);
        [&header().checksum(&rest).to_be_bytes()[..], &rest].concat()
    }

    #[test]
    fn an_unknown_op_or_version_is_not_called_damage() {
        // Term 3, one op of a kind that there is not yet.
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
            // A place in a list of what is gone takes up to five more.
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
