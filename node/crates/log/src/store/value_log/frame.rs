//! Stored forms: the header of a frame, and the pointer to a batch.

use crate::format::keys::{data_key, split_data_key};
use weir_types::limits::BATCH_BYTES_MAX;
use weir_types::{Offset, PartitionId};

/// Bytes of a frame's header.
pub(crate) const FRAME_BYTES: usize = 20;

/// Contents of a frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) partition: PartitionId,
    pub(crate) base: Offset,
    /// Bytes of the batch behind the header.
    pub(crate) len: u32,
}

impl FrameHeader {
    pub(crate) fn encode(&self) -> [u8; FRAME_BYTES] {
        let mut bytes = [0; FRAME_BYTES];
        bytes[..12].copy_from_slice(&data_key(self.partition, self.base));
        bytes[12..16].copy_from_slice(&self.len.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[..16]);
        bytes[16..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Decodes a header, or returns `None` when the header is damaged or unfinished.
    pub(crate) fn decode(bytes: &[u8; FRAME_BYTES]) -> Option<Self> {
        let (fields, crc) = bytes.split_first_chunk::<16>()?;
        if crc32c::crc32c(fields) != u32::from_be_bytes(*crc.first_chunk()?) {
            return None;
        }
        let (partition, base) = split_data_key(fields)?;
        let len = u32::from_be_bytes(*fields.get(12..)?.first_chunk()?);
        let fits = len as usize <= BATCH_BYTES_MAX;
        fits.then_some(Self { partition, base, len })
    }
}

/// Place of a batch, stored in `data` instead of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    pub(crate) segment: u32,
    /// Offset of the batch, behind the frame's header.
    pub(crate) at: u64,
    pub(crate) len: u32,
}

impl Pointer {
    /// Bytes of a stored pointer: shorter than any batch's header, so that the two cannot be confused.
    pub(crate) const BYTES: usize = 16;

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.segment.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.at.to_be_bytes());
        bytes[12..].copy_from_slice(&self.len.to_be_bytes());
        bytes
    }

    /// Decodes a row of `data` that is a plausible pointer.
    pub(crate) fn decode(row: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = row.try_into().ok()?;
        let pointer = Self {
            segment: u32::from_be_bytes(*bytes.first_chunk()?),
            at: u64::from_be_bytes(*bytes.get(4..)?.first_chunk()?),
            len: u32::from_be_bytes(*bytes.get(12..)?.first_chunk()?),
        };
        (pointer.len as usize <= BATCH_BYTES_MAX).then_some(pointer)
    }

    /// Returns the bytes of the whole frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        FRAME_BYTES as u64 + u64::from(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: FrameHeader = FrameHeader {
        partition: PartitionId(7),
        base: Offset::new(0x0102_0304),
        len: 300,
    };

    #[test]
    fn golden_bytes() {
        let want = [0, 0, 0, 7, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 1, 44];
        assert_eq!(HEADER.encode()[..16], want);
        assert_eq!(FrameHeader::decode(&HEADER.encode()), Some(HEADER));
        let pointer = Pointer {
            segment: 3,
            at: 0x0500,
            len: 300,
        };
        let want = [0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 44];
        assert_eq!(pointer.encode(), want);
        assert_eq!(Pointer::decode(&want), Some(pointer));
    }

    #[test]
    fn a_pointer_is_shorter_than_any_batch() {
        const { assert!(Pointer::BYTES < weir_types::batch::HEADER_BYTES) }
    }

    proptest! {
        #[test]
        fn any_flipped_bit_of_a_frame_header_is_noticed(bit in 0..FRAME_BYTES * 8) {
            let mut bytes = HEADER.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(FrameHeader::decode(&bytes), None);
        }

        #[test]
        fn arbitrary_rows_never_panic(row in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(pointer) = Pointer::decode(&row) {
                prop_assert!(pointer.len as usize <= BATCH_BYTES_MAX);
            }
        }
    }
}
