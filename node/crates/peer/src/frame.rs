//! Frames: `length u32 | head length u32 | head | payload`, big-endian. The length counts all bytes after
//! itself. The head is postcard; the payload is raw bytes (record batches, parts of modules), passed on
//! without a copy.

use crate::error::PeerError;
use bytes::{Buf, Bytes, BytesMut};
use quinn::{RecvStream, SendStream};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes reserved for a frame before its data arrives.
const RESERVE_BYTES: usize = 64 << 10;
/// Maximum bytes of the head of a reply. Lists of topics are the largest: 10,000 topics with names of 249 bytes and
/// some settings take 4 MB. Requests have a lower limit at the node.
const HEAD_BYTES_MAX: usize = 4 << 20;
/// Bytes of the head-length field.
const LENGTH_BYTES: usize = 4;

/// A message with its payload.
#[derive(Clone, Debug)]
pub struct Frame<T> {
    /// The message.
    pub head: T,
    /// The raw bytes after the message.
    pub payload: Bytes,
}

/// Writes a frame.
///
/// # Errors
/// [`PeerError::Lost`] if the stream is broken, [`PeerError::FrameTooLarge`] or [`PeerError::Malformed`] if
/// the head cannot be encoded within its limit.
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
    // Moved, not copied: quinn holds the chunks until the peer acknowledges them.
    let mut chunks = Vec::with_capacity(1 + payload.len());
    chunks.push(start.freeze());
    chunks.extend(payload.iter().filter(|b| !b.is_empty()).cloned());
    to.write_all_chunks(&mut chunks)
        .await
        .map_err(|e| PeerError::Lost(e.to_string()))
}

/// Reads a frame of at most `limit` bytes; returns `None` if the stream ends before a frame.
///
/// # Errors
/// [`PeerError::Lost`] if the stream breaks or ends within a frame, [`PeerError::FrameTooLarge`] or
/// [`PeerError::Malformed`] for an invalid frame.
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
    /// Parses the bytes after a frame's length field.
    ///
    /// # Errors
    /// [`PeerError::FrameTooLarge`] if the head exceeds its limit, [`PeerError::Malformed`] if the bytes are
    /// not a frame.
    pub fn parse(bytes: Bytes) -> Result<Self, PeerError> {
        Self::parse_within(bytes, HEAD_BYTES_MAX)
    }

    /// Parses the bytes after a frame's length field, with a head of at most `head_max` bytes. Decoded lists
    /// take more memory than their encoding, so some callers set a lower limit.
    ///
    /// # Errors
    /// [`PeerError::FrameTooLarge`] if the head exceeds `head_max`, [`PeerError::Malformed`] if the bytes are
    /// not a frame.
    pub fn parse_within(mut bytes: Bytes, head_max: usize) -> Result<Self, PeerError> {
        let short = || PeerError::Malformed("frame is cut short".to_owned());
        if bytes.len() < LENGTH_BYTES {
            return Err(short());
        }
        let head_len = bytes.get_u32() as usize;
        if bytes.len() < head_len {
            return Err(short());
        }
        if head_len > head_max {
            return Err(PeerError::FrameTooLarge {
                bytes: head_len,
                limit: head_max,
            });
        }
        let head = bytes.split_to(head_len);
        let head = postcard::from_bytes(&head).map_err(|e| PeerError::Malformed(e.to_string()))?;
        Ok(Frame { head, payload: bytes })
    }
}

/// Writes a message: its length (u32, big-endian), then `parts` in order.
///
/// # Errors
/// [`PeerError::Lost`] if the stream is broken.
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

/// Reads a message of at most `limit` bytes; returns `None` if the stream ends before a message.
///
/// # Errors
/// [`PeerError::Lost`] if the stream breaks or ends within a message, [`PeerError::FrameTooLarge`] if the
/// message exceeds `limit`.
///
/// # Cancel safety
/// Not safe: a part of the message may have been read.
pub async fn read_message(from: &mut RecvStream, limit: usize) -> Result<Option<Bytes>, PeerError> {
    let Some(total) = read_length(from, limit).await? else {
        return Ok(None);
    };
    let mut bytes = BytesMut::with_capacity(total.min(RESERVE_BYTES));
    read_into(from, &mut bytes, total).await?;
    Ok(Some(bytes.freeze()))
}

/// Reads the length of the next message, at most `limit` bytes; returns `None` if the stream ends first.
/// [`read_into`] reads the message itself.
///
/// # Errors
/// [`PeerError::Lost`] if the stream breaks or ends within the length, [`PeerError::FrameTooLarge`] if the
/// length exceeds `limit`.
///
/// # Cancel safety
/// Not safe: a part of the length may have been read.
pub async fn read_length(from: &mut RecvStream, limit: usize) -> Result<Option<usize>, PeerError> {
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
    Ok(Some(total))
}

/// Highest bit of a length: set if another part of the message follows.
const GOES_ON: u32 = 1 << 31;

