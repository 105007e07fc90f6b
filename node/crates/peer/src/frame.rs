//! Frames: `length u32 | head length u32 | head | payload`, big-endian; the length counts what follows it, the head is
//! postcard, the payload raw bytes (record batches, parts of modules) that are never copied into a message.

use crate::error::PeerError;
use bytes::{Buf, Bytes, BytesMut};
use quinn::{RecvStream, SendStream};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes reserved for a frame before they have come.
const RESERVE_BYTES: usize = 64 << 10;
/// Length of a head: messages are small, and lists of topics the largest: 10,000 partitions take a tenth of it.
const HEAD_BYTES_MAX: usize = 1 << 20;
/// Bytes of a head's length.
const LENGTH_BYTES: usize = 4;

/// A message and its payload.
#[derive(Clone, Debug)]
pub struct Frame<T> {
    /// The message.
    pub head: T,
    /// The bytes that come with it.
    pub payload: Bytes,
}

/// Writes a frame.
///
/// # Errors
/// When the stream is broken, or the head does not fit.
///
/// # Cancel safety
/// Not safe: a part of the frame may have been written.
pub async fn write_frame<T: Serialize>(
    to: &mut SendStream,
    head: &T,
    payload: &[Bytes],
) -> Result<(), PeerError> {
    let head = postcard::to_allocvec(head).map_err(|e| PeerError::Malformed(e.to_string()))?;
    if head.len() > HEAD_BYTES_MAX {
        return Err(PeerError::FrameTooLarge {
            bytes: head.len(),
            limit: HEAD_BYTES_MAX,
        });
    }
    let total = LENGTH_BYTES + head.len() + payload.iter().map(Bytes::len).sum::<usize>();
    let mut start = BytesMut::with_capacity(4 + LENGTH_BYTES + head.len());
    start.extend_from_slice(&(total as u32).to_be_bytes());
    start.extend_from_slice(&(head.len() as u32).to_be_bytes());
    start.extend_from_slice(&head);
    // Handed over as they are: quinn keeps them until they are acknowledged, without a copy.
    let mut chunks = Vec::with_capacity(1 + payload.len());
    chunks.push(start.freeze());
    chunks.extend(payload.iter().filter(|b| !b.is_empty()).cloned());
    to.write_all_chunks(&mut chunks)
        .await
        .map_err(|e| PeerError::Lost(e.to_string()))
}

/// Reads a frame of at most `limit` bytes; `None` when the stream ends between two.
///
/// # Errors
/// When the stream is broken or ends within a frame, or the frame is too large or malformed.
///
/// # Cancel safety
/// Not safe: a part of the frame may have been read.
pub async fn read_frame<T: DeserializeOwned>(
    from: &mut RecvStream,
    limit: usize,
) -> Result<Option<Frame<T>>, PeerError> {
    read_message(from, limit).await?.map(Frame::parse).transpose()
}

impl<T: DeserializeOwned> Frame<T> {
    /// Reads what follows a frame's length.
    ///
    /// # Errors
    /// When it is no such frame.
    pub fn parse(mut bytes: Bytes) -> Result<Self, PeerError> {
        let short = || PeerError::Malformed("frame is cut short".to_owned());
        if bytes.len() < LENGTH_BYTES {
            return Err(short());
        }
        let head_len = bytes.get_u32() as usize;
        if bytes.len() < head_len {
            return Err(short());
        }
        let head = bytes.split_to(head_len);
        let head = postcard::from_bytes(&head).map_err(|e| PeerError::Malformed(e.to_string()))?;
        Ok(Frame { head, payload: bytes })
    }
}

/// Writes a message in parts: its length u32, big-endian, and the parts as they are.
///
/// # Errors
/// When the stream is broken.
///
/// # Cancel safety
/// Not safe: a part of the message may have been written.
pub async fn write_message(to: &mut SendStream, parts: Vec<Bytes>) -> Result<(), PeerError> {
    let total = parts.iter().map(Bytes::len).sum::<usize>();
    let mut chunks = Vec::with_capacity(1 + parts.len());
    chunks.push(Bytes::copy_from_slice(&(total as u32).to_be_bytes()));
    chunks.extend(parts.into_iter().filter(|b| !b.is_empty()));
    to.write_all_chunks(&mut chunks)
        .await
        .map_err(|e| PeerError::Lost(e.to_string()))
}

/// Reads a message of at most `limit` bytes; `None` when the stream ends between two.
///
/// # Errors
/// When the stream is broken or ends within a message, or the message is too large.
///
/// # Cancel safety
/// Not safe: a part of the message may have been read.
pub async fn read_message(from: &mut RecvStream, limit: usize) -> Result<Option<Bytes>, PeerError> {
    let mut length = [0; 4];
    match from.read_exact(&mut length).await {
        Ok(()) => {}
        Err(quinn::ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(e) => return Err(PeerError::Lost(e.to_string())),
    }
    let total = u32::from_be_bytes(length) as usize;
    if total > limit {
        return Err(PeerError::FrameTooLarge { bytes: total, limit });
    }
    let mut bytes = BytesMut::with_capacity(total.min(RESERVE_BYTES));
    read_into(from, &mut bytes, total).await?;
    Ok(Some(bytes.freeze()))
}

/// Reads until `bytes` has `total`. Grows with what really comes, not with what is announced.
async fn read_into(from: &mut RecvStream, bytes: &mut BytesMut, total: usize) -> Result<(), PeerError> {
    while bytes.len() < total {
        let chunk = from
            .read_chunk(total - bytes.len(), true)
            .await
            .map_err(|e| PeerError::Lost(e.to_string()))?;
        let chunk = chunk.ok_or_else(|| PeerError::Lost("stream ended within a frame".to_owned()))?;
        bytes.extend_from_slice(&chunk.bytes);
    }
    Ok(())
}