/// Writes a message of any size. A message above `part_max` bytes is split into parts of `part_max` bytes;
/// the highest bit of a part's length says that another part follows.
///
/// # Errors
/// [`PeerError::Lost`] if the stream is broken.
///
/// # Cancel safety
/// Not safe: a part of the message may have been written.
pub async fn write_in_parts(
    to: &mut SendStream,
    mut pieces: Vec<Bytes>,
    part_max: usize,
) -> Result<(), PeerError> {
    let mut left = pieces.iter().map(Bytes::len).sum::<usize>();
    if left <= part_max {
        return write_message(to, pieces).await;
    }
    pieces.reverse();
    while left > 0 {
        let part = left.min(part_max);
        left -= part;
        let goes_on = if left > 0 { GOES_ON } else { 0 };
        let mut chunks = vec![Bytes::copy_from_slice(&(part as u32 | goes_on).to_be_bytes())];
        let mut open = part;
        while open > 0
            && let Some(mut piece) = pieces.pop()
        {
            if piece.len() > open {
                pieces.push(piece.split_off(open));
            }
            open -= piece.len();
            chunks.push(piece);
        }
        chunks.retain(|chunk| !chunk.is_empty());
        to.write_all_chunks(&mut chunks)
            .await
            .map_err(|e| PeerError::Lost(e.to_string()))?;
    }
    Ok(())
}

/// Reads a message written by [`write_in_parts`], in parts of at most `part_max` bytes and at most `limit`
/// bytes in total. Returns `None` if the stream ends before a message.
///
/// # Errors
/// [`PeerError::Lost`] if the stream breaks or ends within a message, [`PeerError::FrameTooLarge`] if the
/// message or a part exceeds its limit.
///
/// # Cancel safety
/// Not safe: a part of the message may have been read.
pub async fn read_in_parts(
    from: &mut RecvStream,
    part_max: usize,
    limit: usize,
) -> Result<Option<Bytes>, PeerError> {
    let mut bytes = BytesMut::new();
    let mut length = [0; 4];
    loop {
        match from.read_exact(&mut length).await {
            Ok(()) => {}
            Err(quinn::ReadExactError::FinishedEarly(0)) if bytes.is_empty() => return Ok(None),
            Err(e) => return Err(PeerError::Lost(e.to_string())),
        }
        let word = u32::from_be_bytes(length);
        let part = (word & !GOES_ON) as usize;
        let total = bytes.len() + part;
        if part > part_max || total > limit {
            return Err(PeerError::FrameTooLarge {
                bytes: total,
                limit: if part > part_max { part_max } else { limit },
            });
        }
        bytes.reserve(part.min(RESERVE_BYTES));
        read_into(from, &mut bytes, total).await?;
        if word & GOES_ON == 0 {
            return Ok(Some(bytes.freeze()));
        }
        if part == 0 {
            return Err(PeerError::Malformed("a part of a message is empty".to_owned()));
        }
    }
}

/// Reads until `bytes` holds `total` bytes. The buffer grows with the data that arrives, not with the
/// announced length.
///
/// # Errors
/// [`PeerError::Lost`] if the stream breaks or ends early.
///
/// # Cancel safety
/// Not safe: some bytes may have been read into `bytes`.
pub async fn read_into(from: &mut RecvStream, bytes: &mut BytesMut, total: usize) -> Result<(), PeerError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Identity, KnownNodes, Peer, PeerStream, connect, listen};

    /// Returns both ends of a stream.
    async fn ends() -> (PeerStream, PeerStream, (Peer, Peer, crate::Listener)) {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_make(dir.path()).unwrap();
        let listener = listen(([127, 0, 0, 1], 0).into(), &identity).unwrap();
        let (known, to) = (KnownNodes::forgetful(), listener.local_addr().unwrap());
        let accepted = async { listener.accept().await.unwrap().handshake().await.unwrap() };
        let (there, here) = tokio::join!(connect(to, &known), accepted);
        let there = there.unwrap();
        let mut out = there.open().await.unwrap();
        write_message(&mut out.tx, Vec::new()).await.unwrap();
        let mut into = here.accept().await.unwrap();
        assert_eq!(read_message(&mut into.rx, 10).await.unwrap().unwrap().len(), 0);
        (out, into, (there, here, listener))
    }

    #[tokio::test]
    async fn a_message_of_any_size_comes_in_parts_up_to_its_limit() {
        let (mut out, mut into, _open) = ends().await;
        let pieces = |sizes: &[usize]| -> Vec<Bytes> {
            let piece = |(n, size): (usize, &usize)| Bytes::from(vec![n as u8; *size]);
            sizes.iter().enumerate().map(piece).collect()
        };
        for sizes in [
            &[][..],
            &[0],
            &[5],
            &[10],
            &[11],
            &[3, 0, 27],
            &[10, 10],
            &[1; 31],
        ] {
            let sent = pieces(sizes);
            write_in_parts(&mut out.tx, sent.clone(), 10).await.unwrap();
            let came = read_in_parts(&mut into.rx, 10, 31).await.unwrap().unwrap();
            assert_eq!(came, sent.concat());
        }
        write_in_parts(&mut out.tx, pieces(&[32]), 10).await.unwrap();
        let refused = read_in_parts(&mut into.rx, 10, 31).await.unwrap_err();
        assert!(
            matches!(refused, PeerError::FrameTooLarge { limit: 31, .. }),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn a_part_that_is_too_large_or_empty_is_refused() {
        for word in [11u32, GOES_ON | 11, GOES_ON, u32::MAX] {
            let (mut out, mut into, _open) = ends().await;
            out.tx.write_all(&word.to_be_bytes()).await.unwrap();
            assert!(read_in_parts(&mut into.rx, 10, 31).await.is_err(), "{word:x}");
        }
    }
}
